"""Scenes as files: a folder of small pictures to try the search engine on, without any download.

python -m demo.scenes --images 300 --output results/search/photos
"""

from dataclasses import dataclass
from pathlib import Path

from commands.flags import ConfigOption, Count, WrittenPath
from commands.run import main_of, run_command


@dataclass(frozen=True)
class ScenesOptions(ConfigOption):
    """Draw held-out scenes into files, to index and search.

    Example: python -m demo.scenes --images 300 --output results/search/photos
    """

    images: Count = 300
    """how many to draw"""
    output: WrittenPath = Path("results/scenes")
    """directory to write them into"""
    overwrite: bool = False
    """replace an earlier result"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("demo.scenes"), ScenesOptions, "demo.scenes")

from tqdm import tqdm

from commands.inputs import inputs_of
from commands.screen import console
from commands.writing.outputs import finished_directory
from corpora.scenes import SEEDS, render, scene


def main(options: ScenesOptions) -> None:
    """Draw and write."""
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        for number in tqdm(range(options.images), desc="drawing", unit="scene", leave=None):
            picture = render(scene(SEEDS["validation"], number))
            picture.save(directory / f"{number:05d}.png")
    console().print(f"wrote {options.output}")
