"""Texts such as people search photos with: queries where a collection has no captions.

A query by an image in place of a text has larger scores, and a first stage agrees with the full
tower otherwise on it (the modality gap). Texts, even if they describe nothing in the collection,
pass through the text tower as a user's do.
"""

import numpy as np

_THINGS = (
    "a man", "a woman", "a child", "a dog", "two people", "a group of friends", "a cat", "a bird",
    "a car", "a bicycle", "a boat", "a horse", "a train", "a family", "a baby", "an old man",
    "a crowd", "children", "a flower", "a cake", "a house", "a tree", "food on a plate",
    "a mountain", "a sunset", "a bridge", "a street", "a table", "a red ball", "a blue sign",
)  # fmt: skip
_DOING = (
    "", "", "", "running", "sitting", "standing", "jumping", "playing", "sleeping", "smiling",
    "looking at the camera", "seen from far away", "close up", "moving fast",
)  # fmt: skip
_PLACES = (
    "", "", "", "on a beach", "in the snow", "in a city", "in a park", "indoors", "at night",
    "by the water", "in a field", "on a mountain", "in a kitchen", "on a road", "at a party",
    "in front of a building", "in the rain",
)  # fmt: skip


def everyday_texts(number: int, seed: int) -> list[str]:
    """So many texts, drawn independently: a thing, often what it does, often where."""
    generator = np.random.default_rng(seed)
    parts = [generator.choice(words, number) for words in (_THINGS, _DOING, _PLACES)]
    return [" ".join(word for word in words if word) for words in zip(*parts, strict=True)]
