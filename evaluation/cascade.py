"""The experiment: first stages, alone and in front of the full tower, measured and reported.

    python -m evaluation.cascade

Stands at the end of corpus → importance → mask → repair → smaller tower → stage → cascade; what it
writes, the report, is all that tables and figures are made of.
"""

import datetime
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from datasets import Dataset, Image
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from cascade import Cascade, Stage, query_speedup
from cascade.cost import return_fractions
from compress.command import UserError, console, finished_directory, run_command
from compress.dense import open_base
from compress.options import BudgetOptions
from corpora import drop_unreadable, load_corpus
from evaluation.bootstrap import Bootstrap, Interval
from evaluation.clock import StageTiming, speedup_interval, stage_timings
from evaluation.first_stages import (
    FirstStage,
    made_before,
    make,
    parse_method,
    refuse_overlap,
    seen,
)
from evaluation.machine import this_machine, versions
from evaluation.quality import Answers, Queries, Remembered, answers_alone, answers_of, result
from evaluation.report import Report, Row
from pruning_mechanism import is_pruned, macs, parameters


@dataclass(frozen=True)
class CascadeOptions(BudgetOptions):
    """Compress first stages, put each in front of the full tower, measure recall and seconds.

    Example: python -m evaluation.cascade --methods fisher --mac-constraint 0.5 --m 50
    """

    methods: tuple[str, ...] = ("recover", "fisher", "sensitivity")
    """rules that make first stages, with changes to their options, as in fisher+rescale"""
    mac_constraint: tuple[float, ...] = (0.2, 0.3, 0.5)
    """kept MACs / dense MACs of the encoder layers, in (0, 1]"""
    heads: tuple[int, ...] = (22, 77, 132)
    """numbers of heads that go, for sensitivity"""
    stage: tuple[Path, ...] = ()
    """first stages made before, instead of the methods"""
    samples: int = 1024
    """calibration images for the scores"""
    curve_samples: int = 128
    """calibration images for the curves"""
    split: str = "validation"
    """split that is searched"""
    images: int | None = None
    """search the first so many images only"""
    captions: Literal["all", "first"] = "all"
    """captions of an image that are queries"""
    m: int = 50
    """candidates handed from the first stage to the full tower"""
    f: float = 0.1
    """lifetime return fraction assumed for the speedup"""
    seconds: Literal["encoder", "end to end"] = "encoder"
    """seconds that speedups are made of"""
    repetitions: int = 5
    """timed turns of all stages"""
    output: Path = Path("results/cascade")
    """directory to write report, table and first stages into"""
    overwrite: bool = False
    """replace an earlier result"""


@dataclass(frozen=True)
class Search:
    """The collection searched, its queries, and what the uncascaded tower makes of them."""

    corpus: Dataset
    queries: Queries
    bootstrap: Bootstrap
    tower: Stage
    remembered: Remembered
    uncascaded: Answers


def main(options: CascadeOptions) -> None:
    """Run the experiment and write report.json, report.md and the first stages."""
    _check(options)
    names = () if options.stage else dict.fromkeys(options.methods)
    methods = [parse_method(name, options) for name in names]
    with finished_directory(options.output, options.overwrite) as directory:
        collection, skipped = _collection(options)
        keys = set(collection["key"])
        if options.stage:
            stages = [made_before(path) for path in options.stage]
            refuse_overlap(set().union(*map(seen, stages)), keys)
            calibration = "first stages made before; see their compression.json"
        else:
            base = open_base(options, any(method.rule.captions for method in methods))
            for method in methods:
                method.rule.check(base.towers[0])
            refuse_overlap(set(base.calibration.corpus["key"]), keys)
            stages = [
                stage for method in methods for stage in make(method, base, directory / "stages")
            ]
            calibration = _calibration(options, len(base.calibration))
        report = _measure(options, collection, skipped, stages, calibration)
        report.save(directory / "report.json")
        (directory / "report.md").write_text(report.markdown())
    console().print(report.table())
    for key in report.skipped:
        console().print(f"skipped, because it can't be read: {key}")
    console().print(f"wrote {options.output}", soft_wrap=True)


