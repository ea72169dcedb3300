"""What a plan says: what candidates find and cost, and word by word what is certified."""

import math
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from cascade.calibrated.cutoff import Cutoff
from cascade.calibrated.margins import Counts
from cascade.collecting.record import Plan
from evaluation.planning.asking import Asked
from evaluation.planning.certifying import Values
from evaluation.planning.costs import Costs
from evaluation.planning.cutting import TIMES, Told
from evaluation.planning.measuring import Measured, Row, Spending
from evaluation.planning.sample import Sample
from evaluation.planning.terms import Terms


def table(rows: Sequence[Row], chosen: int | None, confidence: float) -> Table:
    """The rows; the chosen m is marked."""
    timed = rows[0].cold is not None
    after = " / ".join(f"{spending.queries:,}" for spending in rows[0].spendings)
    titles = ["m", "agreement", f"at least, with {percent(confidence)}\n(each m alone)"]
    titles += [f"f after\n{after} queries", f"MB more after\n{after} queries"]
    if timed:
        beside = "\n(encoder only)" if rows[0].spendings[0].encoder_speedup is not None else ""
        titles += [f"lifetime speedup\nafter {after} queries{beside}", "seconds of\na cold query"]
    shown = Table(*titles)
    for column in shown.columns:
        column.justify = "right"
    for row in rows:
        cells = [f"{'→ ' if row.m == chosen else ''}{row.m:,}", f"{row.agreement:.1%}"]
        cells.append(rounded_down(row.bound))
        cells.append(" / ".join(f"{spending.f:.1%}" for spending in row.spendings))
        cells.append(" / ".join(f"{spending.nbytes / 1e6:,.2f}" for spending in row.spendings))
        if row.cold is not None:
            whole = _joined([spending.speedup for spending in row.spendings])
            encoder = _joined([spending.encoder_speedup for spending in row.spendings])
            cells += [f"{whole}\n({encoder})" if encoder else whole, f"{row.cold:.2f}"]
        shown.add_row(*cells)
    return shown


def _joined(speedups: Sequence[float | None]) -> str:
    return " / ".join(f"{speedup:.2f}" for speedup in speedups if speedup is not None)


def timed(costs: Costs) -> list[str]:
    """What a collection's own stages take, and how they run."""
    if costs.seconds is None:
        return []
    encoders: Sequence[float | None] = costs.encoders or [None] * len(costs.seconds)
    said = []
    for name, seconds, encoder, running in zip(
        ("first stage", "full tower"), costs.seconds, encoders, costs.running, strict=False
    ):
        alone = "" if encoder is None else f" ({1000 * encoder:.2f} its encoder)"
        how = "" if running is None else f"{running}: "
        said.append(f"{name} {how}{1000 * seconds:.2f} ms an image{alone}")
    return [f"from the bytes of files: {'; '.join(said)}"]


def plan_of(terms: Terms, sample: Sample, asked: Asked) -> Plan:
    """What is written into the record of an m that is certified."""
    return Plan(
        k=terms.k,
        agreement=terms.agreement,
        confidence=terms.confidence,
        queries=len(asked),
        of=asked.of,
        encoded=len(sample.positions),
        images=len(sample.contents),
    )


def certificate(
    m: int, terms: Terms, sample: Sample, asked: Asked, measured: Measured
) -> list[str]:
    """What is certified, and what is not."""
    k, agreement, confidence = terms.k, terms.agreement, terms.confidence
    over = f"on average over queries drawn as these {len(asked):,} were ({asked.of})"
    sure = f"certified with {percent(confidence)} confidence"
    if sample.complete:
        return [
            f"{sure}: m = {m:,} returns at least {percent(agreement)} of the full tower's top {k}, "
            f"{over}, in this collection as it is now ({sample.images:,} images)"
        ]
    best = "best image" if measured.wanted == 1 else f"{measured.wanted} best images"
    return [
        f"{sure}: the first {m:,} candidates of all {sample.images:,} images hold at least "
        f"{percent(agreement)} of the full tower's {best} among {len(sample.positions):,} sampled "
        f"ones, {over}",
        "not certified for the whole collection, which the full tower hasn't seen: on average over "
        f"samples, no more of its top {k} is missed if better results are missed no more often "
        f"than worse ones, and at most {measured.factor:.1f} times as much in any case. With "
        f"--images {sample.images} it is seen, and m is certified for it",
    ]


