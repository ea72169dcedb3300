"""Rankings are by score, then by order, and each query's is its own."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.searching.ranking import NOTHING, rank_all, rank_candidates, scores_of
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))  # a busy machine is no failure

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


def by_definition(embeddings, queries, wanted):
    """Positions by the exact dot product, rounded to float32 once, and then in order."""
    found = []
    for query in queries.double().numpy():
        sums = [math.fsum(row * query) for row in embeddings.double().numpy()]
        values = torch.tensor(sums, dtype=torch.float64).float().tolist()
        order = sorted(range(len(values)), key=lambda at: -values[at])[:wanted]
        found.append([(at, values[at]) for at in order])
    return found


def listed(ranking):
    return [
        list(zip(*each, strict=True))
        for each in zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True)
    ]


@st.composite
def crowded(draw):
    """Embeddings of which many are equal or nearly so, of any length, and queries among them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dimension, different = draw(st.integers(1, 33)), draw(st.integers(1, 60))
    embeddings = torch.randn(different, dimension, generator=generator)
    copies = torch.randint(0, different, (draw(st.integers(1, 200)),), generator=generator)
    noise = torch.randn(len(copies), dimension, generator=generator)
    embeddings = embeddings[copies] + draw(st.sampled_from([0, 1e-7, 1e-3])) * noise
    queries = torch.randn(draw(st.integers(1, 5)), dimension, generator=generator)
    if draw(st.booleans()):
        queries[0] = embeddings[0]
    scale = draw(st.sampled_from([1.0, 1e-3, 1e3, 1e18]))
    return embeddings * scale, queries


@unhurried
@given(
    crowded(),
    st.integers(1, 30),
    st.booleans(),
    st.sampled_from([7, 50, 1 << 17]),
    st.sampled_from([2, 3, 64]),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_products_find_what_the_definition_ranks(world, wanted, halves, images, run, share, seed):
    """With ties, nearly equal ones, images that are gone, and embeddings kept as halves."""
    embeddings, queries = world
    if halves:
        embeddings = embeddings.clamp(-6e4, 6e4).half()
    gone = torch.rand(len(embeddings), generator=torch.Generator().manual_seed(seed)) < share * 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cascade.searching.products._IMAGES_AT_ONCE", images)
        patch.setattr("cascade.searching.products._ROWS_AT_ONCE", 5)
        patch.setattr("cascade.searching.products._RUN", run)
        patch.setattr("cascade.searching.ranking._PAIRS_AT_ONCE", 16)
        patch.setattr("cascade.searching.ranking._TERMS_AT_ONCE", 64)
        found = rank_all(embeddings, queries, wanted, gone=gone.nonzero().flatten())
    there = (~gone).nonzero().flatten().tolist()
    expected = by_definition(embeddings[there], queries, wanted)
    assert listed(found) == [[(there[at], value) for at, value in each] for each in expected]


@unhurried
@given(
    st.lists(score, min_size=1, max_size=12),
    st.integers(1, 14),
    st.sets(st.integers(0, 11)),
)
def test_what_is_gone_is_left_out_whatever_the_numbers(values, wanted, out):
    gone = sorted(at for at in out if at < len(values))
    there = [at for at in range(len(values)) if at not in out]
    embeddings = torch.tensor(values)[:, None]
    hidden = torch.tensor(gone, dtype=torch.int64)
    found = rank_all(embeddings, torch.ones(2, 1), wanted, gone=hidden)
    best = [there[at] for at in by_score([values[at] for at in there])][:wanted]
    assert found.positions.tolist() == [best, best]


def test_no_queries_have_no_results():
    assert rank_all(torch.ones(50, 4), torch.empty(0, 4), 3).positions.shape == (0, 3)


@pytest.mark.parametrize("queries", [1, 7])  # of halves one by one, and together
def test_a_large_matrix_of_halves_is_ranked_as_float32_is(queries):
    """So many images that runs, blocks and blocks of rows are all there."""
    generator = torch.Generator().manual_seed(queries)
    embeddings = torch.randn(20_000, 8, generator=generator).half()
    embeddings[15_000:] = embeddings[:5000]  # each of these twice
    asked = torch.randn(queries, 8, generator=generator)
    gone = torch.arange(0, 20_000, 3)
    exact = rank_all(embeddings.float(), asked, 40, gone=gone)
    scores = (asked.double() @ embeddings.double().T).index_fill(1, gone, float("-inf"))
    assert torch.equal(exact.positions, scores.argsort(descending=True, stable=True)[:, :40])
    found = rank_all(embeddings, asked, 40, gone=gone)
    assert torch.equal(found.positions, exact.positions)
    assert torch.equal(found.scores, exact.scores)


@unhurried
@given(crowded(), st.integers(1, 30))
def test_products_of_less_precision_are_noticed(world, wanted):
    """As `torch.set_float32_matmul_precision` allows them on some processors."""
    embeddings, queries = world

    def coarse(rows, queries):
        return rows.bfloat16().float() @ queries.bfloat16().float().T

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cascade.searching.products._product", coarse)
        found = rank_all(embeddings, queries, wanted)
    scored = scores_of(embeddings, found.positions, queries)
    assert torch.equal(scored, found.scores)
    exact = rank_all(embeddings, queries, wanted)
    longest = (embeddings.norm(dim=1).max() * queries.norm(dim=1).max()).item()
    differ = (found.scores - exact.scores).abs().max().item()
    assert differ <= 1e-2 * longest


def test_a_product_that_was_off_too_far_is_not_believed():
    """The images that it named are scored, and the others then as well."""
    embeddings, queries = torch.eye(64), torch.eye(64)[:3] + 0.01

    def wrong(rows, queries):
        return torch.flip(rows @ queries.T, dims=[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cascade.searching.products._product", wrong)
        found = rank_all(embeddings, queries, 1)
    assert found.positions.tolist() == [[0], [1], [2]]


@unhurried
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 2**31))
def test_a_score_depends_on_its_two_embeddings_only(dimension, images, seed):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, dimension, generator=generator)
    query = torch.randn(1, dimension, generator=generator)
    rows = torch.randint(0, images, (1, 50), generator=generator)
    together = scores_of(embeddings, rows, query)
    for column, row in enumerate(rows[0].tolist()):
        alone = scores_of(embeddings[row : row + 1].clone(), torch.zeros(1, 1).long(), query)
        assert alone.item() == together[0, column].item()


def test_dimensions_must_agree():
    with pytest.raises(ValueError, match="2 dimensions, but queries to 3"):
        rank_all(torch.zeros(4, 2), torch.zeros(1, 3), 1)
