"""Of several first stages the cheapest is chosen, and what is certified of it still holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from cascade import Collection
from cascade.measuring.finding import Found
from evaluation.planning.asking import Asked
from evaluation.planning.certifying import (
    P_VALUES,
    confidence_of_each,
    smallest_m,
    smallest_m_of_each,
)
from evaluation.planning.contending import (
    Contender,
    cheapest,
    choices,
    own_ranking,
    ranking_of,
)
from evaluation.planning.costs import Costs
from evaluation.planning.measuring import measured
from evaluation.planning.sample import encoded_sample
from evaluation.planning.terms import PlanError, Terms
from tests.cascade.known import Known, number_of, numbered
from tests.lanes import examples

IMAGES, DIMENSION, K = 160, 12, 4
NOISES = (0.2, 0.25, 0.3)
TARGET, CONFIDENCE = 0.8, 0.9
TERMS = Terms(K, TARGET, CONFIDENCE, "betting", IMAGES)
SECONDS = (0.01, 0.1)


class Disturbed(Known):
    """A first stage whose embeddings are another's, and something random."""

    def __init__(self, other, noise, seed, unreadable=()):
        super().__init__(seed, IMAGES, DIMENSION, unreadable)
        self.table = torch.nn.functional.normalize(other.table + noise * self.table, dim=1)
        self.name = self.text_name = f"noise {noise}"

    def encode_texts(self, texts):
        return asked(len(texts), 0).embeddings[0]  # whatever they are


def asked(number, seed):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(number, DIMENSION, generator=generator)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    return Asked([vectors, vectors], "vectors", texts=["a"] * number)


@pytest.fixture(scope="module")
def stages():
    full = Known(0, IMAGES, DIMENSION)
    return [*(Disturbed(full, noise, seed + 1) for seed, noise in enumerate(NOISES)), full]


@pytest.fixture(scope="module")
def collection(stages):
    first, *_, full = stages
    with Collection.in_memory([first, full], [50], "float32", opener=number_of) as made:
        made.add(numbered(range(IMAGES)))
        yield made


def sample_of(collection, images=IMAGES):
    return encoded_sample(collection, images, 0, 64)


def all_ranked(collection, stages, sample, queries):
    first = own_ranking("own", measured(sample, queries, K, IMAGES), sample)
    others = [
        ranking_of(Contender(stage.name, stage), collection, sample, queries, TERMS)
        for stage in stages[1:-1]
    ]
    return [first, *others]


def test_a_contender_ranks_as_a_collection_made_with_it_would(collection, stages):
    """The sample is all images, so nothing is scaled: also of images that are queries."""
    sample = sample_of(collection)
    images = torch.arange(0, IMAGES, 3)
    as_queries = Asked([stages[0].table[images], stages[-1].table[images]], "images", images)
    for queries in (asked(50, 3), as_queries):
        ranked = all_ranked(collection, stages, sample, queries)[1:]
        for stage, found in zip(stages[1:-1], ranked, strict=True):
            to_first = queries.embeddings[0] if queries.own is None else stage.table[images]
            if queries.own is None:
                to_first = stage.encode_texts(["a"] * 50)
            with Collection.in_memory([stage, stages[-1]], [50], "float32", opener=number_of) as it:
                it.add(numbered(range(IMAGES)))
                other = Asked([to_first, queries.embeddings[1]], "them", queries.own)
                expected = measured(encoded_sample(it, IMAGES, 0, 64), other, K, IMAGES)
            assert (found.found.at == expected.found.at).all()
            assert (found.candidates == expected.candidates).all()
            assert found.largest == expected.largest or queries.own is not None


