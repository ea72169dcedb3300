"""What a plan over several first stages says: what each finds and costs, and which to take."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from commands.screen import printable
from evaluation.planning.asking import Asked
from evaluation.planning.certifying import confidence_of_each
from evaluation.planning.contending import Choice
from evaluation.planning.measuring import reported
from evaluation.planning.sample import Sample
from evaluation.planning.telling import percent, rounded_down
from evaluation.planning.terms import Terms


def table(choices: Sequence[Choice], best: Choice | None, terms: Terms, queries: int) -> Table:
    """A row for each first stage at the m that is certified for it; the cheapest is marked."""
    after = " / ".join(f"{number:,}" for number in reported(queries))
    sure = percent(round(confidence_of_each(terms.confidence, len(choices)), 6))
    titles = ["first stage", "m", "agreement", f"at least,\nwith {sure}"]
    beside = "\n(encoder)" if all(choice.encoder is not None for choice in choices) else ""
    titles += [f"ms per\nimage{beside}", f"f after\n{after} queries", "ms for\nf of the last"]
    titles += ["ms per image\nin all", f"lifetime\nspeedup{beside}", "bytes per image\non disk"]
    shown = Table(*titles)
    for column in shown.columns[1:]:
        column.justify = "right"
    shown.columns[0].overflow = "fold"
    for choice in choices:
        last = choice.shares[-1] * choice.last
        shown.add_row(
            f"{'→ ' if choice is best else ''}{printable(choice.name)}{_running(choice)}",
            "none" if choice.m is None else f"{choice.m:,}",
            f"{choice.agreement:.1%}",
            rounded_down(choice.bound),
            _beside(1000 * choice.seconds, choice.encoder and 1000 * choice.encoder),
            " / ".join(f"{share:.1%}" for share in choice.shares),
            f"{1000 * last:.2f}",
            f"{1000 * choice.lifetime:.2f}",
            _beside(choice.speedup, choice.encoder_speedup),
            f"{choice.disk:,.0f}",
        )
    return shown


def _beside(whole: float, encoder: float | None) -> str:
    """A number from the bytes of files on, and below it that of encoders alone."""
    return f"{whole:.2f}" if encoder is None else f"{whole:.2f}\n({encoder:.2f})"


def _running(choice: Choice) -> str:
    return "" if choice.running is None else f"\n{choice.running}"


def certificate(
    choices: Sequence[Choice],
    best: Choice,
    terms: Terms,
    sample: Sample,
    asked: Asked,
    collection: Path,
) -> list[str]:
    """What is certified, which first stage is the cheapest, and how to have it."""
    over = f"on average over queries drawn as these {len(asked):,} were ({asked.of})"
    said = [
        f"certified with {percent(terms.confidence)} confidence, of all these first stages at "
        f"once: each returns at least {percent(terms.agreement)} of the full tower's top "
        f"{terms.k} with its m, {over}{_among(sample)}",
        f"by {terms.test}, Learn then Test (arXiv 2110.01052), the error shared by "
        f"{len(choices)} first stages",
    ]
    if best is choices[0]:
        return [*said, f"the cheapest is the one that {printable(collection)} has"]
    images, whole = len(sample.contents), 1000 * best.seconds
    said.append(
        f"the cheapest is {printable(best.name)}: to encode all {images:,} images with it, and "
        f"keep what the full tower has encoded, takes {images * whole / 1000:,.0f} s by\n"
        f"python -m cascade.migrate {printable(collection)} --first {printable(best.name)} "
        f"--m {best.m}"
    )
    own = choices[0]
    if own.m is not None:
        saved = (own.shares[-1] - best.shares[-1]) * best.last
        if saved < best.seconds:
            said.append(
                "that pays for images that come later: those that are there have been encoded by "
                f"the first stage that there is, and it saves {1000 * max(0.0, saved):.2f} ms of "
                f"the full tower for each of them, after {len(asked):,} queries"
            )
    if not sample.complete:
        said.append(
            "its m is that of the sample, scaled to all images: plan again after that, with "
            "another --seed, to certify it among all"
        )
    return said


def refusal(choices: Sequence[Choice], terms: Terms, queries: int) -> str:
    """Why no first stage is certified, and what would help."""
    best = max(choices, key=lambda choice: choice.agreement)
    return (
        f"no first stage is certified for an agreement of {percent(terms.agreement)}: the best, "
        f"{printable(best.name)}, reached {best.agreement:.1%} on {queries:,} queries with as many "
        "candidates as --largest allows. More queries would help, a larger --largest, or less "
        "--agreement"
    )


def _among(sample: Sample) -> str:
    """What the certificate is about."""
    if sample.complete:
        return f", in this collection as it is now ({sample.images:,} images)"
    return (
        f"; the full tower's top is that among {len(sample.positions):,} sampled images of "
        f"{sample.images:,}, and these alone are ranked by first stages but the collection's own"
    )
