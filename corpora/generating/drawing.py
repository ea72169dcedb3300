"""Draws a generated scene: textured things with outline and soft shadow, anti-aliased.

Stands between the layout of a scene and the scenes corpus. Everything is drawn several times
larger than asked and then averaged down.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from corpora.generating.backgrounds import Colour, paint
from corpora.generating.layout import Scene, Thing

OVERSAMPLING = 2
PAINT = {
    "red": (222, 36, 36),
    "orange": (255, 132, 16),
    "yellow": (255, 221, 35),
    "green": (32, 152, 58),
    "turquoise": (38, 205, 205),
    "blue": (32, 74, 214),
    "purple": (130, 46, 176),
    "pink": (255, 120, 190),
    "white": (250, 250, 250),
    "black": (34, 34, 38),
}
Point = tuple[float, float]


def render(scene: Scene, size: int = 128) -> Image.Image:
    """The scene as an RGB image of `size` × `size` pixels."""
    side = size * OVERSAMPLING
    canvas = paint(scene.background, side, scene.dice("background"))
    masks = [_mask(thing, side) for thing in scene.things]
    _cast_shadows(canvas, scene.things, masks)
    for thing, mask in zip(scene.things, masks, strict=True):
        _place(canvas, thing, mask)
    return canvas.reduce(OVERSAMPLING)


def _corner(thing: Thing, mask: Image.Image, side: int) -> tuple[int, int]:
    return round(thing.x * side) - mask.width // 2, round(thing.y * side) - mask.height // 2


def _mask(thing: Thing, side: int) -> Image.Image:
    """Where the thing is, as a square greyscale tile around its centre."""
    radius = thing.radius * side
    middle = math.ceil(radius * 1.1) + 2
    tile = Image.new("L", (2 * middle, 2 * middle))
    draw = ImageDraw.Draw(tile)
    for outline, fill in _outlines(thing.shape):
        turned = _turned(outline, thing.turn)
        draw.polygon([(middle + radius * x, middle + radius * y) for x, y in turned], fill=fill)
    return tile


def _turned(points: tuple[Point, ...], degrees: float) -> list[Point]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


@functools.cache
def _outlines(shape: str) -> tuple[tuple[tuple[Point, ...], int], ...]:
    """Polygons of a shape in units of its radius, y down, each with 255 (solid) or 0 (hole)."""
    match shape:
        case "circle":
            return ((_arc(0.95), 255),)
        case "ring":
            return (_arc(1.0), 255), (_arc(0.5), 0)
        case "moon":
            return (_arc(1.0), 255), (_arc(0.82, 0.45, -0.12), 0)
        case "square":
            return ((((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)), 255),)
        case "triangle":
            return ((((0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)), 255),)
        case "star":
            return ((_star(), 255),)
        case "cross":
            return ((_cross(), 255),)
        case "heart":
            return ((_heart(), 255),)
    raise ValueError(f"no shape {shape!r}")


def _arc(radius: float, x: float = 0.0, y: float = 0.0) -> tuple[Point, ...]:
    angles = [2 * math.pi * i / 48 for i in range(48)]
    return tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles)


def _star() -> tuple[Point, ...]:
    radii = [1.08, 0.46] * 5
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return tuple((r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True))


def _cross() -> tuple[Point, ...]:
    a, b = 0.34, 1.0
    quarter = [(a, -b), (a, -a), (b, -a)]
    return tuple(point for turn in range(4) for point in _turned(tuple(quarter), 90 * turn))


def _heart() -> tuple[Point, ...]:
    points = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        x = math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16
        points.append((x, y - 0.08))
    return tuple(points)


def _cast_shadows(canvas: Image.Image, things: tuple[Thing, ...], masks: list[Image.Image]) -> None:
    """Darkens the background below and to the right of every thing, softly."""
    side, scale = canvas.width, 4  # a blurred shadow needs no resolution
    shadow = Image.new("L", (side // scale, side // scale))
    for thing, mask in zip(things, masks, strict=True):
        x, y = _corner(thing, mask, side)
        small = mask.reduce(scale)
        offset = 0.018 * side
        shadow.paste(150, (round((x + offset) / scale), round((y + offset) / scale)), small)
    shadow = shadow.filter(ImageFilter.GaussianBlur(0.012 * side / scale))
    canvas.paste((12, 12, 30), (0, 0), shadow.resize(canvas.size, Image.Resampling.BILINEAR))


def _place(canvas: Image.Image, thing: Thing, mask: Image.Image) -> None:
    """Pastes the thing: outline first, then its textured inside."""
    side = canvas.width
    corner = _corner(thing, mask, side)
    colour = PAINT[thing.colour]
    rim = (
        _mixed(colour, (255, 255, 255), 0.35)
        if thing.colour == "black"
        else _mixed(colour, (0, 0, 0), 0.55)
    )
    canvas.paste(rim, corner, mask)
    width = 2 * max(1, round(0.008 * side)) + 1
    canvas.paste(
        _filled(thing, mask.width, side), corner, mask.filter(ImageFilter.MinFilter(width))
    )


def _filled(thing: Thing, width: int, side: int) -> Image.Image:
    """A tile in the thing's colour, shaded from top to bottom, with its texture drawn on it."""
    colour = PAINT[thing.colour]
    ends = [_mixed(colour, (255, 255, 255), 0.12), _mixed(colour, (0, 0, 0), 0.12)]
    tile = Image.fromarray(np.array(ends, np.uint8)[:, None]).resize(
        (width, width), Image.Resampling.BILINEAR
    )
    ink = _ink(thing.colour)
    draw = ImageDraw.Draw(tile)
    radius, middle = thing.radius * side, width / 2
    pitch = max(0.072 * side, radius * 0.6)  # coarse enough to be seen at the final size
    steps = range(-3, 4)
    if thing.texture == "striped":
        for i in steps:
            y = middle + i * pitch
            draw.rectangle((0, y - 0.22 * pitch, width, y + 0.22 * pitch), fill=ink)
    elif thing.texture == "dotted":
        for i in steps:
            for j in steps:
                x, y, r = (
                    middle + (i + 0.5 * (j % 2)) * pitch,
                    middle + j * 0.87 * pitch,
                    0.26 * pitch,
                )
                draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    elif thing.texture == "checked":
        half = 0.58 * pitch
        for i in range(-5, 6):
            for j in range(-5, 6):
                if (i + j) % 2:
                    x, y = middle + i * half, middle + j * half
                    draw.rectangle((x, y, x + half - 1, y + half - 1), fill=ink)
    return tile


def _ink(colour: str) -> Colour:
    """What a texture is drawn with: a tint or shade that leaves the colour's name as it is."""
    paint = PAINT[colour]
    match colour:
        case "black":
            return (120, 120, 126)
        case "white":
            return (168, 168, 176)
        case "yellow" | "turquoise" | "pink" | "orange":
            return _mixed(paint, (0, 0, 0), 0.38)
    return _mixed(paint, (255, 255, 255), 0.55)


def _mixed(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue
