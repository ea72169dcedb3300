"""What a cutoff says of searches: where it holds, where it says nothing, and that it lasts."""

import copy
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from cascade import Cascade, Collection, CollectionError, Hits
from cascade.answers import Terms as Asked
from cascade.answers import Wanted
from cascade.calibrated.cutoff import Cutoff
from cascade.collecting.record import FILE, Record
from cascade.queries import answered
from tests.cascade.calibrated.pair import CALIBRATION, IMAGES, K, stages
from tests.cascade.known import number_of, numbered, on_disk

M = 12
CUTOFF = Cutoff(
    stages=("near", "known 1"),
    score="best",
    threshold=0.5,
    m=M,
    rejects=0.05,
    caught=0.6,
    caught_at_least=0.5,
    confidence=0.95,
    queries=300,
    tested=300,
    of="captions",
    against="others",
    images=IMAGES,
)


def cascade(cutoff=CUTOFF, m=M, images=IMAGES):
    made = Cascade(stages(), [m], cutoff=cutoff)
    made.index(range(images))
    return made


@pytest.mark.parametrize("score", ["best", "standardised"])
def test_it_is_the_best_hit_that_is_compared(score):
    """With scores by their definition, in float64."""
    made, first = cascade(), stages()[0]
    vectors = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    queries = [torch.nn.functional.normalize(vectors, dim=1)] * 2
    best = np.asarray([hits[0].score for hits in made.search_embeddings(queries, K)])
    if score == "standardised":
        scores = (queries[0].double() @ first.table.double().T).numpy()
        best = (best - scores.mean(axis=1)) / scores.std(axis=1)
    threshold = float(np.sort(best)[7:9].mean())
    searched = cascade(replace(CUTOFF, score=score, threshold=threshold))
    found = searched.search_embeddings(queries, K)
    assert [hits.matches for hits in found] == (best > threshold).tolist()
    assert [hits.matches for hits in found].count(False) == 8
    assert found == made.search_embeddings(queries, K)  # hits are the same, whatever it says
    for place in range(0, 20, 5):  # and what it says of one is what it says of it among others
        (alone,) = searched.search_embeddings([vector[[place]] for vector in queries], 1)
        assert alone.matches == found[place].matches


def test_it_says_nothing_where_it_does_not_belong():
    def said(made, **how):
        (hits,) = made.search_embeddings(made.encode_texts(["3"]), K, **how)
        return hits.matches

    assert said(cascade()) is True
    assert said(cascade(replace(CUTOFF, threshold=1.5))) is False
    assert said(cascade(replace(CUTOFF, stages=("near", "another")))) is None
    assert said(cascade(m=M - 1)) is None
    assert said(cascade(m=M + 1)) is True
    assert said(cascade(), m=[M - 1]) is None
    assert said(cascade(), refined=True) is True
    assert said(cascade(replace(CUTOFF, m="auto"))) is None
    assert said(cascade(images=IMAGES // 2 - 1)) is None
    assert said(cascade(images=IMAGES // 2)) is True
    assert said(cascade(None)) is None
    assert cascade(images=0).search("3", K).matches is None


def test_hits_are_a_list_that_can_be_copied_and_pickled():
    hits = cascade().search("3", K)
    assert isinstance(hits, list)
    for other in (copy.copy(hits), pickle.loads(pickle.dumps(hits))):
        assert (other, other.matches) == (hits, True)
    assert Hits().matches is None


def test_examples_and_sums_of_texts_are_not_judged():
    """Images score otherwise with images than texts do."""
    with Collection.in_memory(stages(), [M], opener=number_of) as collection:
        collection.add(numbered(range(IMAGES)))
        collection.adopt([M], None, None, CUTOFF)

        def said(**wanted):
            return answered(collection, Wanted("it", **wanted), Asked(k=K)).matches

        assert said(texts=["3"]) is True
        assert said(texts=["3", "4"]) is None
        assert said(texts=["3"], without=["4"]) is None


def test_it_lasts_and_what_a_later_plan_does_not_learn_stays(tmp_path):
    with on_disk(tmp_path / "c", stages(), [M]) as collection:
        collection.add(numbered(range(IMAGES)))
        with pytest.raises(ValueError, match="cutoff can't be used: it was learnt from other"):
            collection.adopt([M], None, None, replace(CUTOFF, stages=("a", "b")))
        collection.adopt([M], None, None, CUTOFF)
        assert collection.search("3", K).matches is True
        collection.adopt([M + 1])
    with Collection.open(tmp_path / "c", stages(), opener=number_of) as again:
        assert again.cutoff == CUTOFF
        assert again.search("3", K).matches is True
    record = tmp_path / "c" / FILE
    entries = json.loads(record.read_text())
    record.write_text(json.dumps({**entries, "format": 2, "cutoff": None}))
    assert Record.read(tmp_path / "c").cutoff is None
    del entries["cutoff"]
    record.write_text(json.dumps({**entries, "format": 1}))  # as earlier versions wrote it
    with Collection.open(tmp_path / "c", stages(), opener=number_of) as old:
        assert old.search("3", K).matches is None
    strange = {**entries, "cutoff": {"score": "worst", "stages": []}}
    record.write_text(json.dumps(strange))
    with pytest.raises(CollectionError, match=r"damaged \(a cutoff on the score 'worst'"):
        Record.read(tmp_path / "c")


def test_who_has_it_open_takes_over_what_another_process_has_planned(tmp_path):
    with on_disk(tmp_path / "c", stages(), [M]) as collection:
        collection.add(numbered(range(IMAGES)))

    def opened(**how):
        return Collection.open(tmp_path / "c", stages(), opener=number_of, **how)

    with opened() as server, opened(m=[M + 5]) as other:
        assert server.search("3", K).matches is None
        with opened() as planner:
            planner.adopt([M + 1], None, CALIBRATION, CUTOFF)
        for each in (server, other):
            each._refreshed = 0.0  # as if it had not looked for a while
            assert each.search("3", K).matches is True
            assert each.calibration == CALIBRATION
            (hits,) = each.search_embeddings(each.encode_texts(["3"]), K, m="auto")
            assert hits.matches is None
        assert (server.m, server.status().m) == ((M + 1,), (M + 1,))
        assert other.m == (M + 5,)  # it was asked for
        assert server.remove(["image 0"]) == 1  # and may still write
