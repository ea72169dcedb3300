"""Says five different true things about a generated scene.

Stands between the layout of a scene and the scenes corpus. No two things of a scene share a
colour or a place, so every phrase here means exactly one thing; a relation is only said where it
holds with a margin.
"""

import random
from collections import Counter

from corpora.generating.layout import Scene, Thing

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
PLURALS = {"cross": "crosses"}
SETTINGS = {
    "clear sky": "in a clear sky",
    "sunset": "in a sunset sky",
    "starry night": "in a starry night",
    "sand": "on sand",
    "meadow": "on a meadow",
    "sea": "on the sea",
    "snow": "on snow",
    "brick wall": "on a brick wall",
    "wooden planks": "on wooden planks",
    "stone pavement": "on a stone pavement",
    "blackboard": "on a blackboard",
    "rose checked cloth": "on a rose tablecloth",
    "lemon checked cloth": "on a lemon tablecloth",
    "lilac paper": "on lilac paper",
    "mint paper": "on mint paper",
    "peach paper": "on peach paper",
}
MARGIN = 0.2  # a relation is said only if the centres are this far apart, in image sides
DIAGONAL = 1.7  # and this many times farther apart than they are aside of each other
RELATIONS = ("left of", "right of", "above", "below")


def captions(scene: Scene) -> list[str]:
    """Five captions: everything, two places, a relation, a count, a comparison.

    Each names the background and the colours of at least two things; which things, and in which
    order, is chosen by the scene's own dice.
    """
    dice = scene.dice("captions")
    setting = SETTINGS[scene.background]
    return [
        _listing(scene, setting, dice),
        placing(scene, *dice.sample(scene.things, 2)),
        _relating(scene, setting, dice),
        _counting(scene, setting, dice),
        _comparing(scene, setting, dice),
    ]


def holds(relation: str, one: Thing, other: Thing) -> bool:
    """Whether `one` is clearly `relation` (of) `other`: by MARGIN, and not on a diagonal."""
    right, down = one.x - other.x, one.y - other.y
    along, aside = {
        "left of": (-right, down),
        "right of": (right, down),
        "above": (-down, right),
        "below": (down, right),
    }[relation]
    return along >= MARGIN and along > DIAGONAL * abs(aside)


def _listing(scene: Scene, setting: str, dice: random.Random) -> str:
    """A red star, a blue ring and a white heart on sand."""
    things = dice.sample(scene.things, len(scene.things))
    return f"{_joined([_article(_name(thing)) for thing in things])} {setting}"


def placing(scene: Scene, one: Thing, other: Thing) -> str:
    """A small striped red star at the top left and a large plain blue ring at the top on sand."""
    first, second = (f"{_article(_full(thing))} {_where(thing)}" for thing in (one, other))
    return f"{first} and {second} {SETTINGS[scene.background]}"


def _relating(scene: Scene, setting: str, dice: random.Random) -> str:
    """The striped red star is left of the plain blue ring, on sand."""
    pairs = [
        (one, relation, other)
        for one in scene.things
        for other in scene.things
        for relation in RELATIONS
        if one is not other and holds(relation, one, other)
    ]
    if not pairs:  # two things on a diagonal
        one, other = dice.sample(scene.things, 2)
        side = "right" if one.x > other.x else "left"
        height = "below" if one.y > other.y else "above"
        return f"{setting} the {_textured(one)} is {height} and {side} of the {_textured(other)}"
    one, relation, other = dice.choice(pairs)
    return f"{setting} the {_textured(one)} is {relation} the {_textured(other)}"


def _counting(scene: Scene, setting: str, dice: random.Random) -> str:
    """Three shapes on sand, two rings and a star, coloured red, blue and white."""
    counts = Counter(thing.shape for thing in scene.things)
    shapes = dice.sample(sorted(counts), len(counts))
    groups = _joined([_number(shape, counts[shape]) for shape in shapes])
    colours = _joined(dice.sample([thing.colour for thing in scene.things], len(scene.things)))
    return f"{NUMBERS[len(scene.things)]} shapes {setting}, {groups}, coloured {colours}"


def _comparing(scene: Scene, setting: str, dice: random.Random) -> str:
    """The large red star at the left is bigger than the small blue ring at the top, on sand."""
    one, other = dice.sample(scene.things, 2)
    if one.size == other.size:
        verb = "is as big as"
    else:
        verb = "is bigger than" if one.radius > other.radius else "is smaller than"
    return f"{setting} the {_name(one)} {_where(one)} {verb} the {_name(other)} {_where(other)}"


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _textured(thing: Thing) -> str:
    return f"{thing.texture} {_name(thing)}"


def _full(thing: Thing) -> str:
    return f"{thing.size} {_textured(thing)}"


def _where(thing: Thing) -> str:
    return "in the middle" if thing.place == "middle" else f"at the {thing.place}"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _number(shape: str, count: int) -> str:
    if count == 1:
        return _article(shape)
    return f"{NUMBERS[count]} {PLURALS.get(shape, shape + 's')}"


def _joined(parts: list[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
