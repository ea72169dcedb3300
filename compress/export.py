"""Export a vision tower for ONNX Runtime or OpenVINO, in float32, bfloat16 or int8.

After every rule and beside the smaller tower's weights, where `Stage.load` finds it. What makes an
export is `pruning_mechanism.runtimes`; calibration images come in here.

    python -m compress.export results/joint-mac-0.07 --to openvino --dtype int8
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from commands.flags import Checkpoint, ConfigOption, Count, Positional, ReadPath, Seed
from commands.published import published_corpus
from commands.run import main_of
from compress.choices import DEMO_MODEL, Sampling
from compress.command import run_command

COMPARED = 64
"""Calibration images that embeddings are compared on where nothing is calibrated."""


@dataclass(frozen=True)
class ExportTowerOptions(ConfigOption):
    """Export a vision tower for ONNX Runtime or OpenVINO, beside its weights.

    Example: python -m compress.export results/joint-mac-0.07 --to openvino --dtype int8
    """

    model: Positional[Annotated[Checkpoint, tyro.conf.arg(metavar="DIR")]] = DEMO_MODEL
    """directory of a CLIP, or of its vision tower alone, dense or made smaller"""
    to: Literal["onnx", "openvino"] = "openvino"
    """whose graph: ONNX Runtime's or OpenVINO's"""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """what it computes in; int8 is calibrated, and its projection solved anew, on images"""
    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    calibration_split: str = "train"
    """split that the calibration images are drawn from"""
    samples: Count = 1024
    """calibration images; float32 and bfloat16 are compared on the first 64 of them"""
    seed: Seed = 0
    """seed for drawing calibration images"""
    overwrite: bool = False
    """replace an earlier export"""

    @property
    def place(self) -> Path:
        """The directory of the export."""
        return Path(self.model) / self.to / self.dtype

    @property
    def sampling(self) -> Sampling:
        """Which images to calibrate on; how much of them is read is for the tower to say."""
        return Sampling(
            self.corpus,
            self.corpus_dir,
            self.calibration_split,
            self.samples if self.dtype == "int8" else min(self.samples, COMPARED),
            self.seed,
            called=published_corpus(self.corpus),
        )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.export"), ExportTowerOptions, "compress.export")

import torch
from rich.table import Table

from commands.screen import announced, console, printable
from commands.writing.belongings import MARKER, add, files_in
from commands.writing.outputs import finished_directory
from compress.calibrating.drawing import drawn
from compress.errors import UserError
from compress.making.source import read_by
from pruning_mechanism import check_belongs
from pruning_mechanism.checkpoints.opened import Checkpoint as OpenedCheckpoint
from pruning_mechanism.runtimes.exports import Export
from pruning_mechanism.runtimes.formats import FORMATS
from pruning_mechanism.runtimes.making import (
    LEAST_IMAGES,
    Images,
    check_exportable,
    make_export,
)
from pruning_mechanism.runtimes.parity import KEEPS


def main(options: ExportTowerOptions) -> None:
    """Check, draw calibration images, export, and say how close the embeddings are."""
    form, place = FORMATS[options.to], options.place
    check_exportable(form, options.dtype, options.samples)
    if not Path(options.model).is_dir():
        raise UserError(
            f"{options.model} is no directory, and an export lies beside its weights: download "
            "or save it first. Stage.load makes exports in float32 of hub names itself"
        )
    with finished_directory(place, options.overwrite) as directory:
        opened = OpenedCheckpoint.open(options.model, exact=True)
        check_belongs(opened.processor, opened.model)
        least = LEAST_IMAGES if options.dtype == "int8" else 1
        reads = read_by(opened.record, opened.path)
        sampling = replace(options.sampling, reads=reads)
        calibration = drawn(sampling, opened.processor, least=least)
        if calibration.long_side:  # what thumbnails would be depends on the full tower
            calibration, reads = calibration.reading("full"), "full"
        pixels = torch.cat([batch.pixels for batch in calibration.batches("preparing images")])
        images = Images(
            pixels,
            f"{len(pixels)} images of {options.sampling.recorded}, seed {options.seed}"
            + ("" if reads == "full" else f", {reads} read"),
        )
        with announced(f"exporting to {options.to} in {options.dtype}"):
            export = make_export(opened.model, form, options.dtype, directory, images)
    add(Path(options.model), [f"{options.to}/{options.dtype}/{name}" for name in _files(place)])
    _show(export, options)
    console().print(f"wrote {printable(place)}", soft_wrap=True)


def _files(place: Path) -> list[str]:
    """All files of an export, its marker too."""
    return [*files_in(place), MARKER]


def _show(export: Export, options: ExportTowerOptions) -> None:
    """The table of parity, and what was done to the projection."""
    table = Table(
        "compared with torch on", "images", "largest difference", "cosine", "least cosine",
        title=f"{options.to}, {options.dtype}",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for name, parity in (("noise", export.noise), ("calibration images", export.on_images)):
        if parity is not None:
            table.add_row(
                name,
                f"{parity.images:,}",
                f"{parity.difference:.2g}",
                f"{parity.cosine:.6f}",
                f"{parity.least:.6f}",
            )
    console().print(table)
    if options.dtype == "int8":
        console().print(f"projection: {export.closing}", soft_wrap=True)
        console().print(f"in float32: {', '.join(export.left) or 'nothing else'}", soft_wrap=True)
    seen = export.on_images
    if seen is not None and seen.cosine < KEEPS:
        console().print(
            f"note: a mean cosine below {KEEPS} changes what is found: try --dtype bfloat16 or "
            "float32, or more --samples of images like yours"
        )
