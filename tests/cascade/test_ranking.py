"""Rankings are by score, then by order, and each query's is its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.ranking import NOTHING, rank_all, rank_candidates

unhurried = settings(deadline=None, max_examples=60)  # a busy machine is no failure

score = st.sampled_from([0.0, -0.0, 1.5, -1.5, 1e-38, -3e38, float("inf"), -float("inf")])
scores = st.lists(st.one_of(score, st.just(float("nan"))), min_size=1, max_size=12)


def by_score(values):
    number = [float("-inf") if value != value else value for value in values]
    return sorted(range(len(values)), key=lambda at: -number[at])


@unhurried
@given(scores, st.integers(1, 14))
def test_images_rank_by_score_then_position_with_nan_last(values, wanted):
    found = rank_all(torch.tensor(values)[:, None], torch.ones(1, 1), wanted)
    assert found.positions.tolist() == [by_score(values)[:wanted]]


@unhurried
@given(scores, st.randoms())
def test_candidates_rank_by_score_then_in_the_order_handed_on(values, random):
    slots = [random.choice([at, -1, -2]) for at in range(len(values))]
    candidates = torch.arange(len(values)) + 100
    embeddings = torch.tensor(values)[:, None]
    found = rank_candidates(candidates[None], embeddings, torch.tensor([slots]), torch.ones(1, 1))
    readable = [at + 100 for at in by_score(values) if slots[at] >= 0]
    nothing = [NOTHING] * (len(values) - len(readable))
    assert found.positions.tolist() == [readable + nothing]


@unhurried
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 33), st.integers(0, 2**31))
def test_a_query_gets_the_same_bits_alone_and_among_others(queries, images, dimension, seed):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, dimension, generator=generator)
    embeddings = torch.randn(images, dimension, generator=generator)
    candidates = torch.randint(0, images, (queries, 7), generator=generator)
    together = rank_all(embeddings, query, 5)
    reranked = rank_candidates(candidates, embeddings, candidates, query)
    for at in range(queries):
        one = slice(at, at + 1)
        alone = rank_all(embeddings, query[one], 5)
        assert torch.equal(alone.positions, together.positions[one])
        assert torch.equal(alone.scores, together.scores[one])
        alone = rank_candidates(candidates[one], embeddings, candidates[one], query[one])
        assert torch.equal(alone.scores, reranked.scores[one])


def test_dimensions_must_agree():
    with pytest.raises(ValueError, match="2 dimensions, but queries to 3"):
        rank_all(torch.zeros(4, 2), torch.zeros(1, 3), 1)
