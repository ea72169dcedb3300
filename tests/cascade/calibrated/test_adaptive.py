"""A cascade that hands on as many candidates as each query needs, and says what it is sure of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cascade import Cascade, Collection
from cascade.calibrated.calibration import Certainty, Membership
from cascade.calibrated.certainty import Seen, chance, expected_chance
from cascade.calibrated.margins import candidates, membership
from tests.cascade.calibrated.pair import CALIBRATION, IMAGES, K, Near, stages
from tests.cascade.known import Known, number_of, numbered, on_disk

QUERIES = [str(number) for number in range(0, IMAGES, 4)]


def cascade(m=None, calibration=CALIBRATION, made=stages):
    found = Cascade(made(), m, calibration=calibration)
    found.index(range(IMAGES), keys=range(IMAGES))
    return found


def test_hits_are_those_of_the_m_that_was_chosen():
    auto = cascade("auto")
    queries = auto.encode_texts(QUERIES)
    handed_on = auto.handed_on(queries[0], K)
    assert len({len(positions) for positions in handed_on}) > 2
    together = auto.search_embeddings(queries, K)
    assert auto.encoded[1] == len(torch.cat(handed_on).unique())  # and nothing else was encoded
    fixed = cascade([K])
    for number, (hits, positions) in enumerate(zip(together, handed_on, strict=True)):
        alone = [each[number : number + 1] for each in queries]
        (expected,) = fixed.search_embeddings(alone, K, m=[len(positions)])
        assert hits == expected
        assert auto.search_embeddings(alone, K)[0] == hits  # whatever is searched beside it
        probabilities = [hit.probability for hit in hits]
        assert probabilities == pytest.approx([hit.probability for hit in expected])
        assert probabilities == sorted(probabilities, reverse=True)


chances = arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 20)),
    elements=st.integers(1, 1000).map(lambda number: number / 1000),
)
two_shares = st.tuples(*[st.integers(0, 1000).map(lambda number: number / 1000)] * 2)


@settings(max_examples=30)
@given(chances, two_shares, st.integers(1, 12))
def test_a_larger_target_never_hands_on_fewer(found, shares, k):
    found = -np.sort(-found, axis=1)
    low, high = (candidates(found, share, k) for share in sorted(shares))
    assert (low <= high).all()
    assert (low >= min(k, found.shape[1])).all()
    assert (high <= found.shape[1]).all()
    for row, chosen in zip(found, high, strict=True):  # by the definition, one after the other
        wanted = next(
            number
            for number in range(1, len(row) + 1)
            if number == len(row) or row[:number].sum() >= (max(shares) - 1e-12) * row.sum()
        )
        assert max(shares) >= 1 or chosen == min(max(wanted, k), len(row))


def test_the_chance_of_a_rank_falls_and_follows_the_formula():
    scores, spread = np.array([[0.9, 0.7, 0.4, 0.1]]), np.array([0.2])
    found = membership(scores, spread, 2, Membership(0.3, -0.8, -0.1, 1.5))
    x, z = np.log(4 / 2), (0.1 - 0.7) / 0.2
    expected = 1 / (1 + np.exp(-(0.3 - 0.8 * x - 0.1 * x**2 + 1.5 * z)))
    assert found[0, 3] == pytest.approx(expected)
    rising = membership(scores, spread, 2, Membership(0, 2, 0, 0))
    assert (np.diff(rising, axis=1) <= 0).all()  # a fit that says otherwise isn't believed


def test_what_is_unseen_is_counted_as_the_model_says():
    generator = np.random.default_rng(0)
    first = -np.sort(-generator.normal(size=(1, 60)))
    unseen = np.arange(60)[None] >= 20
    model = Certainty(0.8, 0.6, 0.0, 1.0)
    best = np.array([[2.0, 1.6, 1.3]])
    found = expected_chance(Seen(first, np.ones(1), unseen, best, np.array([0.1])), 3, model)
    drawn = 0.8 * first[:, 20:] + 0.1 + 0.6 * generator.normal(size=(50_000, 40))
    for column, score in enumerate(best[0]):
        outranked = (drawn > score).sum(axis=1)
        # many small chances, not quite Poisson
        assert found[0, column] == pytest.approx((outranked <= 2 - column).mean(), abs=0.03)


def test_where_all_is_seen_nothing_is_left_uncertain():
    found = cascade([IMAGES]).search("3", K)
    assert [hit.probability for hit in found] == [1.0] * K
    seen = Seen(np.ones((1, 4)), np.ones(1), np.zeros((1, 4), bool), np.ones((1, 4)), np.zeros(1))
    assert chance(seen, 2, CALIBRATION.certainty, whole=True).tolist() == [[1, 1, 0, 0]]


def test_probabilities_are_of_the_k_that_was_calibrated_and_of_such_a_collection():
    made = cascade([10])
    assert all(hit.probability is not None for hit in made.search("0", K))
    assert all(hit.probability is None for hit in made.search("0", K + 1))
    assert all(hit.probability is None for hit in made.search("0", K - 1))
    made.remove(range(IMAGES // 2, IMAGES))
    assert all(hit.probability is not None for hit in made.search("0", K))
    made.remove([1])
    assert all(hit.probability is None for hit in made.search("0", K))
    assert all(hit.probability is None for hit in cascade([10], None).search("0", K))


def test_refined_hits_are_surer_than_others():
    made = cascade([8])
    before = made.search("7", K, refined=True)
    made.search_many(QUERIES, K)
    after = made.search("7", K, refined=True)
    full = {hit.key for hit in cascade([IMAGES]).search("7", K)}
    assert {hit.key for hit in after} == full
    assert sum(hit.probability for hit in after) > sum(hit.probability for hit in before)


@pytest.mark.parametrize(
    ("calibration", "k", "said"),
    [
        (None, K, "needs a calibration: make one with python -m evaluation.plan COLLECTION --m"),
        (replace(CALIBRATION, stages=("other", "known 1")), K, "learnt from other stages"),
        (replace(CALIBRATION, images=2 * IMAGES + 1), K, "were 121 images, and now are 60"),
        (CALIBRATION, K + 1, "was calibrated for k = 5, not for 6"),
    ],
)
def test_what_it_does_not_belong_to_is_refused_in_a_line(calibration, k, said):
    made = cascade([10], calibration)
    with pytest.raises(ValueError, match=said) as refused:
        made.search_embeddings(made.encode_texts(["0"]), k, m="auto")
    assert "\n" not in str(refused.value)
    if calibration is None or calibration.stages[0] == "other":
        with pytest.raises(ValueError, match=said):
            Cascade(stages(), "auto", calibration=calibration)


def test_fewer_results_than_were_calibrated_have_as_many_candidates():
    made = cascade("auto")
    (query, _) = made.encode_texts(QUERIES[:9])
    pairs = zip(made.handed_on(query, 1), made.handed_on(query, K), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_unreadable_images_are_no_results_of_adaptive_searches():
    full = Known(1, IMAGES, unreadable=[3, 4])
    made = cascade("auto", made=lambda: [Near(full), full])
    hits = made.search("3", K)
    assert len(hits) == K
    assert not {3, 4} & {hit.key for hit in hits if hit.stage == 1}


@pytest.mark.parametrize("kind", ["memory", "lance"])
def test_a_collection_keeps_it(kind, tmp_path):
    if kind == "lance":
        pytest.importorskip("lancedb")
        collection = on_disk(tmp_path / "c", stages(), [10], precision="float32")
    else:
        collection = Collection.in_memory(stages(), [10], "float32", opener=number_of)
    expected = cascade("auto").search_many(QUERIES, K)
    keys = [[f"image {hit.key}" for hit in hits] for hits in expected]
    with collection:
        collection.add(numbered(range(IMAGES)))
        collection.adopt([12], None, CALIBRATION)
        queries = collection.encode_texts(QUERIES)
        found = collection.search_embeddings(queries, K, m="auto")
        assert [[hit.key for hit in hits] for hits in found] == keys
        assert len(collection.search_embeddings(queries, K)[0]) == K
        collection.adopt([9])  # what was learnt stays
        assert collection.calibration == CALIBRATION
        with pytest.raises(ValueError, match="other stages"):
            collection.adopt([9], None, replace(CALIBRATION, stages=("a", "b")))
    if kind == "lance":
        with Collection.open(tmp_path / "c", stages(), "auto", opener=number_of) as again:
            assert (again.auto, again.m, again.calibration) == (True, (40,), CALIBRATION)
            found = again.search_many(QUERIES, K)
            assert [[hit.key for hit in hits] for hits in found] == keys
        with Collection.open(tmp_path / "c", stages(), opener=number_of) as fixed:
            assert (fixed.auto, fixed.m) == (False, (9,))


def test_a_collection_without_one_is_not_opened_so(tmp_path):
    pytest.importorskip("lancedb")
    on_disk(tmp_path / "c", stages(), [10]).close()
    with pytest.raises(ValueError, match="needs a calibration"):
        Collection.open(tmp_path / "c", stages(), "auto")