def test_ranks_in_a_sample_are_scaled_to_all_images(collection, stages):
    sample, queries = sample_of(collection, 40), asked(60, 1)
    places = sample.positions
    found = ranking_of(Contender("b", stages[1]), collection, sample, queries, TERMS)
    scores = stages[1].encode_texts(["a"] * 60) @ stages[1].table[places].T
    ranks = (-scores).argsort(dim=1).argsort(dim=1) + 1
    full = (queries.embeddings[1] @ stages[-1].table[places].T).argmax(dim=1)
    best = ranks.gather(1, full[:, None]).numpy()  # one of 40 stands for four of 160
    assert (found.found.at == best * (IMAGES // 40)).all()
    assert found.share(IMAGES, 60) == 1
    assert found.share(4, 1) == 1 / 40  # its first candidate
    assert found.largest == IMAGES


def test_what_a_contender_can_not_read_it_does_not_find(collection, stages):
    sample, queries = sample_of(collection), asked(30, 2)
    blind = Disturbed(stages[-1], 0.0, 9, unreadable=range(0, IMAGES, 2))
    found = ranking_of(Contender("blind", blind), collection, sample, queries, TERMS)
    assert found.embedded == IMAGES // 2
    assert set(found.candidates.unique().tolist()) <= set(range(1, IMAGES, 2))
    blind.unreadable = set(range(1, IMAGES))
    with pytest.raises(PlanError, match="blind can read only 1 of"):
        ranking_of(Contender("blind", blind), collection, sample, queries, TERMS)


def test_the_cheapest_over_the_lifetime_is_chosen_among_those_that_are_certified(
    collection, stages
):
    sample, queries = sample_of(collection), asked(400, 1)
    ranked = all_ranked(collection, stages, sample, queries)
    costs = Costs(IMAGES, 24, SECONDS, (0.001, 0.2))
    made = choices(ranked, costs, "float16", TERMS)
    for choice, each in zip(made, ranked, strict=True):
        brought_up = len(set(each.candidates[:, : choice.m].flatten().tolist()))
        assert choice.shares[-1] == brought_up / IMAGES
        assert choice.lifetime == pytest.approx(choice.seconds + brought_up / IMAGES * 0.1)
        assert choice.speedup == pytest.approx(0.1 / choice.lifetime)
        assert choice.encoder_speedup is None
        assert choice.disk == 2 * DIMENSION + choice.shares[-1] * 24
        assert choice.agreement >= TARGET
        assert choice.bound >= TARGET
    assert cheapest(made) is min(made, key=lambda choice: choice.lifetime)
    assert cheapest(made) is made[1]  # a tenth of the seconds
    alone = replace(costs, encoders=(0.01, 0.05), other_encoders=(0.0005, 0.1))
    for choice, encoder in zip(
        choices(ranked, alone, "float16", TERMS), (0.01, 0.0005, 0.1), strict=True
    ):
        wanted = 0.05 / (encoder + choice.shares[-1] * 0.05)
        assert choice.encoder_speedup == pytest.approx(wanted)
    assert cheapest(choices(ranked, alone, "float16", TERMS)).name == cheapest(made).name
    hard = Terms(K, 0.999, 0.9999, "betting", IMAGES)
    assert cheapest(choices(ranked, costs, "float16", hard)) is None
    with pytest.raises(PlanError, match="no sampled image can be opened"):
        choices(ranked, Costs(IMAGES, 24, None), "float16", TERMS)


def test_the_error_is_shared_and_one_stage_is_as_it_was(collection, stages):
    sample, queries = sample_of(collection), asked(200, 5)
    founds = [each.found for each in all_ranked(collection, stages, sample, queries)]
    assert confidence_of_each(0.95, 1) == pytest.approx(0.95)
    assert confidence_of_each(0.95, 5) == pytest.approx(0.99)
    alone = smallest_m_of_each(founds[:1], TARGET, CONFIDENCE, [(K, IMAGES)])
    assert alone == [smallest_m(founds[0], TARGET, CONFIDENCE, K, IMAGES)]
    shared = smallest_m_of_each(founds, TARGET, CONFIDENCE, [(K, IMAGES)] * 3)
    assert shared == [
        smallest_m(found, TARGET, 1 - (1 - CONFIDENCE) / 3, K, IMAGES) for found in founds
    ]
    assert shared[0] >= alone[0]
    with pytest.raises(ValueError, match="nothing to certify"):
        confidence_of_each(0.9, 0)


@pytest.mark.parametrize("name", P_VALUES)
def test_the_chosen_one_keeps_what_is_certified_as_often_as_is_said(collection, stages, name):
    """Queries drawn again and again from many whose agreements are known; any rule may choose.

    The worst rule for it takes the stage whose m falls short of the target, if any does.
    """
    every = asked(4000, 7)
    ranked = all_ranked(collection, stages, sample_of(collection), every)
    truths = [each.found for each in ranked]
    generator = np.random.default_rng(1)
    draws, missed, missed_cheapest = examples(40, 1000), 0, 0
    for _ in range(draws):
        chosen = generator.integers(0, 4000, 150)
        drawn = [type(found)(found.at[chosen]) for found in truths]
        made = smallest_m_of_each(
            drawn, TARGET, CONFIDENCE, [(K, IMAGES)] * len(drawn), P_VALUES[name]
        )
        short = [
            m is not None and found.agreements(m).mean() < TARGET
            for m, found in zip(made, truths, strict=True)
        ]
        missed += any(short)
        certified = [at for at, m in enumerate(made) if m is not None]
        assert certified
        missed_cheapest += short[min(certified, key=lambda at: made[at])]
    assert missed <= (1 - CONFIDENCE) * draws
    assert missed_cheapest <= missed


def test_without_sharing_the_error_the_best_of_many_would_miss_too_often():
    """Twenty stages whose first candidate holds less than the target: coins, tested exactly."""

    def exact(values, target):
        return float(binom.sf(values.sum() - 1, len(values), target))

    generator = np.random.default_rng(4)
    draws, many, confidence = examples(60, 2000), 20, 0.7
    missed = np.zeros(2, int)
    for _ in range(draws):
        founds = [Found(1 + (generator.random((150, 1)) >= 0.79)) for _ in range(many)]
        shared = smallest_m_of_each(founds, 0.8, confidence, [(1, 2)] * many, exact)
        alone = [smallest_m(found, 0.8, confidence, 1, 2, exact) for found in founds]
        missed += [1 in shared, 1 in alone]
    allowed = (1 - confidence) * draws
    assert 0 < missed[0] <= allowed < missed[1]
