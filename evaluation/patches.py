"""Records which patches first stages keep and which tokens they merge, on real images.

    python -m evaluation.patches --stage results/flip-mask-0.5 results/merge-r-4

It measures nothing. It writes `patches.json` and the images as the towers see them, which is all
that `figures.patches` draws.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commands.flags import ConfigOption, Count, ReadPath, Seed, StagePath, WrittenPath
from commands.inputs import inputs_of
from commands.published import published_command, published_corpus
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.command import run_command
from compress.errors import UserError


@dataclass(frozen=True)
class PatchesOptions(ConfigOption):
    """Write down which patches first stages keep and which tokens they merge, image by image.

    Example: python -m evaluation.patches --stage results/flip-mask-0.5 results/merge-r-4
    """

    stage: tuple[StagePath, ...] = ()
    """first stages made by compress.flip, merge or rank, alone or in a chain"""
    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """directory of the corpus"""
    split: str = "validation"
    """split to draw the images from"""
    images: Count = 6
    """number of images"""
    seed: Seed = 0
    """seed for drawing the images"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""
    output: WrittenPath = Path("results/patches")
    """directory to write patches.json and the images into"""
    overwrite: bool = False
    """replace an earlier result"""

    def check(self) -> None:
        """Raise `UserError` if no stage is named, or one that isn't there."""
        super().check()
        if not self.stage:
            directory = "a directory that compress.flip or merge wrote"
            raise UserError(f"name at least one --stage: {directory}")
        for path in self.stage:
            if not path.is_dir():
                raise UserError(f"--stage {path}: no such directory")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.patches"), PatchesOptions, "evaluation.patches")

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from compress.calibrating.calibration import Calibration
from compress.calibrating.device import check_device
from corpora import load_corpus
from evaluation.reports.patches import Patches, StagePatches
from pruning_mechanism import TowerError, check_belongs, load, load_processor, read_record
from pruning_mechanism.families import tower_config
from pruning_mechanism.groups import patch_groups
from pruning_mechanism.protocols import Processor, VisionConfig


def main(options: PatchesOptions) -> None:
    """Draw the images, follow their patches through each stage, write the record."""
    check_device(options.device)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        corpus = load_corpus(options.corpus, options.corpus_dir, options.split, captions=False)
        images = Calibration.draw(
            corpus, options.images, options.seed, None, None, options.images, options.device
        )
        if not len(images):
            raise UserError(f"{options.corpus}: none of the {options.images} images can be read")
        pictures = _Pictures(directory)
        record = Patches(
            command=published_command("evaluation.patches", options),
            corpus=published_corpus(options.corpus),
            split=options.split,
            seed=options.seed,
            keys=tuple(images.corpus["key"]),
            stages=tuple(_stage(path, images, pictures) for path in options.stage),
        )
        record.save(directory)
    for key in images.unreadable:
        console().print(f"skipped, because it can't be read: {printable(key)}")
    for stage in record.stages:
        console().print(f"{stage.name}: {stage.made_by}, {len(stage.groups)} images")
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _stage(path: Path, images: Calibration, pictures: "_Pictures") -> StagePatches:
    """Follow the patches of all images through one stage.

    Raises:
        UserError: it has no groups to show.
    """
    model, processor = load(path, images.device), load_processor(path)
    check_belongs(processor, model, texts=False)
    (batch,) = replace(images, processor=processor).batches()
    try:
        groups = patch_groups(model, batch.pixels)
    except TowerError as error:
        raise UserError(f"--stage {path}: {error}") from error
    if (groups == torch.arange(groups.shape[1], device=groups.device)).all():
        raise UserError(f"--stage {path}: nothing to show: every patch stays a token of its own")
    config = tower_config(model.config, "vision")
    rows, columns = (side // config.patch_size for side in batch.pixels.shape[-2:])
    return StagePatches(
        name=path.resolve().name,
        made_by=_made_by(path, config),
        rows=rows,
        columns=columns,
        images=tuple(pictures.write(as_seen(batch.pixels, processor))),
        groups=tuple(map(tuple, groups.tolist())),
    )


def as_seen(pixels: Tensor, processor: Processor) -> npt.NDArray[np.uint8]:
    """Prepared images [n, 3, height, width] as pictures, uint8 [n, height, width, 3].

    Cut and scaled as the tower gets them, the normalisation undone.
    """
    own: Any = getattr(processor, "image_processor", processor)
    pixels = pixels.float().cpu()
    if getattr(own, "do_normalize", True):
        mean, deviation = (
            torch.tensor(values)[:, None, None] for values in (own.image_mean, own.image_std)
        )
        pixels = pixels * deviation + mean
    seen: npt.NDArray[np.uint8] = (
        (255 * pixels).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    )
    return seen


class _Pictures:
    """Image files in a directory; stages that see the same share theirs."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._names: dict[tuple[int, tuple[int, ...], bytes], str] = {}

    def write(self, pictures: Iterable[npt.NDArray[np.uint8]]) -> list[str]:
        """Write the pictures [height, width, 3] that aren't there yet; the names of all."""
        return [self._name(number, picture) for number, picture in enumerate(pictures)]

    def _name(self, number: int, picture: npt.NDArray[np.uint8]) -> str:
        key = number, picture.shape, picture.tobytes()
        if key not in self._names:
            versions = sum(known[0] == number for known in self._names)
            name = f"image-{number}{f'-{versions}' if versions else ''}.png"
            PIL.Image.fromarray(picture).save(self._directory / name)
            self._names[key] = name
        return self._names[key]


def _made_by(path: Path, config: VisionConfig) -> str:
    """What was done to a checkpoint, by its record; the name of its directory if it has none."""
    record = read_record(path)
    if record is None:
        return path.resolve().name
    ways = {"flip": getattr(config, "patch_rule", None), "rank": getattr(config, "ranker", None)}
    named = [(step, ways.get(step.split()[0])) for step in record.steps]
    return " → ".join(f"{step} ({way})" if way else step for step, way in named)
