"""The classifier is the standard formula, whatever the batches; templates hold names."""

import pytest
import torch
from torch.nn.functional import normalize

from cascade import Stage
from evaluation.classifying import classifier as module
from evaluation.classifying.classifier import classifier, filled, texts_of
from tests.conftest import tiny_clip, tiny_processor

CLASSES = (("red disc", "red star"), ("blue square",), ("green",))
TEMPLATES = ("a {} on the left", "the {c}", "small {}")


@pytest.fixture(scope="module")
def stage():
    return Stage(tiny_clip(), tiny_processor(), batch_size=4)


def plain(stage, classes, templates):
    """The formula as CLIP's paper and open_clip have it, one class after the other, in float64."""
    rows = []
    for names in classes:
        texts = [t.replace("{c}", n).replace("{}", n) for n in names for t in templates]
        embeddings = stage.encode_texts(texts).double()
        mean = normalize(embeddings, dim=1).mean(0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


def test_it_is_the_mean_of_normalised_embeddings_normalised_again(stage):
    found = classifier(stage.encode_texts, CLASSES, TEMPLATES)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, plain(stage, CLASSES, TEMPLATES), atol=2e-7, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_how_many_classes_are_embedded_at_once_makes_no_difference(stage, monkeypatch):
    texts = {text for names in CLASSES for text in texts_of(names, TEMPLATES)}
    known = {text: stage.encode_texts([text])[0] for text in texts}

    def encode(asked):
        return torch.stack([known[text] for text in asked])

    whole = classifier(encode, CLASSES, TEMPLATES)
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 1)
    assert torch.equal(classifier(encode, CLASSES, TEMPLATES), whole)


def test_a_name_stands_wherever_a_template_has_its_place():
    assert filled("a {} {c}, {d}", "cat") == "a cat cat, {d}"
    assert texts_of(["cat", "dog"], ["a {}", "the {}"]) == ["a cat", "the cat", "a dog", "the dog"]
