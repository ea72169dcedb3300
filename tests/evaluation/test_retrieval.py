"""Recall and agreement mean what the field means by them, whatever ties or gaps the scores have."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import retrieval
from evaluation.retrieval import (
    MISSED,
    agreement,
    hits,
    overlap,
    ranks,
    ranks_from_embeddings,
    ranks_from_results,
    recall,
    recall_of,
)
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))  # a busy machine is no failure


@st.composite
def searches(draw):
    """Scores with many ties (and NaNs) and a target a query."""
    queries, images = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    score = st.sampled_from([0.0, 0.25, 0.5, -1.0, float("inf"), float("-inf"), float("nan")])
    rows = st.lists(score, min_size=images, max_size=images)
    scores = draw(st.lists(rows, min_size=queries, max_size=queries))
    target = draw(st.lists(st.integers(0, images - 1), min_size=queries, max_size=queries))
    return torch.tensor(scores), torch.tensor(target)


def plain_recall(scores, target, k):
    found = 0
    for row, own in zip(scores.tolist(), target.tolist(), strict=True):
        before = sum(not score < row[own] for place, score in enumerate(row) if place != own)
        found += row[own] == row[own] and before < k
    return 100 * found / len(scores)


@unhurried
@given(searches(), st.integers(1, 9))
def test_recall_equals_the_straightforward_computation(search, k):
    scores, target = search
    assert recall(scores, target, [k])[k] == pytest.approx(plain_recall(scores, target, k))


@unhurried
@given(searches())
def test_recall_does_not_depend_on_how_the_queries_are_chunked(search):
    scores, target = search
    whole = ranks(scores, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_CHUNK_ELEMENTS", 1)
        assert torch.equal(ranks(scores, target), whole)


@unhurried
@given(searches())
def test_recall_never_falls_as_k_grows(search):
    values = list(recall(*search, range(1, 9)).values())
    assert values == sorted(values)


def test_ties_count_against_the_model():
    same = torch.zeros(3, 4)
    target = torch.tensor([0, 1, 2])
    assert recall(same, target, [1, 3, 4]) == {1: 0.0, 3: 0.0, 4: 100.0}


def test_a_nan_score_is_a_miss_for_every_k():
    scores = torch.tensor([[float("nan"), 0.1], [0.2, float("nan")]])
    assert ranks(scores, torch.tensor([0, 0])).tolist() == [MISSED, 1]
    assert recall(scores, torch.tensor([0, 0]), [100]) == {100: 50.0}


def test_recall_is_in_percent_and_reads_numpy_too():
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0]]).numpy()
    assert recall(scores, [0, 1], (1, 2)) == {1: 50.0, 2: 100.0}


@unhurried
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6))
def test_embeddings_rank_as_their_score_matrix(seed, queries, images):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randint(-2, 3, (queries, 3), generator=generator).float()  # exact products, ties
    image = torch.randint(-2, 3, (images, 3), generator=generator).float()
    target = torch.randint(0, images, (queries,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_CHUNK_ELEMENTS", 2 * images)
        found = ranks_from_embeddings(query, image, target)
    assert torch.equal(found, ranks(query @ image.T, target))


def test_a_result_list_ranks_by_place_and_misses_what_it_lacks():
    results = torch.tensor([[4, 2, 7], [4, 2, -1], [-1, -1, -1]])
    found = ranks_from_results(results, torch.tensor([2, 7, 0]))
    assert found.tolist() == [1, MISSED, MISSED]
    assert recall_of(found, [1, 2, 1000]) == pytest.approx({1: 0, 2: 100 / 3, 1000: 100 / 3})


@unhurried
@given(searches())
def test_without_ties_a_sorted_result_list_has_the_recall_of_its_scores(search):
    _, target = search
    images = int(target.max()) + 1
    scores = torch.rand(len(target), images, dtype=torch.float64)
    order = scores.argsort(dim=1, descending=True)
    assert torch.equal(ranks_from_results(order, target), ranks(scores, target))


def test_hits_have_a_column_for_each_k():
    assert hits(torch.tensor([0, 4, MISSED]), [1, 5]).tolist() == [
        [True, True],
        [False, True],
        [False, False],
    ]


@st.composite
def result_lists(draw):
    queries = draw(st.integers(1, 4))
    place = st.integers(-1, 6)

    def lists(first):
        rows = st.lists(place, min_size=1, max_size=5).map(lambda row: [first, *row])
        rows = draw(st.lists(rows, min_size=queries, max_size=queries))
        width = max(map(len, rows))
        return torch.tensor([row + [-1] * (width - len(row)) for row in rows])

    return lists(draw(st.integers(0, 6))), lists(-1)


@unhurried
@given(result_lists())
def test_agreement_is_the_share_of_the_first_set_in_the_second(lists):
    top_a, top_b = lists
    shares = []
    for a, b in zip(top_a.tolist(), top_b.tolist(), strict=True):
        own = set(a) - {-1}
        shares.append(len(own & (set(b) - {-1})) / len(own))
    assert overlap(top_a, top_b).tolist() == pytest.approx(shares)
    assert agreement(top_a, top_b) == pytest.approx(100 * sum(shares) / len(shares))


@unhurried
@given(result_lists())
def test_a_search_agrees_with_itself_in_any_order(lists):
    top_a, _ = lists
    assert agreement(top_a, top_a.flip(1)) == 100.0


@pytest.mark.parametrize(
    ("scores", "target", "complaint"),
    [
        (torch.zeros(2), [0, 0], "queries, images"),
        (torch.zeros(0, 3), [], "no queries"),
        (torch.zeros(2, 3), [0], "one image per query"),
        (torch.zeros(2, 3), [0, 3], "0 to 2"),
        (torch.zeros(2, 3), [0, -1], "0 to 2"),
        (torch.zeros(2, 3), [0.0, 1.0], "integers"),
    ],
)
def test_recall_says_what_does_not_fit(scores, target, complaint):
    with pytest.raises(ValueError, match=complaint):
        recall(scores, target)


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_recall_refuses_a_k_that_is_no_count(k):
    with pytest.raises(ValueError, match="positive whole number"):
        recall(torch.zeros(1, 2), [0], [k])


def test_agreement_with_no_results_of_its_own_is_refused():
    with pytest.raises(ValueError, match="no result in top_a"):
        agreement(torch.tensor([[-1, -1]]), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match="same queries"):
        agreement(torch.zeros(2, 1, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long))
