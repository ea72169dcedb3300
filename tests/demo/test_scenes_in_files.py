"""Scenes drawn to files are the held-out scenes, and the search engine finds them."""

import numpy as np
from PIL import Image

from commands.run import run_command
from corpora.scenes import SEEDS, render, scene
from demo.scenes import ScenesOptions, main


def test_files_are_the_held_out_scenes(tmp_path, capsys):
    line = ["--images", "3", "--output", str(tmp_path / "scenes")]
    run_command(main, ScenesOptions, "demo.scenes", line)
    files = sorted((tmp_path / "scenes").glob("*.png"))
    assert len(files) == 3
    for number, file in enumerate(files):
        drawn = render(scene(SEEDS["validation"], number))
        assert np.array_equal(np.asarray(Image.open(file)), np.asarray(drawn))
    assert f"wrote {tmp_path / 'scenes'}" in capsys.readouterr().out
