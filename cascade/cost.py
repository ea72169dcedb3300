"""What a cascade costs and saves: pure functions of seconds per image, f and m.

Seconds are those of encoding one image; scoring embeddings and encoding the query are left out,
as in the paper on bi-encoder cascades (arXiv 2303.15595), because they are the same with and
without a cascade. Stages are ordered cheap to expensive.
"""

import itertools
import math
from collections.abc import Iterable, Sequence


def lifetime_speedup(
    seconds: Sequence[float], f: float | Sequence[float], full_tower: float | None = None
) -> float:
    """Cost of encoding a collection with the full tower / over a cascade's lifetime.

    t_last / (t_1 + Σ_{i≥2} f_i·t_i). The first stage encodes every image; a later one encodes
    the share f_i of the collection that ever reaches it.

    Args:
        seconds: seconds per image of each stage.
        f: lifetime return fraction in [0, 1], one for all later stages or one for each of them.
        full_tower: seconds per image of the full tower, by default t_last, those of the last
            stage. A last stage that resumes is cheaper than the full tower from the start.

    Returns:
        The factor by which the cascade is cheaper; below 1 it is dearer. By default 1 for a single
        stage.

    Raises:
        ValueError: seconds that aren't positive, an f outside [0, 1], or not one f for each later
            stage.
    """
    first, *later = checked_seconds(seconds)
    fractions = list(f) if isinstance(f, Iterable) else [f] * len(later)
    if len(fractions) != len(later):
        raise ValueError(
            f"f needs one value, or one for each of the {len(later)} later stages, "
            f"got {len(fractions)}"
        )
    for fraction in fractions:
        if not 0 <= fraction <= 1:
            raise ValueError(f"f is a share of the collection, in [0, 1], got {fraction}")
    cost = first + sum(share * t for share, t in zip(fractions, later, strict=True))
    return _of_full_tower(seconds, full_tower) / cost


def query_speedup(
    seconds: Sequence[float], m: Sequence[int], full_tower: float | None = None
) -> float:
    """Cost of the candidates of one cold query: two-stage baseline / cascade.

    A cold query brings up no image that a later stage has seen, so stage i + 1 encodes all m_i
    candidates: Σ m_i·t_{i+1}. The baseline is the cascade of the first and last stage with the
    same m_1, which encodes m_1 candidates with the full tower: m_1·t_last. A two-stage cascade
    is its own baseline and has speedup 1; stages in between make it larger where they pay off, and
    so does a stage that resumes.

    Args:
        seconds: seconds per image of each stage, at least two.
        m: candidates handed on, one fewer than stages, strictly decreasing.
        full_tower: seconds per image of the full tower, by default t_last, those of the last
            stage. The baseline encodes its candidates from the start; a last stage that resumes is
            cheaper.

    Raises:
        ValueError: a single stage, seconds that aren't positive, or an m that doesn't fit.
    """
    times = checked_seconds(seconds)
    if len(times) < 2:
        raise ValueError("a single stage hands no candidates on: it has no per-query speedup")
    handed_on = checked_m(m, len(times))
    cost = sum(number * t for number, t in zip(handed_on, times[1:], strict=True))
    return handed_on[0] * _of_full_tower(times, full_tower) / cost


def _of_full_tower(seconds: Sequence[float], given: float | None) -> float:
    """Seconds per image of the full tower: those given, or else the last stage's."""
    return seconds[-1] if given is None else checked_seconds([given])[0]


def return_fractions(encoded: Sequence[int]) -> tuple[float, ...]:
    """Measured f: the share of the collection that each later stage has encoded.

    Args:
        encoded: number of images that each stage has encoded so far; the first encodes them all.

    Returns:
        One fraction in [0, 1] for each later stage.

    Raises:
        ValueError: nothing was encoded, or a later stage encoded more than the first.
    """
    if not encoded or encoded[0] < 1:
        raise ValueError("f is measured on a collection: the first stage has encoded no image")
    for number in encoded[1:]:
        if not 0 <= number <= encoded[0]:
            raise ValueError(f"a later stage can encode 0 to {encoded[0]} images, got {number}")
    return tuple(number / encoded[0] for number in encoded[1:])


def checked_seconds(seconds: Sequence[float]) -> list[float]:
    """The seconds per image as a list, if there is at least one and all are positive and finite.

    Raises:
        ValueError: otherwise.
    """
    times = [float(t) for t in seconds]
    if not times:
        raise ValueError("seconds per image are needed for at least one stage")
    for t in times:
        if not (math.isfinite(t) and t > 0):
            raise ValueError(f"seconds per image must be positive and finite, got {t}")
    return times


def checked_m(m: Sequence[int], stages: int) -> tuple[int, ...]:
    """The m's of a cascade as a tuple, if they fit: m_1 > m_2 > … ≥ 1, one fewer than stages.

    Raises:
        ValueError: wrong number, not positive whole numbers, or not strictly decreasing.
    """
    m = tuple(m)
    if len(m) != stages - 1:
        raise ValueError(
            f"{stages} stages hand candidates on {stages - 1} times, but m = {list(m)} has "
            f"{len(m)} numbers: give one number for each stage but the last"
        )
    for number in m:
        if isinstance(number, bool) or int(number) != number or number < 1:
            raise ValueError(f"m must be positive whole numbers, got {list(m)}")
    if any(after >= before for before, after in itertools.pairwise(m)):
        raise ValueError(f"m must decrease from stage to stage, got {list(m)}")
    return tuple(int(number) for number in m)
