"""Three tasks on scenes, by what the generator put into them: the embedded default.

What the largest object is (a colour and a shape, as captions name things), its colour, and the
background. The first two are asked of the scenes in which one thing is larger than all others by
its size (small, medium, large). Templates are parts of the captions that the demo checkpoint was
trained on.
"""

from collections.abc import Callable, Sequence

import torch

from corpora import load_corpus
from corpora.generating.layout import COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing
from corpora.generating.wording import NUMBERS, SETTINGS
from corpora.scenes import SEEDS, scene
from corpora.splits import resolve
from evaluation.classifying.tasks import Task, TaskSet

OBJECTS = tuple((f"{colour} {shape}",) for colour in COLOURS for shape in SHAPES)
OBJECT_TEMPLATES = tuple(f"a large {texture} {{}}" for texture in TEXTURES)
COLOUR_NAMES = tuple((colour,) for colour in COLOURS)
COLOUR_TEMPLATES = tuple(
    f"a large {texture} {{}} {shape}" for texture in TEXTURES for shape in SHAPES
)
PLACES = tuple((setting,) for setting in SETTINGS.values())
BACKGROUND_TEMPLATES = tuple(f"{number} shapes {{}}" for number in NUMBERS.values())


def scene_tasks(name: str, split: str, draw: Callable[[int], Sequence[int]]) -> TaskSet:
    """The scenes of a split with the three tasks.

    Args:
        name: of the data set, as reports publish it.
        split: train or validation, for which test stands too.
        draw: from how many scenes there are to the places of those to take.
    """
    split = resolve(split, tuple(SEEDS), "scenes")
    images = load_corpus("scenes", split=split).remove_columns("captions")
    places = draw(len(images))
    drawn = [scene(SEEDS[split], index) for index in places]
    largest = [largest_thing(one) for one in drawn]
    rows = torch.tensor([row for row, thing in enumerate(largest) if thing])
    things = [thing for thing in largest if thing]
    every = torch.arange(len(drawn))
    return TaskSet(
        name, split, images.select(places), (),
        (
            Task(f"{name}: object", rows, _objects(things), OBJECTS, OBJECT_TEMPLATES),
            Task(f"{name}: colour", rows, _colours(things), COLOUR_NAMES, COLOUR_TEMPLATES),
            Task(f"{name}: background", every, _backgrounds(drawn), PLACES, BACKGROUND_TEMPLATES),
        ),
    )  # fmt: skip


def largest_thing(drawn: Scene) -> Thing | None:
    """The thing of a scene that is larger than all others by its size; None if several are."""
    order = list(SIZES)
    sizes = [order.index(thing.size) for thing in drawn.things]
    largest = max(sizes)
    return drawn.things[sizes.index(largest)] if sizes.count(largest) == 1 else None


def _objects(things: Sequence[Thing]) -> torch.Tensor:
    return torch.tensor(
        [COLOURS.index(thing.colour) * len(SHAPES) + SHAPES.index(thing.shape) for thing in things]
    )


def _colours(things: Sequence[Thing]) -> torch.Tensor:
    return torch.tensor([COLOURS.index(thing.colour) for thing in things])


def _backgrounds(drawn: Sequence[Scene]) -> torch.Tensor:
    places = {background: number for number, background in enumerate(SETTINGS)}
    return torch.tensor([places[one.background] for one in drawn])
