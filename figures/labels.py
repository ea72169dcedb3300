"""Labels beside points where there is room for them, and none where there isn't."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

# Where a label may stand, best first: (dx, dy) from the point in units of the gap.
_PLACES = [
    *((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)),
    *((0.0, 1.3), (0.0, -1.3), (1.3, 0.0), (-1.3, 0.0)),
    *((0.0, 2.0), (0.0, -2.0), (2.0, 0.0), (-2.0, 0.0)),
]
_GAP = 8.0  # points
_MARKER = 7.0  # half the width of a marker with its ring, points
_BAR = 1.0  # half the width of an error bar, points
_ALIGNMENT = {-1: "right", 0: "center", 1: "left"}
_VERTICAL = {-1: "top", 0: "center", 1: "bottom"}


@dataclass(frozen=True)
class Point:
    """A point with its error bars and what is to stand beside it, in data coordinates."""

    x: float
    y: float
    low: tuple[float, float]
    high: tuple[float, float]
    text: str


def place_labels(
    axes: Axes,
    points: Sequence[Point],
    lines: Sequence[Sequence[tuple[float, float]]],
    size: float,
) -> list[Annotation]:
    """Write each point's text beside it, where it covers nothing and no other point is nearer.

    The figure must have been laid out (`draw_without_rendering`) and its limits fixed.

    Args:
        axes: where the points are drawn.
        points: all points drawn, so that labels keep clear of them; those with a text get one.
        lines: all lines drawn, each by its corners in data coordinates.
        size: of the letters, in points.

    Returns:
        The labels written, in the order of the points.
    """
    taken = [box for point in points for box in _obstacles(axes, point)]
    taken += [box for corners in lines for box in _line_obstacles(axes, corners)]
    spots = axes.transData.transform([(point.x, point.y) for point in points])
    written = []
    for number, point in enumerate(points):
        for dx, dy in _PLACES if point.text else ():
            label = _annotate(axes, point, dx, dy, size)
            box = label.get_window_extent()
            free = _inside(box, axes.bbox) and not any(_overlap(box, other) for other in taken)
            if free and _nearest(box, spots) == number:
                taken.append(box)
                written.append(label)
                break
            label.remove()
    return written


def _annotate(axes: Axes, point: Point, dx: float, dy: float, size: float) -> Annotation:
    return axes.annotate(
        point.text,
        (point.x, point.y),
        (dx * _GAP, dy * _GAP),
        textcoords="offset points",
        fontsize=size,
        ha=_ALIGNMENT[(dx > 0) - (dx < 0)],
        va=_VERTICAL[(dy > 0) - (dy < 0)],
    )


def _obstacles(axes: Axes, point: Point) -> list[Bbox]:
    """The marker and the two error bars, in pixels."""
    pixel = axes.figure.dpi / 72
    x, y = axes.transData.transform((point.x, point.y))
    left, below = axes.transData.transform(point.low)
    right, above = axes.transData.transform(point.high)
    around, half = _MARKER * pixel, _BAR * pixel
    return [
        Bbox([[x - around, y - around], [x + around, y + around]]),
        Bbox([[left, y - half], [right, y + half]]),
        Bbox([[x - half, below], [x + half, above]]),
    ]


def _line_obstacles(axes: Axes, corners: Sequence[tuple[float, float]]) -> list[Bbox]:
    """Small boxes along a line, in pixels."""
    pixels = axes.transData.transform(corners)
    half = 2 * _BAR * axes.figure.dpi / 72
    boxes = []
    for start, end in pairwise(pixels):
        steps = max(2, math.ceil(math.dist(start, end) / half))
        for x, y in np.linspace(start, end, steps):
            boxes.append(Bbox([[x - half, y - half], [x + half, y + half]]))
    return boxes


def _nearest(box: Bbox, spots: npt.NDArray[np.float64]) -> int:
    """Which of the spots [n, 2] is nearest to a box."""
    outside = np.maximum(box.min - spots, spots - box.max).clip(min=0)
    return int(np.linalg.norm(outside, axis=1).argmin())


def _overlap(one: Bbox, other: Bbox) -> bool:
    beside = one.x1 <= other.x0 or other.x1 <= one.x0
    return not (beside or one.y1 <= other.y0 or other.y1 <= one.y0)


def _inside(box: Bbox, frame: Bbox) -> bool:
    left_or_right = box.x0 < frame.x0 or frame.x1 < box.x1
    return not (left_or_right or box.y0 < frame.y0 or frame.y1 < box.y1)
