"""The Pareto front: what nothing else is better than."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points are on the Pareto front: no other is at least as good in both and not equal.

    Args:
        points: two values each, such as (speedup, recall); larger is better in both.

    Returns:
        One flag a point, in their order. Equal points are on it together.
    """
    return [
        not any(
            other[0] >= point[0] and other[1] >= point[1] and tuple(other) != tuple(point)
            for other in points
        )
        for point in points
    ]
