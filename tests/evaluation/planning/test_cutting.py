"""A cutoff rejects no more than it says, is offered where a score tells, and only there."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom

from cascade import Collection, ImageRow
from cascade.calibrated.cutoff import Cutoff
from cascade.searching.ranking import NOTHING, Ranking
from evaluation.planning.conformal import (
    rejected_at_most,
    scores_needed,
    share_at_least,
    threshold,
)
from evaluation.planning.cutting import (
    TIMES,
    Handing,
    Texts,
    caption_texts,
    cutoff_of,
    measured_cutoff,
    told,
    without,
)
from tests.cascade.calibrated.pair import CALIBRATION
from tests.cascade.known import Known, number_of
from tests.lanes import examples

SHARE, CONFIDENCE = 0.1, 0.9


@pytest.mark.parametrize(("number", "share", "confidence"), [(50, 0.1, 0.9), (300, 0.05, 0.95)])
def test_a_threshold_has_no_more_below_it_than_is_allowed(number, share, confidence):
    """The share below the r-th of n uniform numbers is Beta(r, n + 1 - r): the chance is exact."""
    rank = rejected_at_most(number, share, confidence)
    assert beta.cdf(share, rank, number + 1 - rank) >= confidence
    assert beta.cdf(share, rank + 1, number - rank) < confidence
    assert binom.sf(rank - 1, number, share) == pytest.approx(
        beta.cdf(share, rank, number + 1 - rank)
    )
    scores = np.random.default_rng(0).permutation(number).astype(float)
    assert threshold(scores, share, confidence) == rank - 1


@pytest.mark.parametrize("draw", ["normal", "coins"])
def test_it_holds_as_often_as_is_said_whatever_scores_are_like(draw):
    generator = np.random.default_rng(2)
    draws, missed = examples(400, 10_000), 0
    for _ in range(draws):
        scores = (
            generator.normal(size=80) if draw == "normal" else generator.integers(0, 4, 80) / 1.0
        )
        limit = threshold(scores, SHARE, CONFIDENCE)
        below = (
            0.5 * (1 + torch.erf(torch.tensor(limit / 2**0.5))).item()
            if draw == "normal"
            else limit / 4
        )
        missed += below > SHARE
    assert missed <= (1 - CONFIDENCE) * draws + 2 * (draws * CONFIDENCE * (1 - CONFIDENCE)) ** 0.5


def test_too_few_scores_have_no_threshold_and_it_is_known_how_many_do():
    needed = scores_needed(SHARE, CONFIDENCE)
    assert threshold(np.arange(needed, dtype=float), SHARE, CONFIDENCE) == 0.0
    assert threshold(np.arange(needed - 1, dtype=float), SHARE, CONFIDENCE) is None
    with pytest.raises(ValueError, match="too few"):
        told({"best": np.ones(9)}, {"best": np.ones(9)}, SHARE, CONFIDENCE, 0)


def test_the_bound_of_a_share_is_clopper_and_pearsons():
    assert share_at_least(0, 9, 0.95) == 0
    assert share_at_least(9, 9, 0.95) == pytest.approx(0.05 ** (1 / 9))
    low = share_at_least(30, 100, 0.95)
    assert binom.sf(29, 100, low) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="no bound"):
        share_at_least(0, 0, 0.95)


def test_a_score_that_tells_nothing_is_not_offered_and_one_that_does_is():
    """Of a thousand draws without any signal hardly one is offered."""
    generator = np.random.default_rng(0)
    useful = {0.0: 0, 2.5: 0}
    draws = examples(100, 1000)
    for shift in useful:
        for seed in range(draws):
            high = {"best": generator.normal(size=300), "standardised": generator.normal(size=300)}
            low = {
                "best": generator.normal(size=300) - shift,
                "standardised": generator.normal(size=300),
            }
            found = told(high, low, SHARE, CONFIDENCE, seed)
            useful[shift] += found.useful(SHARE)
            if shift:
                assert found.score == "best"
    assert useful[0.0] == 0
    assert useful[2.5] == draws


def test_the_shares_told_are_those_of_queries_that_nothing_was_learnt_from():
    generator = np.random.default_rng(3)
    high, low = generator.normal(2, 1, 900), generator.normal(0, 1, 900)
    found = told({"best": high}, {"best": low}, SHARE, CONFIDENCE, 0)
    assert (found.queries, found.tested) == (300, 300)
    assert found.caught_at_least < found.caught
    assert found.caught == pytest.approx((low < found.threshold).mean(), abs=0.1)
    assert found.rejected == pytest.approx((high < found.threshold).mean(), abs=0.05)
    assert found.useful(SHARE) == (found.caught_at_least >= TIMES * SHARE)


def test_a_ranking_without_some_images_is_that_of_a_collection_without_them():
    positions = torch.tensor([[4, 2, 0, 1], [1, 3, 2, 0]])
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]] * 2)
    found = without(Ranking(positions, scores), [[2], [1, 3, 2]], 3)
    assert found.positions.tolist() == [[4, 0, 1], [0, NOTHING, NOTHING]]
    assert found.scores[0].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert found.scores[1].isneginf().tolist() == [False, True, True]


IMAGES, DIMENSION = 240, 12
KINDS = 40
"""Images come in so many kinds, all of one caption."""


class Kinds(Known):
    """A tower that embeds an image near its kind's text, or anywhere if it has learnt nothing."""

    def __init__(self, seed, noise):
        super().__init__(seed, IMAGES, DIMENSION)
        self.texts = Known(77, KINDS, DIMENSION).table
        of_kinds = self.texts[torch.arange(IMAGES) % KINDS]
        table = self.table if noise is None else of_kinds + noise * self.table
        self.table = torch.nn.functional.normalize(table, dim=1)
        self.text_name = "kinds"

    def encode_texts(self, texts):
        return self.texts[[int(text.split()[-1]) for text in texts]]


