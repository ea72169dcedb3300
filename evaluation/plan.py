"""The planner: how many candidates a collection's cascade needs, certified, and what they cost.

    python -m evaluation.plan photos.cascade --agreement 0.95 --confidence 0.95

Measured on queries and a sample of the collection's own images; nobody has to say what is relevant.
The m that it finds is written into the collection.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    ConfigOption,
    Count,
    Positional,
    ReadPath,
    Seed,
    Unread,
)
from commands.run import main_of

Inside = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]


@dataclass(frozen=True)
class PlanOptions(ConfigOption):
    """Choose m for a collection so that its agreement with the full tower is certified.

    Example: python -m evaluation.plan photos.cascade --agreement 0.95 --confidence 0.95
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    m: Literal["fixed", "auto"] = "fixed"
    """fixed: one m for all queries; auto: besides, learn how many candidates each query needs"""
    agreement: Inside = 0.95
    """share of the full tower's top k that the cascade has to return on average"""
    confidence: Inside = 0.95
    """how sure that has to be"""
    k: Count = 10
    """results that are compared"""
    queries: ReadPath | None = None
    """text file of queries as they will be asked, one a line (default: the collection's captions;
    where it has none its images, or everyday texts for --m auto)"""
    drawn: Count = 1000
    """queries drawn from captions, images or everyday texts; half of them to learn from for auto"""
    images: Count = 2000
    """images that the full tower encodes for it, drawn from all; what it encodes is kept"""
    largest: Count = 4096
    """the largest m to consider"""
    test: Literal["betting", "hoeffding-bentkus"] = "betting"
    """p-value of each m: betting is the sharper one where agreements vary little"""
    dry: bool = False
    """say what m would be, and leave the collection's as it is"""
    batch_size: Count = 32
    """images or texts that pass through a tower at once"""
    seed: Seed = 0
    """seed for drawing images and queries"""
    device: str = "cpu"
    """where the towers run: cpu, cuda, mps"""

    unread: ClassVar = (
        Unread(("drawn",), lambda options: options.queries is not None, "--queries"),
    )

    def check(self) -> None:
        """Raise `UsageError` if m can't be as large as k."""
        super().check()
        if self.largest < self.k:
            raise UsageError(
                f"--largest {self.largest} is below --k {self.k}: fewer candidates than results"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.plan"), PlanOptions, "evaluation.plan")

from tqdm import tqdm

from cascade.calibrated.calibration import Calibration
from cascade.collecting.record import Plan
from cascade.collection import Collection
from cascade.measuring.captions import captions_of, drawn_texts
from cascade.terminal.query_files import queries_in
from commands.screen import console, printable
from evaluation.planning import telling
from evaluation.planning.adapting import LEVELS, Levels
from evaluation.planning.asking import (
    Asked,
    asked_images,
    asked_texts,
)
from evaluation.planning.calibrating import Learnt, learn
from evaluation.planning.certifying import P_VALUES, lower_bound, queries_needed, smallest_m
from evaluation.planning.everyday import everyday_texts
from evaluation.planning.measuring import (
    Costs,
    Measured,
    costs_of,
    measured,
    reported,
    rows,
    spending,
)
from evaluation.planning.sample import Sample, encoded_sample


def main(options: PlanOptions) -> None:
    """Measure, show the table, and write m and what is certified of it into the collection."""
    texts = _given(options)
    with Collection.open(
        options.collection, batch_size=options.batch_size, device=options.device
    ) as collection:
        _check(collection, options)
        sample = _sample(collection, options)
        asked, learnt = _asked(collection, sample, texts, options), None
        if options.m == "auto":
            learning, asked = asked.halves(options.seed)
            learnt = learn(sample, learning, options.k, options.largest)
        found = measured(sample, asked, options.k, options.largest)
        _conclude(collection, sample, asked, found, learnt, options)


_HALF = {"fixed": "", "auto": ", the others being learnt from"}


def _given(options: PlanOptions) -> list[str] | None:
    """The queries of a file; whether there are enough is known before the work.

    Raises:
        UsageError: there are not.
    """
    texts = None if options.queries is None else queries_in(options.queries)
    number = options.drawn if texts is None else len(texts)
    if options.m == "auto":
        number -= number // 2  # those that are certified on
    needed = queries_needed(options.agreement, options.confidence, P_VALUES[options.test])
    if number < needed:
        target, confidence = map(telling.percent, (options.agreement, options.confidence))
        raise UsageError(
            f"{number:,} queries certify nothing{_HALF[options.m]}: an agreement of {target} with "
            f"{confidence} confidence needs {needed:,} even if all agree fully"
        )
    return texts


def _check(collection: Collection, options: PlanOptions) -> None:
    """Raise `UsageError` if there is nothing to plan, or it can't be written."""
    stages, images = len(collection.stages), len(collection)
    if stages != 2:
        raise UsageError(
            f"{options.collection} has {stages} stage{'s' if stages > 1 else ''}: a plan is made "
            "for two, a first stage and the full tower"
        )
    if images <= options.k:
        raise UsageError(
            f"--k {options.k}: {options.collection} holds {images} images, and a plan needs more "
            "than results"
        )
    if not os.access(options.collection, os.W_OK):
        raise UsageError(
            f"{options.collection} can't be written, and what the full tower encodes is kept in it"
        )


def _sample(collection: Collection, options: PlanOptions) -> Sample:
    number = min(options.images, len(collection))
    with tqdm(total=number, desc="full tower", unit="image", leave=None, disable=None) as bar:
        sample = encoded_sample(collection, number, options.seed, options.batch_size, bar.update)
    if len(sample.positions) <= 1 or sample.images <= options.k:
        raise UsageError(
            f"the full tower can read only {len(sample.positions):,} of {number:,} images of "
            f"{options.collection}: bring them back to where they were, or index what there is"
        )
    if sample.unreadable:
        console().print(f"{sample.unreadable:,} sampled images can't be read any more")
    return sample


def _asked(
    collection: Collection, sample: Sample, texts: list[str] | None, options: PlanOptions
) -> Asked:
    if texts is not None:
        return asked_texts(collection, texts, f"those in {printable(options.queries)}")
    if captions := captions_of(collection):
        some = drawn_texts(captions, options.drawn, options.seed)
        return asked_texts(collection, some, "captions of the collection")
    if options.m == "auto":
        some = everyday_texts(options.drawn, options.seed)
        return asked_texts(collection, some, "everyday texts")
    return asked_images(collection, sample, options.drawn, options.seed)


def _conclude(
    collection: Collection,
    sample: Sample,
    asked: Asked,
    found: Measured,
    learnt: Learnt | None,
    options: PlanOptions,
) -> None:
    """Choose m, show what it finds and costs, and write it into the collection.

    Raises:
        UsageError: no m is certified, or no choice of it for each query.
    """
    target, confidence, p_value = options.agreement, options.confidence, P_VALUES[options.test]
    k, largest = options.k, found.largest
    m = smallest_m(found.found, target, confidence, min(k, largest), largest, p_value)
    costs = costs_of(collection, sample)
    shown = rows(found, m, min(k, largest), confidence, p_value, costs)
    console().print(telling.table(shown, m, confidence))
    if m is None:
        raise UsageError(telling.refusal(target, confidence, found, shown[-1], asked))
    for line in telling.certificate(m, k, target, confidence, sample, asked, found):
        console().print(line, soft_wrap=True)
    plan = Plan(
        k=k,
        agreement=target,
        confidence=confidence,
        queries=len(asked),
        of=asked.of,
        encoded=len(sample.positions),
        images=len(sample.contents),
    )
    calibration = None
    if learnt is not None:
        calibration = _calibration(collection, plan, learnt, found, sample, asked, costs, options)
    console().print(f"by {options.test}, Learn then Test (arXiv 2110.01052)")
    if asked.own is not None:
        console().print("texts may do better or worse than images: name a file of --queries")
    if options.dry:
        return
    collection.adopt([m], plan, calibration)
    said = "" if calibration is None else "; to let each query have its own, pass --m auto"
    console().print(f"wrote {printable(options.collection)}: m = {m:,}{said}", soft_wrap=True)


def _calibration(
    collection: Collection,
    plan: Plan,
    learnt: Learnt,
    found: Measured,
    sample: Sample,
    asked: Asked,
    costs: Costs,
    options: PlanOptions,
) -> Calibration:
    """Certify the choice of m for each query, and show what it finds and costs.

    Raises:
        UsageError: it isn't certified.
    """
    p_value = P_VALUES[options.test]
    levels = Levels.of(sample, asked, plan.k, learnt)
    at = levels.found(found.found)
    level = smallest_m(at, plan.agreement, plan.confidence, 1, LEVELS, p_value)
    agreements = at.agreements(LEVELS if level is None else level)
    bound = lower_bound(agreements, plan.confidence, p_value)
    if level is None:
        raise UsageError(telling.refusal_of_auto(plan, learnt.depth, agreements, bound))
    handed_on = levels.handed_on(level)
    spendings = [spending(handed_on[:number], costs) for number in reported(len(asked))]
    needed = levels.needed[:, level - 1]
    for line in telling.adaptive(plan, needed, learnt.depth, agreements, bound, spendings):
        console().print(line, soft_wrap=True)
    return Calibration(
        stages=tuple(stage.name for stage in collection.stages),
        k=plan.k,
        depth=learnt.depth,
        membership=learnt.membership,
        certainty=learnt.certainty,
        share=level / LEVELS,
        agreement=plan.agreement,
        confidence=plan.confidence,
        queries=learnt.queries,
        certified_on=len(asked),
        of=asked.of,
        encoded=plan.encoded,
        images=plan.images,
    )
