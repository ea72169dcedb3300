"""The masking experiment: how much of an image a first stage needs to see.

    python -m evaluation.masking

For each keep rule and each share of patches masked a first stage is made in memory, measured alone
and in front of the full tower, and forgotten: what is left is the report, which `figures.masking`
draws. Beside `evaluation.cascade`, which measures what is kept on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from cascade import Stage
from commands.flags import Checkpoint, WrittenPath, inputs_of, published_corpus
from commands.outputs import finished_directory
from commands.screen import console, printable
from compress import flip
from compress.command import run_command
from compress.errors import UserError
from compress.flip import MaskShare, PatchRule
from compress.making.make import make
from compress.making.rule import Rule
from compress.making.source import Needs, Source, check_text_model, open_source
from compress.options import TokenOptions
from compress.solving.alignment import LEAST_IMAGES
from evaluation.experiment.first_stages import FirstStage, refuse_overlap
from evaluation.experiment.search import (
    Search,
    SearchOptions,
    first_stage_row,
    reference_row,
    reported,
    searched_corpus,
    timed,
)
from evaluation.reports.record import write_text
from evaluation.reports.report import Report


@dataclass(frozen=True)
class MaskingExperimentOptions(TokenOptions, SearchOptions):
    """Mask patches by each rule, put each tower in front of the full one, measure.

    Example: python -m evaluation.masking --keep grid saliency --mask 0 0.25 0.5 0.75
    """

    keep: tuple[PatchRule, ...] = ("grid", "random", "saliency")
    """patches evenly spread, a seeded random subset, or those of most contrast"""
    mask: tuple[MaskShare, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """shares of the patches that are left out, in [0, 1)"""
    text_model: Checkpoint | None = None
    """a whole CLIP, if --model is a vision tower alone"""
    output: WrittenPath = Path("results/masking")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    reads_target: ClassVar = True


@dataclass(frozen=True)
class Masked:
    """A first stage in memory, and what it was asked for."""

    first: FirstStage
    stage: Stage


def main(options: MaskingExperimentOptions) -> None:
    """Run the experiment and write report.json and report.md."""
    rules = _rules(options)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        collection, skipped = searched_corpus(options)
        source = open_source(options.checkpoints, options.sampling, _needs(options))
        refuse_overlap({*source.seen, *source.calibration.corpus["key"]}, set(collection["key"]))
        last = source.full.path
        texts = Stage.load(options.text_model, options.device) if options.text_model else None
        tower = Stage.load(last, options.device, options.batch_size, texts, options.attends_by)
        check_text_model(options.text_model, tower.model, last)
        masked = list(_first_stages(rules, source, tower, options))
        clock = timed(
            {_name(each.first): each.stage for each in masked} | {"": tower}, collection, options
        )
        search = Search.of(options, collection, tower)
        rows = [
            first_stage_row(
                each.first, each.stage, search, clock[_name(each.first)], clock[""], options
            )
            for each in masked
        ]
        report = reported(
            "evaluation.masking", last, _calibration(source, options), skipped, search, options,
            reference_row(search, clock[""]), rows,
        )  # fmt: skip
        report.save(directory / "report.json")
        write_text(directory / "report.md", report.markdown())
    _show(report, options)


def _needs(options: MaskingExperimentOptions) -> Needs:
    """The full tower is measured, whatever is aligned to it."""
    return Needs(full=True, images=LEAST_IMAGES if options.align != "none" else 1)


def _rules(options: MaskingExperimentOptions) -> dict[PatchRule, Rule]:
    """Patch masking by each keep rule, at all shares.

    Raises:
        UserError: there is no rule or no share, or a share is out of range.
    """
    for name in ("keep", "mask"):
        if not getattr(options, name):
            raise UserError(f"name at least one value of --{name}")
    shared = {each.name: getattr(options, each.name) for each in fields(TokenOptions)}
    return {
        keep: flip.rule(flip.MaskingOptions(**shared, mask=options.mask, keep=keep))
        for keep in options.keep
    }


def _first_stages(
    rules: dict[PatchRule, Rule],
    source: Source,
    tower: Stage,
    options: MaskingExperimentOptions,
) -> Iterator[Masked]:
    """The first stages of each rule at each share, as they would load from a checkpoint."""
    for keep, rule in rules.items():
        for setting in rule.settings:
            result = make(source, rule, setting, options.finish)
            seconds = result.compression.seconds
            yield Masked(
                FirstStage(keep, setting.label, setting.value, None, seconds),
                Stage(
                    _sharing(result.model, source.model),
                    result.processor,
                    options.batch_size,
                    tower,
                    options.attends_by,
                ),
            )


@torch.no_grad()
def _sharing(model: nn.Module, source: nn.Module) -> nn.Module:
    """A first stage with the source's own weights wherever its are the same.

    Masking changes the projection alone, so thirty towers take little more memory than one. In
    half precision, as it would be stored, it is computed as a checkpoint is once it is loaded.
    """
    model = model.to(source.dtype)
    own = dict(source.named_parameters())
    for name, parameter in model.named_parameters():
        if name in own and torch.equal(parameter, own[name]):
            parameter.data = own[name].data
    return model


def _name(first: FirstStage) -> str:
    return f"{first.method} {first.constraint}"


def _calibration(source: Source, options: MaskingExperimentOptions) -> str:
    """What the first stages were made of and calibrated on, in words."""
    made_of = f"; all made of {' → '.join(source.chain)}" if source.chain else ""
    if options.align == "none":
        return f"nothing: first stages are not aligned{made_of}"
    return (
        f"{len(source.calibration):,} images of {published_corpus(options.corpus)} "
        f"({options.calibration_split}), for the alignment ({options.align}){made_of}"
    )


def _show(report: Report, options: MaskingExperimentOptions) -> None:
    console().print(report.table())
    for key in report.skipped:
        console().print(f"skipped, because it can't be read: {printable(key)}")
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main, MaskingExperimentOptions, "evaluation.masking")