def refusal(
    agreement: float, confidence: float, measured: Measured, last: Row, asked: Asked
) -> str:
    """Why no m is certified, and what would help."""
    found = (
        f"no m up to {measured.largest:,} is certified for an agreement of {percent(agreement)}: "
        f"{last.agreement:.1%} was observed with {last.m:,} on {len(asked):,} queries, at least "
        f"{rounded_down(last.bound)} with {percent(confidence)} confidence. "
    )
    if last.agreement > agreement:
        return found + "More queries would help, or less --confidence"
    return found + "A larger --largest would help, a better first stage, or less --agreement"


def adaptive(
    plan: Plan,
    needed: Counts,
    depth: int,
    agreements: Values,
    bound: float,
    spendings: Sequence[Spending],
) -> list[str]:
    """What each query's own m finds and costs, and what is certified of it."""
    low, middle, high = np.quantile(needed, (0.05, 0.5, 0.95))
    after = [f"{spending.f:.1%} after {spending.queries:,}" for spending in spendings]
    speedups = [
        f"{_beside(spending.speedup, spending.encoder_speedup)} after {spending.queries:,}"
        for spending in spendings
        if spending.speedup is not None
    ]
    lifetime = f"; lifetime speedup {', '.join(speedups)}" if speedups else ""
    return [
        f'm = "auto": {needed.mean():,.1f} candidates on average ({low:,.0f} to {high:,.0f} for '
        f"nine queries in ten, half have up to {middle:,.0f}, no query more than {depth:,}): "
        f"agreement {agreements.mean():.1%}, at least {rounded_down(bound)} with "
        f"{percent(plan.confidence)} confidence; f {', '.join(after)} queries{lifetime}",
        f'certified by itself with {percent(plan.confidence)} confidence: m = "auto" returns at '
        f"least {percent(plan.agreement)}, of the same and on average over the same queries; it "
        "was learnt from others",
    ]


def _beside(whole: float, encoder: float | None) -> str:
    return f"{whole:.2f}" if encoder is None else f"{whole:.2f} ({encoder:.2f} encoder only)"


def refusal_of_auto(plan: Plan, depth: int, agreements: Values, bound: float) -> str:
    """Why no choice of m for each query is certified."""
    return (
        f'm = "auto" isn\'t certified for an agreement of {percent(plan.agreement)}: with up to '
        f"{depth:,} candidates {agreements.mean():.1%} was observed on {plan.queries:,} queries, "
        f"at least {rounded_down(bound)} with {percent(plan.confidence)} confidence. More queries "
        "would help, or a larger --largest; a fixed m is certified: leave out --m auto"
    )


def cutoff(made: Cutoff, found: Told) -> list[str]:
    """What a cutoff does, and how sure that is."""
    sure = f"certified with {percent(made.confidence)} confidence"
    return [
        f"{sure}: at most {percent(made.rejects)} of queries that something matches are said to "
        f"match nothing, of queries drawn as these were ({made.of}); {found.rejected:.1%} of "
        f"{made.tested:,} others were",
        f"{sure}: of queries that nothing matches ({made.against}) at least "
        f"{rounded_down(made.caught_at_least)} are said to; {made.caught:.1%} of {made.tested:,} "
        f"were. The score: {_SCORES[made.score]}",
    ]


_SCORES = {
    "best": "the best hit's",
    "standardised": "the best hit's, in standard deviations of the query's scores",
}


def refusal_of_cutoff(found: Told, share: float, confidence: float) -> str:
    """Why no score says whether anything matches."""
    return (
        "with this tower no score tells well enough whether anything matches: a cutoff would catch "
        f"{found.caught:.1%} of the queries that nothing matches (at least "
        f"{rounded_down(found.caught_at_least)} with {percent(confidence)} confidence) and reject "
        f"{found.rejected:.1%} of those that something matches; it is offered where it surely "
        f"catches {TIMES} times the {percent(share)} that it may reject. Nothing is written: "
        "leave out --cutoff"
    )


def percent(share: float) -> str:
    """A share as it was given."""
    return f"{100 * share:.10g}%"


def rounded_down(share: float) -> str:
    """A share that is reached at least."""
    return f"{math.floor(1000 * share) / 10:.1f}%"
