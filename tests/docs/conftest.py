"""A directory in which what the pages show can be run."""

import json
from pathlib import Path

import pytest
import torch

from corpora.scenes import SEEDS, captions, render, scene
from pruning_mechanism import Mask, Reduction, load, load_processor, prune, reduce, save
from tests.docs.markdown import ROOT

DEMO = ROOT / "demo" / "clip-scenes"
FIRST = ROOT / "demo" / "clip-scenes-first"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A directory with all that the pages name, small.

    A directory wins over a hub's model of the same name, so the demo checkpoint lies where the
    pages say `openai/clip-vit-base-patch16`. The first stages in `results` are cut without scores:
    they are of the kinds that the commands make, not as good.
    """
    root = tmp_path_factory.mktemp("workplace")
    (root / "openai").mkdir()
    (root / "openai" / "clip-vit-base-patch16").symlink_to(DEMO)
    (root / "demo").mkdir()
    for checkpoint in (DEMO, FIRST):
        (root / "demo" / checkpoint.name).symlink_to(checkpoint)
    for split, images in (("train", 12), ("validation", 6)):
        _write_photos(root / "photos" / split, SEEDS[split], images)
    model, processor = load(DEMO), load_processor(DEMO)
    half = Mask.dense(model.config)
    half.heads[:, ::2], half.neurons[:, ::2] = False, False
    narrow, early = prune(model, half), Reduction(layers=4)
    merging = reduce(narrow, Reduction(merged_per_layer=(8,) * 4 + (0,) * 8))
    stages = {
        "fisher": narrow,
        "recover": narrow,
        "early_exit": reduce(model, early),
        "joint": reduce(merging, early),
    }
    for name, stage in stages.items():
        save(stage, root / "results" / name, processor)
    return root


def _write_photos(place: Path, seed: int, images: int) -> None:
    place.mkdir(parents=True)
    lines = []
    for number in range(images):
        drawn, file = scene(seed, number), f"{number:02d}.jpg"
        render(drawn).convert("RGB").save(place / file)
        lines.append(json.dumps({"file_name": file, "captions": list(captions(drawn))}))
    (place / "metadata.jsonl").write_text("\n".join(lines))


@pytest.fixture
def offline(monkeypatch) -> None:
    """No model hub, and one thread."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    torch.set_num_threads(1)
