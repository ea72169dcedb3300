"""Paints the backgrounds of generated scenes.

Each painter takes the side of a square canvas in pixels and a random stream, and returns an RGB
image; what varies (clouds, bricks, waves) varies with the stream, never with the side.
"""

import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Painter = Callable[[int, random.Random], Image.Image]


def paint(background: str, side: int, dice: random.Random) -> Image.Image:
    """The named background on a canvas of `side` × `side` pixels."""
    return PAINTERS[background](side, dice)


def _gradient(side: int, *colours: Colour) -> Image.Image:
    """From the first colour at the top to the last at the bottom."""
    strip = Image.fromarray(np.array(colours, np.uint8)[:, None])
    return strip.resize((side, side), Image.Resampling.BILINEAR)


def _near(colour: Colour, dice: random.Random, spread: int) -> Colour:
    shift = dice.randint(-spread, spread)
    red, green, blue = (min(255, max(0, c + shift)) for c in colour)
    return red, green, blue


def _clear_sky(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (96, 170, 240), (150, 204, 250), (205, 232, 252))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y, r = dice.random(), dice.random(), dice.uniform(0.05, 0.08)
        for dx, dy, scale in ((-1.3, 0.3, 0.7), (0, 0, 1), (1.2, 0.25, 0.8), (2.2, 0.5, 0.5)):
            cx, cy, cr = x + dx * r, y + dy * r, r * scale
            box = (cx - cr, cy - cr * 0.7, cx + cr, cy + cr * 0.7)
            draw.ellipse(tuple(v * side for v in box), fill=(240, 246, 252))
    return image


def _sunset(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (92, 52, 128), (196, 84, 120), (250, 148, 90), (255, 206, 120))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y, w = dice.random(), dice.uniform(0.1, 0.9), dice.uniform(0.1, 0.25)
        box = (x - w, y - 0.012, x + w, y + 0.012)
        draw.ellipse(tuple(v * side for v in box), fill=(232, 122, 118))
    return image


def _starry_night(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (10, 12, 40), (22, 26, 70), (44, 40, 96))
    draw = ImageDraw.Draw(image)
    for _ in range(45):
        x, y, r = dice.random() * side, dice.random() * side, dice.uniform(0.003, 0.008) * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(236, 232, 200))
    return image


def _ripples(
    image: Image.Image, dice: random.Random, rows: int, height: float, fill: Colour, width: float
) -> None:
    """Wavy lines from left to right."""
    draw, side = ImageDraw.Draw(image), image.width
    for row in range(rows):
        phase, y = dice.uniform(0, 2 * math.pi), (row + 0.5) / rows
        xs = [i / 24 for i in range(25)]
        points = [(x * side, (y + height * math.sin(14 * x + phase)) * side) for x in xs]
        draw.line(points, fill=fill, width=max(1, round(width * side)))


def _sand(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (240, 216, 156), (224, 190, 122))
    _ripples(image, dice, 10, 0.012, (206, 170, 104), 0.008)
    return image


def _meadow(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (128, 190, 72), (88, 156, 50))
    draw = ImageDraw.Draw(image)
    width = max(1, round(0.009 * side))
    for _ in range(90):
        x, y, lean = dice.random(), dice.random(), dice.uniform(-0.02, 0.02)
        fill = dice.choice([(70, 134, 40), (160, 210, 96)])
        draw.line([(x * side, y * side), ((x + lean) * side, (y - 0.05) * side)], fill, width)
    return image


def _sea(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (40, 150, 176), (18, 108, 150), (10, 78, 122))
    _ripples(image, dice, 9, 0.02, (140, 210, 220), 0.01)
    return image


def _snow(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (236, 242, 250), (250, 252, 255), (222, 232, 246))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = dice.random() * side, dice.random() * side, dice.uniform(0.006, 0.014) * side
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(198, 214, 236))
    return image


