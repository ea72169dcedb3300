"""Answers are those of the definition, in memory that doesn't grow with queries times images."""

import sys

import pytest
import torch
from torch.nn.functional import normalize

from cascade import Cascade
from evaluation.experiment.quality import (
    AGREEMENT_AT,
    Queries,
    Remembered,
    answers_alone,
    answers_of,
)
from evaluation.retrieval import ranks
from tests.fresh import python

UNDER_A_LIMIT = """
import resource, sys, torch
from evaluation.experiment.quality import answers_alone
torch.set_num_threads(1)
queries, images = torch.randn(2_500, 4), torch.randn(40_000, 4)
answers_alone(queries[:500], images, torch.zeros(500).long())  # whatever is loaded once
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300_000_000,) * 2)
found = answers_alone(queries, images, torch.arange(2_500))
print(tuple(found.top.shape), len(found.ranks))
"""


def test_an_ordinary_search_gives_the_best_and_the_ranks():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(40, 6, generator=generator)
    queries = torch.randn(25, 6, generator=generator)
    target = torch.randint(0, 40, (25,), generator=generator)
    found = answers_alone(queries, images, target)
    scores = queries.double() @ images.double().T
    assert torch.equal(found.top, scores.argsort(dim=1, descending=True)[:, :AGREEMENT_AT])
    assert torch.equal(found.ranks, ranks(scores, target))


def test_a_cascade_of_one_stage_answers_as_an_ordinary_search_does_ties_included():
    images = normalize(torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    images = images.repeat(3, 1)  # every picture three times
    texts = {str(number): images[number] for number in range(20)}
    known = Remembered("known", "texts", images, texts)
    cascade = Cascade([known])
    cascade.index(range(90), keys=range(90))
    queries = Queries(tuple(texts), torch.arange(20))
    alone = answers_alone(known.encode_texts(queries.texts), images, queries.target)
    assert torch.equal(answers_of(cascade, queries).top, alone.top)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on memory")
def test_scores_of_all_queries_and_images_are_never_held():
    """2,500 × 40,000 scores take 400 MB; the run may take 300."""
    run = python("-c", UNDER_A_LIMIT)
    assert run.stdout.strip() == "(2500, 10) 2500"
