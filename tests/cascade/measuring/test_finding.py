"""The m at which results are found is that from which on a cascade returns them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import Cascade
from cascade.measuring.finding import (
    NEVER,
    best_of_sample,
    first_ranking,
    found_at,
    ranks_in,
)
from cascade.searching.embeddings import Rows
from evaluation.retrieval import overlap
from tests.lanes import examples


class Table:
    """An encoder that looks images and queries up."""

    def __init__(self, name, images, queries):
        self.name = self.text_name = name
        self.images, self.queries = images, queries

    def encode_images(self, images):
        return self.images[[image() for image in images]]

    def encode_texts(self, texts):
        return self.queries[[int(text) for text in texts]]


def stages_of(seed, images, queries, coarse):
    """Two stages; with `coarse` numbers many scores are equal."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(count):
        if coarse:
            return torch.randint(-1, 2, (count, 2), generator=generator).float()
        return torch.randn(count, 6, generator=generator)

    return [Table(str(place), numbers(images), numbers(queries)) for place in range(2)]


def results(stages, m, images, queries, k, gone=()):
    cascade = Cascade(stages, m)
    cascade.index([lambda at=at: at for at in range(images)], keys=range(images))
    cascade.remove(gone)
    found = cascade.search_many([str(query) for query in range(queries)], k)
    return torch.tensor([[hit.key for hit in hits] for hits in found])


def measured(stages, images, gone, k):
    first, last = stages
    hidden = torch.tensor(sorted(gone), dtype=torch.int64)
    candidates = first_ranking(Rows.of(first.images), first.queries, images, hidden, None).positions
    there = torch.tensor([at for at in range(images) if at not in gone])
    best = best_of_sample(last.images[there], there, last.queries, k, None)
    return found_at(candidates, best, k, best.positions.shape[1] == len(there))


@given(
    st.integers(0, 10**6), st.integers(6, 30), st.integers(1, 4), st.sets(st.integers(0, 4)),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=examples(40, 400), deadline=None)
def test_agreement_is_that_of_a_cascade_and_never_more(seed, images, k, gone, coarse):
    queries, there = 5, images - len(gone & set(range(images)))
    k = min(k, there)
    stages = stages_of(seed, images, queries, coarse)
    found = measured(stages, images, gone, k)
    own = results([stages[1]], [], images, queries, k, gone)
    for m in range(k, there + 1):
        true = overlap(own, results(stages, [m], images, queries, k, gone)).numpy()
        said = found.agreements(m)
        assert (said <= true + 1e-12).all()
        if not coarse:
            assert np.allclose(said, true)


def test_copies_of_an_image_cost_nothing():
    stages = stages_of(0, 20, 5, coarse=False)
    for stage in stages:
        stage.images[10:] = stage.images[:10]
    found = measured(stages, 20, set(), 3)
    assert (found.at < NEVER).all()
    assert (found.agreements(20) == 1).all()


def test_an_image_that_is_a_query_is_not_its_own_result():
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=1)
    own = torch.tensor([3, 7, 7])
    candidates = first_ranking(Rows.of(images), images[own], 30, torch.tensor([5]), own).positions
    assert candidates.shape == (3, 28)
    assert not (candidates == own[:, None]).any()
    assert not (candidates == 5).any()
    none = torch.empty(0, dtype=torch.int64)
    few = first_ranking(Rows.of(images), images[own], 4, none, own).positions
    assert few.shape == (3, 4)
    sample = torch.tensor([0, 3, 7, 9, 20])
    best = best_of_sample(images[sample], sample, images[own], 2, own)
    assert best.positions.shape == (3, 4)
    assert not (best.positions == own[:, None]).any()
    scores = images[own] @ images[sample].T
    scores[sample == own[:, None]] = -9
    assert best.positions[:, 0].tolist() == sample[scores.argmax(dim=1)].tolist()


def test_ranks_begin_at_one_and_may_be_beyond_the_candidates():
    candidates = torch.tensor([[4, 2, 9], [1, 0, 3]])
    assert ranks_in(candidates, torch.tensor([[2, 5], [1, 3]])).tolist() == [[2, NEVER], [1, 3]]