def _brick_wall(side: int, dice: random.Random) -> Image.Image:
    image = Image.new("RGB", (side, side), (206, 192, 180))
    draw = ImageDraw.Draw(image)
    height, width, joint = side / 10, side / 5, 0.008 * side
    for row in range(10):
        for column in range(-1, 6):
            x, y = (column + 0.5 * (row % 2)) * width, row * height
            fill = _near((160, 82, 66), dice, 14)
            draw.rectangle((x + joint, y + joint, x + width - joint, y + height - joint), fill)
    return image


def _wooden_planks(side: int, dice: random.Random) -> Image.Image:
    image = Image.new("RGB", (side, side), (84, 54, 30))
    draw = ImageDraw.Draw(image)
    width, joint = side / 6, 0.006 * side
    for column in range(6):
        x = column * width
        draw.rectangle((x + joint, 0, x + width - joint, side), _near((150, 102, 60), dice, 12))
        for _ in range(3):
            grain = x + width * dice.uniform(0.15, 0.85)
            top = side * dice.uniform(-0.3, 0.8)
            line = [(grain, top), (grain, top + side * dice.uniform(0.2, 0.6))]
            draw.line(line, (122, 80, 46), max(1, round(0.006 * side)))
    return image


def _stone_pavement(side: int, dice: random.Random) -> Image.Image:
    image = Image.new("RGB", (side, side), (104, 106, 112))
    draw = ImageDraw.Draw(image)
    width, joint = side / 5, 0.009 * side
    for row in range(5):
        for column in range(5):
            x, y = column * width, row * width
            box = (x + joint, y + joint, x + width - joint, y + width - joint)
            draw.rounded_rectangle(box, 0.02 * side, _near((160, 162, 168), dice, 16))
    return image


def _blackboard(side: int, dice: random.Random) -> Image.Image:
    image = _gradient(side, (44, 74, 62), (36, 60, 52))
    draw = ImageDraw.Draw(image)
    for _ in range(10):
        x, y, length = dice.random() * side, dice.random() * side, dice.uniform(0.1, 0.4) * side
        line = [(x, y), (x + length, y + 0.3 * length)]
        draw.line(line, (62, 94, 82), max(1, round(0.02 * side)))
    return image


def _checked_cloth(light: Colour, middle: Colour, dark: Colour) -> Painter:
    def painter(side: int, dice: random.Random) -> Image.Image:
        image = Image.new("RGB", (side, side), light)
        draw = ImageDraw.Draw(image)
        width = side / 8
        shift = dice.uniform(-1, 0) * width
        for row in range(10):
            for column in range(10):
                bands = row % 2 + column % 2
                if bands:
                    x, y = shift + column * width, shift + row * width
                    fill = dark if bands == 2 else middle
                    draw.rectangle((x, y, x + width - 1, y + width - 1), fill)
        return image

    return painter


def _paper(top: Colour, bottom: Colour) -> Painter:
    def painter(side: int, dice: random.Random) -> Image.Image:
        image = _gradient(side, _near(top, dice, 6), _near(bottom, dice, 6))
        draw = ImageDraw.Draw(image)
        for _ in range(4):  # faint creases
            start, end = dice.random() * side, dice.random() * side
            crease = _near(bottom, dice, 4)
            draw.line([(0, start), (side, end)], crease, max(1, round(0.008 * side)))
        return image

    return painter


PAINTERS: dict[str, Painter] = {
    "clear sky": _clear_sky,
    "sunset": _sunset,
    "starry night": _starry_night,
    "sand": _sand,
    "meadow": _meadow,
    "sea": _sea,
    "snow": _snow,
    "brick wall": _brick_wall,
    "wooden planks": _wooden_planks,
    "stone pavement": _stone_pavement,
    "blackboard": _blackboard,
    "rose checked cloth": _checked_cloth((252, 240, 242), (242, 190, 200), (226, 138, 158)),
    "lemon checked cloth": _checked_cloth((255, 253, 236), (250, 240, 168), (240, 224, 104)),
    "lilac paper": _paper((216, 196, 240), (194, 170, 226)),
    "mint paper": _paper((190, 238, 212), (162, 220, 190)),
    "peach paper": _paper((255, 216, 186), (248, 192, 158)),
}
