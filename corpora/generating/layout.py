"""What is in a generated scene: things with a shape, colour, texture, size, place; a background.

The first step of the scenes corpus. A scene is a pure function of a seed and an index; drawing
and wording only read it, so a caption can be checked against the scene it describes.
"""

import math
import random
from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = {"small": 0.082, "medium": 0.115, "large": 0.155}  # radius / image side
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "turquoise",
    "blue",
    "purple",
    "pink",
    "white",
    "black",
)
PLACES = (
    "top left",
    "top",
    "top right",
    "left",
    "middle",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
# Each background with the colours that would be hard to see on it.
BACKGROUNDS = {
    "clear sky": ("turquoise", "white"),
    "sunset": ("orange", "purple"),
    "starry night": ("black", "blue"),
    "sand": ("yellow", "orange"),
    "meadow": ("green",),
    "sea": ("turquoise", "blue"),
    "snow": ("white",),
    "brick wall": ("red",),
    "wooden planks": ("orange",),
    "stone pavement": (),
    "blackboard": ("black", "green"),
    "rose checked cloth": ("pink", "red"),
    "lemon checked cloth": ("yellow",),
    "lilac paper": ("purple",),
    "mint paper": ("turquoise", "green"),
    "peach paper": ("orange", "pink"),
}
JITTER = 0.035  # how far a thing may stand from the centre of its place, in image sides


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    x and y are the centre, from the left and from the top, and radius is half the width, all in
    image sides; turn is the rotation in degrees, clockwise.
    """

    shape: str
    colour: str
    texture: str
    size: str
    place: str
    x: float
    y: float
    radius: float
    turn: float


@dataclass(frozen=True)
class Scene:
    """Two to five things, no two of one colour or in one place, on a background.

    seed and index name the scene; every choice that drawing and wording leave open follows from
    them.
    """

    seed: int
    index: int
    background: str
    things: tuple[Thing, ...]

    def dice(self, purpose: str) -> random.Random:
        """A random stream that belongs to this scene and this purpose alone."""
        return random.Random(f"clip-cascade/{purpose}/{self.seed}/{self.index}")


def scene(seed: int, index: int) -> Scene:
    """The scene with this seed and index: the same on every machine, for ever."""
    dice = random.Random(f"clip-cascade/layout/{seed}/{index}")
    background = dice.choice(tuple(BACKGROUNDS))
    count = dice.randint(2, 5)
    visible = [colour for colour in COLOURS if colour not in BACKGROUNDS[background]]
    colours = dice.sample(visible, count)
    places = dice.sample(range(len(PLACES)), count)
    things = tuple(
        _thing(dice, colour, place) for colour, place in zip(colours, places, strict=True)
    )
    return Scene(seed, index, background, things)


def _thing(dice: random.Random, colour: str, place: int) -> Thing:
    size = dice.choice(tuple(SIZES))
    row, column = divmod(place, 3)
    angle, distance = dice.uniform(0, 2 * math.pi), JITTER * math.sqrt(dice.random())
    return Thing(
        shape=dice.choice(SHAPES),
        colour=colour,
        texture=dice.choice(TEXTURES),
        size=size,
        place=PLACES[place],
        x=0.2 + 0.3 * column + distance * math.cos(angle),
        y=0.2 + 0.3 * row + distance * math.sin(angle),
        radius=SIZES[size] * dice.uniform(0.95, 1.05),
        turn=dice.uniform(-12, 12),
    )
