"""The masking experiment: how much of an image a first stage needs to see.

    python -m evaluation.masking

For each keep rule and each share of masked patches, it makes a first stage in memory, measures it
alone and in front of the full tower, and forgets it: only the report stays, which `figures.masking`
draws. `evaluation.cascade` measures first stages that are kept on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from commands.flags import Checkpoint, WrittenPath
from commands.inputs import inputs_of
from commands.published import published_corpus
from commands.run import main_of
from commands.writing.outputs import finished_directory
from compress.choices import PatchRule
from compress.command import run_command
from compress.errors import UserError
from compress.options import MaskShare, TokenOptions
from evaluation.options import SearchOptions
from evaluation.reports.row import FULL_TOWER


@dataclass(frozen=True)
class MaskingExperimentOptions(TokenOptions, SearchOptions):
    """Mask patches by each rule, put each tower in front of the full one, measure.

    Example: python -m evaluation.masking --keep grid saliency --mask 0 0.25 0.5 0.75
    """

    keep: tuple[PatchRule, ...] = ("grid", "random", "saliency")
    """keep evenly spread patches, a seeded random subset, or those with most contrast"""
    mask: tuple[MaskShare, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """shares of the patches to mask, in [0, 1)"""
    text_model: Checkpoint | None = None
    """a CLIP model with a text tower, if --model has none"""
    output: WrittenPath = Path("results/masking")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    reads_target: ClassVar = True


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.masking"), MaskingExperimentOptions, "evaluation.masking")

import torch
from transformers import PreTrainedModel

from cascade import Stage
from compress import flip
from compress.making.make import make
from compress.making.rule import Rule
from compress.making.source import Needs, Source, check_text_model, open_source
from evaluation.experiment.first_stages import FirstStage, refuse_overlap
from evaluation.experiment.reporting import reported, show_report, write_report
from evaluation.experiment.search import (
    Search,
    SearchedStage,
    reference_row,
    searched_corpus,
    timed,
)
from evaluation.experiment.together import Ending, LastStage, first_stage_row


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
        source = open_source(
            options.checkpoints, options.sampling, Needs(full=True) | Needs.of(options.align)
        )
        refuse_overlap({*source.seen, *source.calibration.corpus["key"]}, set(collection["key"]))
        path = source.full.path
        texts = Stage.load(options.text_model, options.device) if options.text_model else None
        tower = Stage.load(path, options.device, options.batch_size, texts, options.attends_by)
        check_text_model(options.text_model, tower.model, path)
        masked = list(_first_stages(rules, source, tower, options))
        contenders = {FULL_TOWER: tower} | {pair.first.name: pair.stage for pair in masked}
        clock = timed(contenders, collection, options)
        full = clock[FULL_TOWER]
        search = Search.of(options, collection, tower)
        ending = Ending(LastStage.reference(search, full), full)
        rows = [
            first_stage_row(
                SearchedStage.of(pair.first, pair.stage, search),
                search,
                clock[pair.first.name],
                ending,
                options,
            )
            for pair in masked
        ]
        report = reported(
            "evaluation.masking", path, _calibration(source, options), skipped, search, options,
            reference_row(search, full), rows,
        )  # fmt: skip
        write_report(report, directory)
    show_report(report, options.output)


def _rules(options: MaskingExperimentOptions) -> dict[PatchRule, Rule]:
    """Patch masking by each keep rule, at all shares.

    Raises:
        UserError: there is no rule or no share, or a share is out of range.
    """
    for name in ("keep", "mask"):
        if not getattr(options, name):
            raise UserError(f"name at least one value of --{name}")
    shared = {field.name: getattr(options, field.name) for field in fields(TokenOptions)}
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
                FirstStage(keep, setting.label, setting.kind, setting.value, None, seconds),
                Stage(
                    _sharing(result.model, source.model),
                    result.processor,
                    options.batch_size,
                    tower,
                    options.attends_by,
                    reads=source.calibration.reads,
                ),
            )


@torch.no_grad()
def _sharing(model: PreTrainedModel, source: PreTrainedModel) -> PreTrainedModel:
    """A first stage with the source's own weights wherever its are the same.

    Masking changes the projection alone, so thirty towers take little more memory than one. In
    half precision, as it would be stored, it is computed as a checkpoint is once it is loaded.
    """
    model.to(source.dtype)  # type: ignore[arg-type]  # its wrapper hides self
    own = dict(source.named_parameters())
    for name, parameter in model.named_parameters():
        if name in own and torch.equal(parameter, own[name]):
            parameter.data = own[name].data
    return model


def _calibration(source: Source, options: MaskingExperimentOptions) -> str:
    """What the first stages were made of and calibrated on, in words."""
    made_of = f"; all made of {' → '.join(source.chain)}" if source.chain else ""
    if options.align == "none":
        return f"nothing: first stages are not aligned{made_of}"
    return (
        f"{len(source.calibration):,} images of {published_corpus(options.corpus)} "
        f"({options.calibration_split}), for the alignment ({options.align}){made_of}"
    )
