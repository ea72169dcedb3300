"""The planner: how many candidates a collection's cascade needs, certified, and what they cost.

    python -m evaluation.plan photos.cascade --agreement 0.95 --confidence 0.95

Measured on queries and a sample of the collection's own images; nobody has to say what is relevant.
The m that it finds is written into the collection.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    Checkpoint,
    Count,
    Positional,
    ReadPath,
    Seed,
    Unread,
)
from commands.run import main_of
from commands.towers import TowersOptions

Inside = Annotated[float, Bounds(0, 1, low_open=True, high_open=True)]


@dataclass(frozen=True)
class PlanOptions(TowersOptions):
    """Choose m for a collection so that its agreement with the full tower is certified.

    Example: python -m evaluation.plan photos.cascade --agreement 0.95 --confidence 0.95
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    m: Literal["fixed", "auto"] = "fixed"
    """fixed: one m for all queries; auto: besides, learn how many candidates each query needs"""
    first: tuple[Checkpoint, ...] = ()
    """checkpoints of other first stages: say which of them and the collection's own is cheapest"""
    cutoff: Annotated[float, Bounds(0, 0.25, low_open=True)] | None = None
    """learn from which score on nothing matches, wrongly of at most this share of queries"""
    agreement: Inside = 0.95
    """share of the full tower's top k that the cascade has to return on average"""
    confidence: Inside = 0.95
    """how sure that has to be"""
    k: Count = 10
    """results that are compared"""
    queries: ReadPath | None = None
    """text file of queries as they will be asked, one a line (default: the collection's captions;
    where it has none its images, or everyday texts for --m auto)"""
    unmatched: ReadPath | None = None
    """text file of queries that nothing in the collection matches, for --cutoff (default: its
    captions, without the images that they belong to)"""
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

    unread: ClassVar = (
        Unread(("drawn",), lambda options: options.queries is not None, "--queries"),
        Unread(("unmatched",), lambda options: options.cutoff is None, "no --cutoff"),
    )

    def check(self) -> None:
        """Raise `UsageError` if m can't be as large as k."""
        super().check()
        if self.largest < self.k:
            raise UsageError(
                f"--largest {self.largest} is below --k {self.k}: fewer candidates than results"
            )
        if self.first and (self.m == "auto" or self.cutoff is not None):
            raise UsageError(
                "what --m auto and --cutoff learn belongs to one first stage: choose it by --first "
                "first, and plan again without"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.plan"), PlanOptions, "evaluation.plan")

from tqdm import tqdm

from cascade.calibrated.cutoff import Cutoff
from cascade.collecting.record import Plan
from cascade.collection import Collection
from cascade.stages.towers import Towers
from cascade.terminal.collections import first_stages
from cascade.terminal.query_files import queries_in
from commands.screen import announced, console, printable
from evaluation.planning import comparing, telling
from evaluation.planning.adapting import certified_calibration
from evaluation.planning.asking import Asked
from evaluation.planning.calibrating import learn
from evaluation.planning.certifying import smallest_m
from evaluation.planning.contending import Contender, cheapest, choices, own_ranking, ranking_of
from evaluation.planning.costs import costs_of
from evaluation.planning.cutting import Handing, Texts, cutoff_of, measured_cutoff
from evaluation.planning.measuring import Evidence, measured, rows
from evaluation.planning.opening import (
    asked_of,
    check_collection,
    check_queries,
    check_texts,
    sample_of,
    texts_to_tell,
)
from evaluation.planning.sample import Sample
from evaluation.planning.terms import PlanError, Terms


def main(options: PlanOptions) -> None:
    """Measure, show the table, and write m and what is certified of it into the collection."""
    try:
        _plan(options)
    except PlanError as error:
        raise UsageError(str(error)) from error


def _plan(options: PlanOptions) -> None:
    terms = Terms(options.k, options.agreement, options.confidence, options.test, options.largest)
    given, unmatched = _given(options.queries), _given(options.unmatched)
    number = options.drawn if given is None else len(given[0])
    check_queries(number, options.m == "auto", terms)
    if options.cutoff is not None:
        others = number if unmatched is None else len(unmatched[0])
        check_texts(number, others, options.cutoff, options.confidence)
    with Collection.open(
        options.collection,
        batch_size=options.batch_size,
        device=options.device,
        runtime=options.runtime,
    ) as collection:
        check_collection(collection, options.k)
        contenders = _contenders(collection, options)
        texts = None
        if options.cutoff is not None:
            texts = texts_to_tell(collection, given, unmatched, options.drawn, options.seed)
            counts = len(texts.matching), len(texts.unmatched)
            check_texts(*counts, options.cutoff, options.confidence)
        sample = _sample(collection, options)
        everyday = options.m == "auto"
        asked = asked_of(collection, sample, given, options.drawn, everyday, options.seed)
        if contenders:
            _compare(collection, sample, asked, contenders, terms, options)
        else:
            _choose(collection, sample, asked, texts, terms, options)


def _given(file: Path | None) -> tuple[list[str], str] | None:
    """The texts of a file, and what they are."""
    return None if file is None else (queries_in(file), f"those in {printable(file)}")


def _contenders(collection: Collection, options: PlanOptions) -> list[Contender]:
    if not options.first:
        return []
    towers = Towers(options.device, options.runtime, options.batch_size)
    with announced("loading checkpoints"):
        stages = first_stages(collection, options.first, towers)
    return [Contender(*each) for each in zip(options.first, stages, strict=True)]


def _sample(collection: Collection, options: PlanOptions) -> Sample:
    number = min(options.images, len(collection))
    with tqdm(total=number, desc="full tower", unit="image", leave=None, disable=None) as bar:
        sample = sample_of(
            collection, number, options.k, options.seed, options.batch_size, bar.update
        )
    if sample.unreadable:
        console().print(f"{sample.unreadable:,} sampled images can't be read any more")
    return sample


def _certified(evidence: Evidence, terms: Terms) -> tuple[int, Plan]:
    """The smallest m that is certified, and its plan; the table is shown.

    Raises:
        PlanError: no m is.
    """
    found, sample, asked = evidence.found, evidence.sample, evidence.asked
    smallest = min(terms.k, found.largest)
    m = smallest_m(
        found.found, terms.agreement, terms.confidence, smallest, found.largest, terms.p_value
    )
    shown = rows(found, m, smallest, terms.confidence, terms.p_value, evidence.costs)
    console().print(telling.table(shown, m, terms.confidence))
    for line in telling.timed(evidence.costs):
        console().print(line, soft_wrap=True)
    if m is None:
        raise PlanError(telling.refusal(terms.agreement, terms.confidence, found, shown[-1], asked))
    for line in telling.certificate(m, terms, sample, asked, found):
        console().print(line, soft_wrap=True)
    return m, telling.plan_of(terms, sample, asked)


def _choose(
    collection: Collection,
    sample: Sample,
    asked: Asked,
    texts: Texts | None,
    terms: Terms,
    options: PlanOptions,
) -> None:
    """Choose m, and what else is asked for, and write it into the collection.

    Raises:
        PlanError: one of them isn't certified: then nothing is written.
    """
    learnt = calibration = cutoff = None
    if options.m == "auto":
        learning, asked = asked.halves(options.seed)
        learnt = learn(sample, learning, terms.k, terms.largest)
    found = measured(sample, asked, terms.k, terms.largest)
    evidence = Evidence(sample, asked, found, costs_of(collection, sample))
    m, plan = _certified(evidence, terms)
    if learnt is not None:
        calibration, said = certified_calibration(collection, plan, learnt, evidence, terms)
        for line in said:
            console().print(line, soft_wrap=True)
    console().print(f"by {options.test}, Learn then Test (arXiv 2110.01052)")
    if asked.own is not None:
        console().print("texts may do better or worse than images: name a file of --queries")
    if texts is not None and options.cutoff is not None:
        cutoff = _cutoff(collection, texts, Handing(m, calibration), options.cutoff, options)
    if options.dry:
        return
    collection.adopt([m], plan, calibration, cutoff)
    said_too = "" if calibration is None else "; to let each query have its own, pass --m auto"
    console().print(f"wrote {printable(options.collection)}: m = {m:,}{said_too}", soft_wrap=True)


def _cutoff(
    collection: Collection, texts: Texts, handing: Handing, share: float, options: PlanOptions
) -> Cutoff:
    """The cutoff, if it is useful.

    Raises:
        PlanError: it isn't.
    """
    every = len(texts.matching) + len(texts.unmatched)
    with tqdm(total=every, desc="cutoff", unit="query", leave=None, disable=None) as bar:
        found = measured_cutoff(
            collection, texts, handing, share, options.confidence, options.seed, bar.update
        )
    if not found.useful(share):
        raise PlanError(telling.refusal_of_cutoff(found, share, options.confidence))
    cutoff = cutoff_of(found, collection, texts, handing, share, options.confidence)
    for line in telling.cutoff(cutoff, found):
        console().print(line, soft_wrap=True)
    return cutoff


def _compare(
    collection: Collection,
    sample: Sample,
    asked: Asked,
    contenders: list[Contender],
    terms: Terms,
    options: PlanOptions,
) -> None:
    """Say which first stage is the cheapest; m is written if it is certified for the own one.

    Raises:
        PlanError: none is certified.
    """
    found = measured(sample, asked, terms.k, terms.largest)
    ranked = [own_ranking(str(collection.record.stages[0]), found, sample)]
    number = len(contenders) * len(sample.positions)
    with tqdm(total=number, desc="first stages", unit="image", leave=None, disable=None) as bar:
        ranked += [
            ranking_of(each, collection, sample, asked, terms, options.batch_size, bar.update)
            for each in contenders
        ]
    costs = costs_of(collection, sample, [each.encoder for each in contenders])
    made = choices(ranked, costs, collection.record.precision, terms)
    best = cheapest(made)
    console().print(comparing.table(made, best, terms, len(asked)))
    for line in telling.timed(costs):
        console().print(line, soft_wrap=True)
    if best is None:
        raise PlanError(comparing.refusal(made, terms, len(asked)))
    for line in comparing.certificate(made, best, terms, sample, asked, options.collection):
        console().print(line, soft_wrap=True)
    own = made[0].m
    if options.dry or own is None:
        return
    collection.adopt([own], telling.plan_of(terms, sample, asked))
    console().print(f"wrote {printable(options.collection)}: m = {own:,}", soft_wrap=True)
