"""What is learnt of two stages is so, and the choice of m that follows keeps what it certifies."""

import numpy as np
import pytest
import torch

from cascade import Collection
from cascade.calibrated.margins import membership
from cascade.searching.ranking import NOTHING
from evaluation.planning.adapting import LEVELS, Levels
from evaluation.planning.asking import Asked
from evaluation.planning.calibrating import fitted, learn
from evaluation.planning.certifying import smallest_m
from evaluation.planning.everyday import everyday_texts
from evaluation.planning.measuring import measured
from evaluation.planning.sample import encoded_sample
from tests.cascade.known import Known, number_of, numbered

IMAGES, DIMENSION, K = 300, 12, 5
NOISE = 0.15


class Disturbed(Known):
    """A first stage whose embeddings are another's, and something random."""

    def __init__(self, other):
        super().__init__(1, IMAGES, DIMENSION)
        self.table = torch.nn.functional.normalize(other.table + NOISE * self.table, dim=1)
        self.name = "first"


@pytest.fixture(scope="module")
def collection():
    full = Known(0, IMAGES, DIMENSION)
    with Collection.in_memory([Disturbed(full), full], [50], "float32", opener=number_of) as made:
        made.add(numbered(range(IMAGES)))
        yield made


@pytest.fixture(scope="module")
def sample(collection):
    return encoded_sample(collection, IMAGES, 0, 64)


def asked(number, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(
        torch.randn(number, DIMENSION, generator=generator), dim=1
    )
    return Asked([vectors, vectors], "vectors")


@pytest.fixture(scope="module")
def learnt(sample):
    return learn(sample, asked(300, 1), K, IMAGES)


def test_a_logistic_regression_finds_the_weights_that_made_the_outcomes():
    generator = np.random.default_rng(0)
    terms = np.stack([np.ones(40_000), *generator.normal(size=(2, 40_000))], axis=1)
    weights = np.array([-1.0, 0.5, 2.0])
    outcomes = generator.random(40_000) < 1 / (1 + np.exp(-terms @ weights))
    assert fitted(terms, outcomes) == pytest.approx(weights, abs=0.08)
    separated = fitted(np.stack([np.ones(4), np.arange(4.0)], axis=1), np.arange(4) > 1)
    assert np.isfinite(separated).all()


def test_chances_are_as_frequent_as_they_say_on_other_queries(sample, learnt):
    others = asked(400, 2)
    levels = Levels.of(sample, others, K, learnt)
    found = measured(sample, others, K, IMAGES).found
    for level in (600, 900, 990):
        share = level / LEVELS
        needed = levels.needed[:, level - 1]
        held = (found.at <= needed[:, None]).mean()
        assert held == pytest.approx(share, abs=0.05) or needed.max() == K
    assert 1 <= learnt.depth <= IMAGES
    assert levels.needed.max() <= learnt.depth
    assert (np.diff(levels.needed, axis=1) >= 0).all()


def test_levels_say_from_where_on_results_are_handed_on(sample, learnt):
    others = asked(30, 3)
    levels = Levels.of(sample, others, K, learnt)
    found = measured(sample, others, K, IMAGES).found
    at = levels.found(found)
    for level in (1, 500, 900, LEVELS):
        needed = levels.needed[:, level - 1]
        expected = (found.at <= needed[:, None]).mean(axis=1)
        assert at.agreements(level) == pytest.approx(expected)
        handed_on = levels.handed_on(level)
        assert ((handed_on != NOTHING).sum(dim=1).numpy() == needed).all()


def test_what_is_certified_of_the_choice_holds_in_most_draws(sample, learnt):
    target, confidence = 0.9, 0.9
    population = asked(800, 4)
    levels = Levels.of(sample, population, K, learnt)
    at = levels.found(measured(sample, population, K, IMAGES).found)
    truth = [at.agreements(level).mean() for level in range(1, LEVELS + 1)]
    generator = np.random.default_rng(0)
    held, draws = 0, 200
    for _ in range(draws):
        drawn = type(at)(at.at[generator.integers(0, len(population), 150)])
        level = smallest_m(drawn, target, confidence, 1, LEVELS)
        held += level is None or truth[level - 1] >= target
    assert held / draws >= confidence


def test_a_sample_of_the_images_teaches_about_the_same(collection, sample, learnt):
    part = encoded_sample(collection, IMAGES // 2, 0, 64)
    half = learn(part, asked(300, 1), K, IMAGES)
    scores = np.linspace(0.9, 0.1, 40)[None]
    whole, guessed = (
        membership(scores, np.array([0.25]), K, each.membership) for each in (learnt, half)
    )
    assert guessed == pytest.approx(whole, abs=0.15)
    assert half.certainty.slope == pytest.approx(learnt.certainty.slope, abs=0.1)
    assert half.certainty.noise == pytest.approx(learnt.certainty.noise, rel=0.15)


def test_halves_have_all_queries_once():
    first, second = asked(7, 0).halves(3)
    together = torch.cat([first.embeddings[0], second.embeddings[0]])
    assert (len(first), len(second)) == (3, 4)
    assert {tuple(row.tolist()) for row in together} == {
        tuple(row.tolist()) for row in asked(7, 0).embeddings[0]
    }


def test_everyday_texts_are_drawn_by_their_seed():
    texts = everyday_texts(300, 0)
    assert texts == everyday_texts(300, 0) != everyday_texts(300, 1)
    assert len(set(texts)) > 200
    assert all(text and text == " ".join(text.split()) for text in texts)