def _check(options: CascadeOptions) -> None:
    if options.tower != "vision":
        raise UserError(
            f"--tower {options.tower}: first stages are searched with the full text tower, so "
            "only vision towers are measured"
        )
    if options.repetitions < 1:
        raise UserError(f"--repetitions must be at least 1, found {options.repetitions}")
    if options.m < 10:
        raise UserError(f"--m must be at least 10, the k of agreement@10, found {options.m}")
    if not 0 <= options.f <= 1:
        raise UserError(f"--f must be in [0, 1], found {options.f}")
    if options.images is not None and options.images < 1:
        raise UserError(f"--images must be at least 1, found {options.images}")


def _collection(options: CascadeOptions) -> tuple[Dataset, tuple[str, ...]]:
    """The readable images that are searched, and the keys of the others."""
    corpus = load_corpus(options.corpus, options.corpus_dir, options.split)
    if options.images is not None:
        corpus = corpus.select(range(min(options.images, len(corpus))))
    corpus, unreadable = drop_unreadable(corpus)
    return corpus, tuple(unreadable)


def _measure(
    options: CascadeOptions,
    corpus: Dataset,
    skipped: tuple[str, ...],
    stages: list[FirstStage],
    calibration: str,
) -> Report:
    """Everything that the report holds, given first stages on disk."""
    texts = Stage.load(options.text_model, options.device) if options.text_model else None
    tower = Stage.load(options.model, options.device, options.batch_size, texts)
    search = _search(options, corpus, tower)
    loaded = [_load(stage, tower, options) for stage in stages]
    names = [f"{number} {stage.directory.name}" for number, stage in enumerate(stages)]
    clock = _clock(dict(zip(names, loaded, strict=True)) | {"": tower}, corpus, options)
    reference = _reference_row(search, clock[""])
    rows = [
        _row(first, stage, search, clock[name], clock[""], options)
        for first, stage, name in zip(stages, loaded, names, strict=True)
    ]
    return Report(
        command=shlex.join(["python", "-m", "evaluation.cascade", *sys.argv[1:]]),
        model=_model_name(options.model),
        corpus=options.corpus,
        split=options.split,
        images=len(corpus),
        queries=len(search.queries.texts),
        calibration=calibration,
        captions=options.captions,
        m=(options.m,),
        seconds_basis=options.seconds,
        seed=options.seed,
        skipped=skipped,
        reference=reference,
        rows=tuple(rows),
        machine=this_machine(options.device, tower.dtype),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _model_name(path: str) -> str:
    """What a report calls the full tower: a hub name as it is, a directory by its last part."""
    return Path(path).resolve().name if Path(path).is_dir() else path


def _calibration(options: CascadeOptions, images: int) -> str:
    """What the first stages were calibrated on; a small corpus gives fewer images than asked."""
    return (
        f"{images:,} images of {options.corpus} ({options.calibration_split}), "
        f"{min(images, options.repair_samples):,} of them for the repair ({options.repair})"
    )


def _load(stage: FirstStage, tower: Stage, options: CascadeOptions) -> Stage:
    """A first stage; one without a text tower borrows the full tower's."""
    loaded = Stage.load(stage.directory, options.device, options.batch_size, texts=tower)
    if hasattr(loaded.model, "text_model") and is_pruned(loaded.model, "text"):
        raise UserError(
            f"--stage {stage.directory}: its text tower is smaller too, but first stages are "
            "searched with the full text tower"
        )
    if loaded.dimension != tower.dimension:
        raise UserError(f"--stage {stage.directory} doesn't embed into the full tower's space")
    return loaded


def _search(options: CascadeOptions, corpus: Dataset, tower: Stage) -> Search:
    queries = Queries.of(corpus, options.captions)
    images = _embeddings(tower, corpus, "uncascaded")
    different = list(dict.fromkeys(queries.texts))
    texts = dict(zip(different, tower.encode_texts(different), strict=True))
    remembered = Remembered(tower.name, tower.text_name, images, texts)
    embedded = remembered.encode_texts(queries.texts)
    return Search(
        corpus,
        queries,
        Bootstrap(queries.target, seed=options.seed),
        tower,
        remembered,
        answers_alone(embedded, images, queries.target),
    )


def _embeddings(stage: Stage, corpus: Dataset, name: str) -> Tensor:
    """Embeddings [N, d] of all images of a corpus."""
    parts = []
    with tqdm(total=len(corpus), desc=f"embed: {name}", unit="image") as bar:
        for start in range(0, len(corpus), stage.batch_size):
            images = corpus[start : start + stage.batch_size]["image"]
            parts.append(stage.encode_images(images))
            bar.update(len(images))
    return torch.cat(parts)


def _clock(
    stages: dict[str, Stage], corpus: Dataset, options: CascadeOptions
) -> dict[str, StageTiming]:
    """Time all stages in turn on one batch of the collection's files."""
    rows = corpus.select(range(min(options.batch_size, len(corpus))))
    stored = rows.cast_column("image", Image(decode=False))["image"]
    sources = [each["bytes"] or Path(each["path"]).read_bytes() for each in stored]
    return stage_timings(stages, sources, options.repetitions, options.device)


def _reference_row(search: Search, clock: StageTiming) -> Row:
    """The uncascaded tower as a row of the report."""
    model = search.tower.model
    cost = macs(model)
    alone = result(search.uncascaded, search.uncascaded, search.bootstrap)
    return Row(
        method="uncascaded", constraint="", constraint_value=None, directory=None,
        encoder_macs=cost.encoder, mac_fraction=cost.fraction, tower_macs=cost.tower,
        parameters=parameters(model), alone=alone, cascade=None, one_minus_cosine=None,
        encoder_seconds=clock.encoder, end_to_end_seconds=clock.end_to_end,
        lifetime_speedup=Interval(1.0, 1.0, 1.0), query_speedup=None, f_assumed=None,
        f_measured=None, compression_seconds=None,
    )  # fmt: skip


def _row(
    first: FirstStage,
    stage: Stage,
    search: Search,
    clock: StageTiming,
    last: StageTiming,
    options: CascadeOptions,
) -> Row:
    """One first stage, alone and in front of the full tower."""
    images = _embeddings(stage, search.corpus, f"{first.method} {first.constraint}".strip())
    known = search.remembered
    embedded = known.encode_texts(search.queries.texts)
    alone = answers_alone(embedded, images, search.queries.target)
    positions = range(len(images))
    cascade = Cascade([replace(known, name=stage.name, images=images), known], m=[options.m])
    cascade.index(positions, keys=positions)
    together = answers_of(cascade, search.queries)
    cost = macs(stage.model)
    timings = [each.basis(options.seconds) for each in (clock, last)]
    return Row(
        method=first.method,
        constraint=first.constraint,
        constraint_value=first.constraint_value,
        directory=first.directory.name,
        encoder_macs=cost.encoder,
        mac_fraction=cost.fraction,
        tower_macs=cost.tower,
        parameters=parameters(stage.model),
        alone=result(alone, search.uncascaded, search.bootstrap),
        cascade=result(together, search.uncascaded, search.bootstrap),
        one_minus_cosine=1 - cosine_similarity(images, known.images).mean().item(),
        encoder_seconds=clock.encoder,
        end_to_end_seconds=clock.end_to_end,
        lifetime_speedup=speedup_interval(timings, options.f),
        query_speedup=query_speedup([each.median for each in timings], [options.m]),
        f_assumed=options.f,
        f_measured=return_fractions(cascade.encoded)[0],
        compression_seconds=first.seconds,
    )


if __name__ == "__main__":
    run_command(main, CascadeOptions, "evaluation.cascade")
