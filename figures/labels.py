"""Labels beside points where there is room for them, and none where there isn't."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from figures.style import FAINT

# Where a label may stand, best first: (dx, dy) from the point in units of the gap.
_PLACES = [
    *((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)),
    *((0.0, 1.3), (0.0, -1.3), (1.3, 0.0), (-1.3, 0.0)),
    *((0.0, 2.0), (0.0, -2.0), (2.0, 0.0), (-2.0, 0.0)),
]
# Further off, with a line to the point: nearer ones first.
_FAR_PLACES = [
    (distance * math.cos(angle), distance * math.sin(angle))
    for distance in (2.0, 3.0, 4.0, 5.5, 7.0, 9.0, 11.0, 13.0, 16.0, 19.0)
    for angle in (math.radians(15 * step) for step in range(24))
]
_LEADER: dict[str, Any] = {
    "arrowstyle": "-",
    "linewidth": 0.7,
    "color": FAINT,
    "shrinkA": 1,
    "shrinkB": 0,
}
_GAP = 8.0  # points
_MARKER = 7.0  # half the width of a marker with its ring, points
_BAR = 1.0  # half the width of an error bar, points
Spot = npt.NDArray[np.float64]
"""A place in pixels, [2]."""
_ALIGNMENT = {-1: "right", 0: "center", 1: "left"}
_VERTICAL = {-1: "top", 0: "center", 1: "bottom"}


@dataclass(frozen=True)
class Point:
    """A point with its error bars and what is to stand beside it, in data coordinates.

    `marker` is half the width of its marker, in points.
    """

    x: float
    y: float
    low: tuple[float, float]
    high: tuple[float, float]
    text: str
    marker: float = _MARKER


def place_labels(
    axes: Axes,
    points: Sequence[Point],
    lines: Sequence[Sequence[tuple[float, float]]],
    size: float,
    leaders: bool = False,
) -> list[Annotation]:
    """Write each point's text beside it, where it covers nothing and no other point is nearer.

    The figure must have been laid out (`fix_layout`) and its limits fixed.

    Args:
        axes: where the points are drawn.
        points: all points drawn, so that labels keep clear of them; those with a text get one.
        lines: all lines drawn, each by its corners in data coordinates.
        size: of the letters, in points.
        leaders: where there is no room beside a point, write further off, with a line to it.

    Returns:
        The labels written, in the order of the points.
    """
    taken = [box for point in points for box in _obstacles(axes, point)]
    taken += [box for corners in lines for box in _line_obstacles(axes, corners)]
    spots = axes.transData.transform([(point.x, point.y) for point in points])
    written: list[Annotation] = []
    for number, point in enumerate(points):
        beside = _GAP + point.marker - _MARKER
        for dx, dy in _PLACES if point.text else ():
            label = _annotate(axes, point, (dx * beside, dy * beside), size)
            box = label.get_window_extent()
            if _free(box, axes, taken) and _nearest(box, spots) == number:
                taken.append(box)
                written.append(label)
                break
            label.remove()
        else:
            if leaders and point.text and (led := _led(axes, point, taken, written, size)):
                written.append(led)
    return written


def _led(
    axes: Axes, point: Point, taken: list[Bbox], written: Sequence[Annotation], size: float
) -> Annotation | None:
    """A label further off, with a line to its point; None if there is no room.

    The line crosses no label, and nothing else that is apart from the point if that can be. What
    both cover is added to `taken`.
    """
    spot = axes.transData.transform((point.x, point.y))
    own = _obstacles(axes, point)[0]
    apart = [box for box in taken if not _overlap(box, own)]
    labels = [_box(label) for label in written]
    for crossed in (apart, labels):
        for dx, dy in _FAR_PLACES:
            offset = (dx * _GAP, dy * _GAP)
            label = _annotate(axes, point, offset, size)
            box = label.get_window_extent()
            label.remove()
            start: Spot = np.clip(spot, box.min, box.max)
            line = [part for part in _along(start, spot, axes) if not _overlap(part, own)]
            if _free(box, axes, taken) and not any(
                _overlap(part, other) for part in line for other in crossed
            ):
                taken += [box, *line]
                leader = _LEADER | {
                    "relpos": tuple((start - np.asarray(box.min)) / (box.width, box.height))
                }
                return _annotate(axes, point, offset, size, leader)
    return None


def _box(label: Annotation) -> Bbox:
    """Where the letters of a label stand, in pixels, without the line to its point."""
    label.get_window_extent()  # settles the place
    return Text.get_window_extent(label)


def _annotate(
    axes: Axes,
    point: Point,
    offset: tuple[float, float],
    size: float,
    leader: dict[str, Any] | None = None,
) -> Annotation:
    dx, dy = offset
    return axes.annotate(
        point.text,
        (point.x, point.y),
        offset,
        textcoords="offset points",
        fontsize=size,
        ha=_ALIGNMENT[(dx > 0) - (dx < 0)],
        va=_VERTICAL[(dy > 0) - (dy < 0)],
        arrowprops=leader,
    )


def _free(box: Bbox, axes: Axes, taken: Sequence[Bbox]) -> bool:
    return _inside(box, axes.bbox) and not any(_overlap(box, other) for other in taken)


def _obstacles(axes: Axes, point: Point) -> list[Bbox]:
    """The marker and the two error bars, in pixels."""
    pixel = axes.figure.dpi / 72
    x, y = axes.transData.transform((point.x, point.y))
    left, below = axes.transData.transform(point.low)
    right, above = axes.transData.transform(point.high)
    around, half = point.marker * pixel, _BAR * pixel
    return [
        Bbox([[x - around, y - around], [x + around, y + around]]),
        Bbox([[left, y - half], [right, y + half]]),
        Bbox([[x - half, below], [x + half, above]]),
    ]


def _line_obstacles(axes: Axes, corners: Sequence[tuple[float, float]]) -> list[Bbox]:
    """Small boxes along a line, in pixels."""
    pixels = axes.transData.transform(corners)
    return [box for start, end in pairwise(pixels) for box in _along(start, end, axes)]


def _along(start: Spot, end: Spot, axes: Axes) -> list[Bbox]:
    """Small boxes from one place to another, in pixels."""
    half = 2 * _BAR * axes.figure.dpi / 72
    steps = max(2, math.ceil(math.dist(start, end) / half))
    return [
        Bbox([[x - half, y - half], [x + half, y + half]])
        for x, y in np.linspace(start, end, steps)
    ]


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
