"""What a collection costs over its lifetime: a stream of queries, fixed m against adaptive m.

    python -m evaluation.stream photos.cascade --queries captions.txt

Queries follow Zipf's law. How many images the last stage ever encodes is counted after 1 to 100,000
of them, by the candidates that a search hands on; `figures.stream` draws the report.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    Count,
    Positional,
    ReadPath,
    Seed,
    WrittenPath,
)
from commands.inputs import inputs_of
from commands.published import published_command
from commands.run import main_of
from commands.towers import TowersOptions


@dataclass(frozen=True)
class StreamOptions(TowersOptions):
    """Count what the last stage encodes over a stream of queries, fixed against adaptive m.

    Example: python -m evaluation.stream photos.cascade --queries captions.txt
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as evaluation.plan --m auto has calibrated it"""
    queries: ReadPath | None = None
    """text file of different queries, one a line (default: the collection's captions)"""
    largest: Count = 100_000
    """queries of a stream"""
    exponent: Annotated[float, Bounds(0, 4)] = 1.0
    """of Zipf's law; at 0 all queries are equally frequent"""
    streams: Count = 5
    """streams, each with other frequent queries"""
    batch_size: Count = 32
    """images or texts that pass through a tower at once"""
    seed: Seed = 0
    """seed of the first stream; the others follow"""
    output: WrittenPath = Path("results/stream")
    """directory to write report.json into"""
    overwrite: bool = False
    """replace an earlier result"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.stream"), StreamOptions, "evaluation.stream")

import torch

from cascade.calibrated.calibration import CALIBRATE, Calibration
from cascade.collecting.recalling import RecalledStage
from cascade.collection import Collection
from cascade.measuring.captions import captions_of
from cascade.stages.stage import Encoder
from cascade.terminal.query_files import queries_in
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from evaluation.lifetime.counting import Streams, measured_curve
from evaluation.lifetime.telling import told
from evaluation.measuring.machine import this_machine
from evaluation.measuring.values import Machine, Running
from evaluation.planning.costs import costs_of
from evaluation.planning.sample import encoded_sample
from evaluation.reports.stream import Stream


def main(options: StreamOptions) -> None:
    """Count, write the report and show it as a table."""
    texts = None if options.queries is None else queries_in(options.queries)
    with (
        finished_directory(options.output, options.overwrite, inputs_of(options)) as directory,
        Collection.open(
            options.collection,
            batch_size=options.batch_size,
            device=options.device,
            runtime=options.runtime,
        ) as collection,
    ):
        calibration = _calibration(collection, options)
        texts = list(dict.fromkeys(captions_of(collection.rows()) if texts is None else texts))
        if not texts:
            raise UsageError(f"{options.collection} has no captions: name a file of --queries")
        report = _report(collection, calibration, texts, options)
        report.save(directory)
    console().print(told(report))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _calibration(collection: Collection, options: StreamOptions) -> Calibration:
    """What is known of the stages.

    Raises:
        UsageError: nothing, or it isn't of such a collection.
    """
    calibration = collection.calibration
    if calibration is None:
        raise UsageError(f"{options.collection} isn't calibrated: {CALIBRATE}")
    names = [stage.name for stage in collection.stages]
    if why := calibration.unfit(names, len(collection)):
        raise UsageError(f"the calibration of {options.collection} can't be used: {why}")
    return calibration


def _report(
    collection: Collection, calibration: Calibration, texts: list[str], options: StreamOptions
) -> Stream:
    encoded = collection.status().encoded
    whole = len(collection) if encoded[-1] == encoded[0] else 1
    sample = encoded_sample(collection, whole, options.seed, options.batch_size)
    costs = costs_of(collection, sample)
    if costs.seconds is None:
        raise UsageError(f"no image of {options.collection} can be opened to time the stages")
    embedded = collection.encode_texts(texts)
    streams = Streams.of(
        len(texts), options.largest, options.exponent, options.streams, options.seed
    )
    best = sample if sample.complete and whole > 1 else None
    curves = tuple(
        measured_curve(collection.cascade, embedded, streams, name, calibration.k, best)
        for name in ("fixed", "auto")
    )
    first, last = costs.seconds
    running = tuple(each for each in costs.running if each is not None)
    return Stream(
        command=published_command("evaluation.stream", options),
        images=len(collection),
        texts=len(texts),
        exponent=options.exponent,
        k=calibration.k,
        target=calibration.agreement,
        learnt_from=calibration.of,
        seconds=(first, last),
        queries=streams.after,
        curves=curves,
        machine=_machine(options.device, collection, running),
        encoder_seconds=None if costs.encoders is None else (costs.encoders[0], costs.encoders[1]),
        running=running if len(running) == len(costs.running) else (),
    )


def _machine(device: str, collection: Collection, running: Sequence[Running]) -> Machine:
    """This machine, with the types that stages say they compute in."""
    machine = this_machine(device, _dtype(collection.stages[-1]))
    dtypes = ", ".join(dict.fromkeys(each.dtype for each in running))
    return replace(machine, dtype=dtypes or machine.dtype)


def _dtype(stage: Encoder) -> torch.dtype:
    """What a stage of a collection, which is loaded by now, computes in."""
    loaded = stage.stage if isinstance(stage, RecalledStage) else stage
    found: torch.dtype = getattr(loaded, "dtype", torch.float32)
    return found
