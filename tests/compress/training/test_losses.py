"""The losses are their formulas, and are least where a search finds the same."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.training.held_out import agreement
from compress.training.losses import TEMPERATURE, affinity_loss, contrastive_loss, cosine_loss


def embeddings(seed: int, images: int = 30, length: int = 5) -> torch.Tensor:
    return torch.randn(images, length, generator=torch.Generator().manual_seed(seed)).double()


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_cosine_loss_is_its_formula():
    own, full = embeddings(0), embeddings(1)
    cosines = [float(a @ b) for a, b in zip(unit(own), unit(full), strict=True)]
    assert abs(float(cosine_loss(own, full)) - (1 - sum(cosines) / len(cosines))) < 1e-12


def test_affinity_loss_is_its_formula():
    own, full = unit(embeddings(0, 6)), unit(embeddings(1, 6))
    total = 0.0
    for query in range(6):
        others = [image for image in range(6) if image != query]
        wanted, found = (
            torch.stack([full[query] @ images[other] for other in others]) / TEMPERATURE
            for images in (full, own)
        )
        p, q = wanted.exp() / wanted.exp().sum(), found.exp() / found.exp().sum()
        total += float((p * (p / q).log()).sum())
    assert abs(float(affinity_loss(own, full)) - total / 6) < 1e-9


@given(st.integers(0, 100), st.floats(0.1, 10))
def test_no_loss_depends_on_lengths_and_both_are_zero_for_the_full_towers_directions(seed, scale):
    own, full = embeddings(seed), embeddings(seed + 1)
    for loss in (cosine_loss, affinity_loss):
        assert torch.isclose(loss(own * scale, full), loss(own, full / scale))
        assert abs(float(loss(full * scale, full))) < 1e-9
        assert loss(own, full) > 1e-3


def test_agreement_is_that_of_two_searches_by_the_full_towers_embeddings():
    own, full = embeddings(0, 40), embeddings(1, 40)
    shared = 0
    for query in range(40):
        others = [image for image in range(40) if image != query]
        found = [
            {*sorted(others, key=lambda image: -float(full[query] @ unit(images)[image]))[:10]}
            for images in (full, own)
        ]
        shared += len(found[0] & found[1])
    assert abs(agreement(own, full) - 100 * shared / 400) < 1e-9
    assert agreement(full * 3, full) == 100


def test_contrastive_loss_is_its_formula():
    own, texts = embeddings(2), embeddings(3)
    logits = unit(own) @ unit(texts).T / TEMPERATURE
    images = [float(logits[i, i] - logits[i].exp().sum().log()) for i in range(len(own))]
    captions = [float(logits[i, i] - logits[:, i].exp().sum().log()) for i in range(len(own))]
    wanted = -(sum(images) + sum(captions)) / (2 * len(own))
    assert abs(float(contrastive_loss(own, texts)) - wanted) < 1e-9


@given(st.integers(0, 1000))
def test_contrastive_loss_is_least_where_each_finds_its_own(seed):
    own = embeddings(seed)
    mixed = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))]
    assert contrastive_loss(own, own) <= contrastive_loss(own, mixed)
