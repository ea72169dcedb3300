"""Training batches: the same for the same seed and step, and true to the corpus."""

import random

import datasets
import pytest
import torch
from PIL import Image

from corpora.scenes import SEEDS, captions, render, scene
from demo.batches import Batches, CorpusSource, SceneSource, cropped
from demo.network import build_processor
from demo.phrases import Phrases, phrases_in


def test_phrases_are_words_and_pairs_of_nearby_words():
    found = list(phrases_in(["A red star, on the sand"]))
    assert {"red", "red star", "star on", "a the"} <= set(found)
    assert "a sand" not in found  # too far apart


def test_what_nearly_every_image_says_is_no_phrase():
    said = [["a red star"], ["a blue ring"], ["a red ring"], ["a heart"], ["a moon"], ["a cross"]]
    phrases = Phrases.of([[*texts] for texts in said], count=100)
    assert "a" not in phrases.names
    assert {"heart", "a heart", "blue"} <= set(phrases.names)
    assert Phrases(["blue", "a moon"]).said(["a blue moon"]).tolist() == [1, 1]
    assert Phrases(["blue", "moon a"]).said(["a green moon"]).tolist() == [0, 0]


def scene_batches(seed):
    source = SceneSource()
    texts = [captions(scene(SEEDS["train"], i)) for i in range(50)]
    tokenizer = build_processor(text for five in texts for text in five).tokenizer
    sides = {0: 32, 1: 64, 2: 64}
    return Batches(source, tokenizer, Phrases.of(texts, 20), 4, 2, sides.__getitem__, seed)


def test_a_batch_holds_the_scenes_of_its_step_at_the_side_of_its_step():
    batches = scene_batches(seed=0)
    batch = batches[1]
    assert batch.pixels.shape == (4, 64, 64, 3)
    for i in range(4):
        drawn = scene(SEEDS["train"], 4 + i)
        assert batch.pixels[i].numpy().tobytes() == render(drawn, 64).tobytes()
        assert torch.equal(batch.phrases[i], batches.phrases.said(captions(drawn)))
        read = [batches.tokenizer.decode(t, skip_special_tokens=True) for t in batch.tokens[i]]
        spaced = [caption.replace(",", " ,") for caption in captions(drawn)]
        assert len(set(read)) == 2
        assert set(read) <= set(spaced)


def test_the_same_step_gives_the_same_batch_and_another_seed_other_captions():
    one, other = scene_batches(seed=0), scene_batches(seed=0)
    assert torch.equal(one[2].pixels, other[2].pixels)
    assert torch.equal(one[2].tokens, other[2].tokens)
    assert [scene_batches(seed)[2].tokens.tolist() for seed in (1, 2)] != [
        one[2].tokens.tolist()
    ] * 2


@pytest.fixture
def sided_corpus():
    """Six images, red on the left and blue on the right, every other one saying so."""
    image = Image.new("RGB", (60, 40), "red")
    image.paste("blue", (30, 0, 60, 40))
    texts = [["red left of blue"] if i % 2 else ["red and blue"] for i in range(6)]
    rows = {"image": [image] * 6, "captions": texts, "key": [str(i) for i in range(6)]}
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def test_an_epoch_shows_every_image_once_and_each_epoch_another_order():
    rows = {"image": [Image.new("L", (9, 9))] * 20, "captions": [[f"n {i}"] for i in range(20)]}
    corpus = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    source = CorpusSource(corpus, seed=3)
    shown = [source.example(number, 32)[1][0] for number in range(40)]
    assert set(shown[:20]) == set(shown[20:])
    assert len(set(shown)) == 20
    assert shown[:20] != shown[20:]


def test_an_image_whose_captions_say_left_is_never_mirrored(sided_corpus):
    source = CorpusSource(sided_corpus, seed=0)
    blue_first = {"red left of blue": 0, "red and blue": 0}
    for number in range(120):
        image, texts = source.example(number, 32)
        leftmost, rightmost = image.getpixel((0, 16)), image.getpixel((31, 16))
        blue_first[texts[0]] += leftmost[2] > rightmost[2]
    assert blue_first["red left of blue"] == 0
    assert blue_first["red and blue"] > 0


@pytest.mark.parametrize("size", [(100, 40), (40, 100), (7, 7), (1, 300)])
def test_a_crop_has_the_side_asked_for(size):
    for seed in range(20):
        image = cropped(Image.new("RGB", size), 64, random.Random(seed))
        assert image.size == (64, 64)
