"""The probe: a reader of all words notices every wrong one, a blind one guesses."""

import pytest
import torch
from torch.nn.functional import normalize

from corpora.generating.wording import placing
from corpora.scenes import scene
from demo.probe import WORDS, noticed_words

SCENES = [scene(2, index) for index in range(40)]


class Reader:
    """Embeds a text as the bag of the words that it can read, in the order of a fixed list."""

    def __init__(self, readable):
        self.words = sorted(readable)

    def encode_texts(self, texts):
        spoken = [f" {text} " for text in texts]
        rows = [[t.count(f" {word} ") for word in self.words] + [0.001] for t in spoken]
        return normalize(torch.tensor(rows, dtype=torch.float), dim=1)


def noticed_by(readable):
    reader = Reader(readable)
    images = reader.encode_texts([placing(drawn, *drawn.things[:2]) for drawn in SCENES])
    return noticed_words(reader, SCENES, images, seed=0)


@pytest.mark.parametrize("word", ["colour", "shape", "texture", "size"])
def test_only_what_is_read_is_noticed(word):
    noticed = noticed_by(WORDS[word])
    assert noticed[word] == 100
    assert all(noticed[other] == 0 for other in WORDS if other != word)


def test_wrong_backgrounds_and_places_are_noticed():
    noticed = noticed_by(
        [
            "sand",
            "snow",
            "sky",
            "night",
            "meadow",
            "sea",
            "wall",
            "planks",
            "pavement",
            "blackboard",
            "sunset",
            "clear",
            "rose",
            "lemon",
            "lilac",
            "mint",
            "peach",
            "top",
            "bottom",
            "left",
            "right",
            "middle",
        ]
    )
    assert noticed["background"] == 100
    assert noticed["place"] > 90
    assert noticed["colour"] == 0