def captioned_collection(noise):
    stages = [Kinds(1, noise), Kinds(2, noise)]
    made = Collection.in_memory(stages, [10], "float32", opener=number_of)
    made.add(
        ImageRow(f"{at}", str(at), metadata=f'{{"captions": "{text_of(at)}"}}')
        for at in range(IMAGES)
    )
    return made


def text_of(image):
    """Written in two ways."""
    return f"{'Kind  ' if image % 3 else 'kind '}{image % KINDS}"


def test_captions_and_what_is_hidden_from_them():
    with captioned_collection(0.3) as collection:
        texts = caption_texts(collection, 50, 0)
    for text, hidden in zip(texts.unmatched, texts.hidden, strict=True):
        kind = int(text.split()[-1])
        assert hidden == {str(at) for at in range(IMAGES) if at % KINDS == kind}
    assert texts.matching == texts.unmatched
    assert len(texts.matching) == 50
    with Collection.in_memory([Kinds(1, None), Kinds(2, None)], opener=number_of) as bare:
        bare.add([ImageRow("0", "0")])
        assert caption_texts(bare, 5, 0) is None


def test_the_cutoff_of_a_tower_that_tells_is_kept_by_searches():
    with captioned_collection(0.3) as collection:
        texts, handing = caption_texts(collection, 600, 1), Handing(10)
        found = measured_cutoff(collection, texts, handing, SHARE, CONFIDENCE, 0)
        assert found.useful(SHARE)
        cutoff = cutoff_of(found, collection, texts, handing, SHARE, CONFIDENCE)
        assert Cutoff.of_entries(asdict(cutoff)) == cutoff
        collection.adopt([10], None, None, cutoff)
        every = [f"kind {kind}" for kind in range(KINDS)]
        before = collection.search_many(every, 5)
        assert np.mean([hits.matches is False for hits in before]) <= SHARE
        for kind in (3, 8):
            collection.remove([str(at) for at in range(IMAGES) if at % KINDS == kind])
        hits = collection.search_many(every, 5)
        assert [hits[kind].matches for kind in (3, 8)] == [False, False]
        assert all(len(each) == 5 for each in hits)  # they are shown all the same
        fewer = collection.search_embeddings(collection.encode_texts(every), 5, m=[9])
        assert {each.matches for each in fewer} == {None}  # what it says isn't certified for these
        more = collection.search_embeddings(collection.encode_texts(every), 5, m=[20])
        assert None not in {each.matches for each in more}
        assert sum(each.matches for each in more) >= sum(each.matches for each in hits)


def test_a_tower_that_has_learnt_nothing_gets_no_cutoff():
    with captioned_collection(None) as collection:
        texts = caption_texts(collection, 600, 1)
        found = measured_cutoff(collection, texts, Handing(10), SHARE, CONFIDENCE, 0)
    assert not found.useful(SHARE)
    assert abs(found.caught - found.rejected) < 0.15


def test_texts_that_nothing_matches_may_be_given_and_m_be_chosen_for_each_query():
    with captioned_collection(0.3) as collection:
        gone = [str(at) for at in range(IMAGES) if at % KINDS >= 20]
        collection.remove(gone)
        generator = np.random.default_rng(0)
        matching, unmatched = (
            [f"kind {kind}" for kind in generator.integers(low, low + 20, 150)] for low in (0, 20)
        )
        texts = Texts(matching, unmatched, [frozenset()] * 150, "these", "those")
        names = tuple(stage.name for stage in collection.stages)
        learnt = type(CALIBRATION)(**{**vars(CALIBRATION), "stages": names, "images": 120})
        handing = Handing(10, learnt)
        found = measured_cutoff(collection, texts, handing, SHARE, CONFIDENCE, 0)
        assert found.useful(SHARE)
        cutoff = cutoff_of(found, collection, texts, handing, SHARE, CONFIDENCE)
        assert (cutoff.m, cutoff.against) == ("auto", "those")
        collection.adopt([10], None, learnt, cutoff)
        embedded = collection.encode_texts(["kind 5", "kind 25"])
        auto = collection.search_embeddings(embedded, 5, m="auto")
        assert [hits.matches for hits in auto] == [True, False]
        fixed = collection.search_embeddings(embedded, 5, m=[10])
        assert [hits.matches for hits in fixed] == [None, None]


def test_scores_are_those_of_searches():
    """The best hit's, and that in standard deviations of all of the query's first scores."""
    with captioned_collection(0.5) as collection:
        texts = ["kind 1", "kind 30"]
        given = Texts(texts * 90, texts * 90, [frozenset()] * 180, "", "")
        told_of = measured_cutoff(collection, given, Handing(7), 0.5, CONFIDENCE, 0)
        hits = collection.search_embeddings(collection.encode_texts(texts), 1, m=[7])
        assert told_of.score == "best"  # they tell equally little
        assert told_of.threshold in [each[0].score for each in hits]
