"""Turned heads are the same heads, and no other choice of so few dimensions loses less."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.calibrating.calibration import Calibration
from compress.calibrating.moments import dense_moments
from compress.calibrating.token_weights import TokenWeights
from compress.errors import UserError
from compress.solving.head_dims import query_key_basis, rotate_tower, turn, value_basis
from compress.solving.repair import repair_tower
from corpora import load_corpus
from pruning_mechanism import Mask, Tower, image_embeddings, load, load_processor, prune, sublayers
from tests.compress.conftest import Pairs
from tests.compress.losses import embedding_loss
from tests.compress.solving.test_repair import Images
from tests.compress.test_towers import CAUSAL, Texts, each_tower
from tests.conftest import tiny_clip
from tests.lanes import thorough_only
from tests.pruning_mechanism.conftest import tiny_inputs, tiny_model

SIZE = 4


def rows(seed: int, count: int = 12) -> torch.Tensor:
    """Correlated vectors [count, SIZE] in float64, not centred on 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    return torch.randn(count, SIZE, generator=generator, dtype=torch.float64) @ mixing + 0.5


def centred(vectors: torch.Tensor) -> torch.Tensor:
    return vectors - vectors.mean(0)


def moments(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.T @ vectors


def tail(values: torch.Tensor, rank: int) -> float:
    return values[rank:].square().sum().item()


@given(seed=st.integers(0, 10**6))
def test_logits_of_all_dimensions_stay_and_of_r_are_off_by_the_tail(seed):
    q, k = rows(seed), centred(rows(seed + 1))
    query, key, values = query_key_basis(moments(q), moments(k))
    torch.testing.assert_close(query @ key.T, torch.eye(SIZE).double(), rtol=1e-7, atol=1e-7)
    scale = values.square().sum().item()
    for rank in range(SIZE + 1):
        kept = (q @ query)[:, :rank] @ (k @ key)[:, :rank].T
        error = (q @ k.T - kept).square().sum().item()
        assert error / scale == pytest.approx(tail(values, rank) / scale, rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 10**6), rank=st.integers(1, SIZE - 1))
def test_no_subset_of_dimensions_has_better_logits_however_compensated(seed, rank):
    """CORP: keep a subset of the dimensions, and put the best matrix between queries and keys."""
    q, k = rows(seed), centred(rows(seed + 1))
    *_, values = query_key_basis(moments(q), moments(k))
    logits = q @ k.T
    errors = []
    for subset in map(list, itertools.combinations(range(SIZE), rank)):
        between = torch.linalg.pinv(q[:, subset]) @ logits @ torch.linalg.pinv(k[:, subset]).T
        errors.append((logits - q[:, subset] @ between @ k[:, subset].T).square().sum().item())
    assert tail(values, rank) <= min(errors) + 1e-6 * logits.square().sum().item()


@given(seed=st.integers(0, 10**6), rank=st.integers(0, SIZE))
def test_r_values_are_off_by_the_tail_and_no_compensated_subset_by_less(seed, rank):
    context = centred(rows(seed))
    weight = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(seed)).double()
    basis, values = value_basis(moments(context), weight)
    output = context @ weight
    scale = output.square().sum().item()
    kept = (context @ basis)[:, :rank] @ torch.linalg.solve(basis, weight)[:rank]
    error = (output - kept).square().sum().item()
    assert error / scale == pytest.approx(tail(values, rank) / scale, rel=1e-5, abs=1e-6)
    for subset in map(list, itertools.combinations(range(SIZE), rank)):
        best = context[:, subset] @ (torch.linalg.pinv(context[:, subset]) @ output)
        assert error <= (output - best).square().sum().item() + 1e-6 * scale


def test_heads_are_turned_each_by_itself():
    q, k = torch.stack([rows(0), rows(2)]), torch.stack([rows(1), rows(3)])
    both = query_key_basis(q.mT @ q, k.mT @ k)
    for head in range(2):
        alone = query_key_basis(moments(q[head]), moments(k[head]))
        torch.testing.assert_close(both[0][head] @ both[1][head].T, torch.eye(SIZE).double())
        torch.testing.assert_close(both[2][head], alone[2])


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_dimensions_that_were_never_seen_turn_as_well(seen):
    """Fewer tokens than dimensions, or none: bases are invertible, what was seen comes first."""
    q, k = rows(0, count=seen), rows(1)
    query, key, values = query_key_basis(moments(q), moments(k))
    torch.testing.assert_close(query @ key.T, torch.eye(SIZE).double(), rtol=1e-6, atol=1e-6)
    if seen:
        assert tail(values, seen) < 1e-6 * tail(values, 0)
    basis, values = value_basis(moments(q), torch.zeros(SIZE, 6))
    assert torch.linalg.cond(basis) < 1e6
    assert tail(values, 0) == 0


def test_more_values_than_outputs_are_refused():
    with pytest.raises(ValueError, match="4 is more than its 3 outputs"):
        value_basis(torch.eye(4), torch.zeros(4, 3))


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("images", [1, 12])
def test_the_turned_tower_is_the_dense_one(images, dead):
    model, batches = tiny_clip(3), Images(images, 1)
    if dead:
        with torch.no_grad():
            for part in sublayers(model)[::2]:
                for projection in (part.body.q_proj, part.body.v_proj):
                    projection.weight[:6] = 0  # one head and half of another
                    projection.bias[:6] = 0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    turned = rotate_tower(Tower.of(model), batches.batches()).tower
    unseen = Images(20, 2).pixels
    found, expected = turned.embeddings(unseen), image_embeddings(model, unseen)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@each_tower
def test_the_turned_tower_is_the_dense_one_for_every_family(family, kind):
    tower, unseen = Tower.of(tiny_model(family), kind), tiny_inputs(kind, 8, seed=2)
    turned = rotate_tower(tower, Pairs(12, 1).batches()).tower
    assert not torch.equal(*(each.sublayers[0].body.q_proj.weight for each in (turned, tower)))
    with torch.no_grad():
        found, expected = turned.embeddings(unseen), tower.embeddings(unseen)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_what_comes_after_the_end_of_a_text_turns_no_head(family):
    tower = Tower.of(tiny_model(family), "text")
    short, long = (rotate_tower(tower, Texts(24, 1, more).batches()) for more in (0, 6))
    for name in ("query_key_values", "value_values"):
        ours, theirs = getattr(short, name), getattr(long, name)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def logits_and_outputs(part, hidden):
    """Of each head, centred as the definition says: logits [H, b, n, n], outputs [H, b * n, d]."""
    heads = part.units
    normed, context = part.norm(hidden), part.features(hidden).double()
    q, k = (
        each(normed).double().unflatten(-1, (heads, -1)).transpose(1, 2)
        for each in (part.body.q_proj, part.body.k_proj)
    )
    c = context.unflatten(-1, (heads, -1)).flatten(0, 1).transpose(0, 1)
    weight = part.output.weight.double().T.unflatten(0, (heads, -1))
    return q, k - k.mean(2, keepdim=True), c - c.mean(1, keepdim=True), weight


@torch.no_grad()
def test_the_singular_values_are_what_the_tower_loses():
    """The error of two dimensions, computed afresh from the turned tower's own activations."""
    model, images = tiny_clip(4), Images(10, 1)
    rotated = rotate_tower(Tower.of(model), images.batches())
    part = rotated.tower.sublayers[0]
    hidden = rotated.tower.embed(images.pixels)
    q, k, c, weight = logits_and_outputs(part, hidden)
    for head in range(part.units):
        queries, keys = q[:, head, :, 2:].flatten(0, 1), k[:, head, :, 2:].flatten(0, 1)
        lost = (queries @ keys.T).square().sum().item()  # every query with every key
        assert lost == pytest.approx(tail(rotated.query_key_values[0, head], 2), rel=1e-3)
        lost = (c[head][:, 2:] @ weight[head, 2:]).square().sum().item()
        assert lost == pytest.approx(tail(rotated.value_values[0, head], 2), rel=1e-3)


@thorough_only
@torch.no_grad()
def test_the_end_of_a_trained_tower_s_turned_heads_is_worth_far_less(shared):
    directory = shared / "models" / "clip-photos"
    model = load(directory)
    dense = Tower.of(model)
    corpus = load_corpus("folder", shared / "corpora" / "flickr8k", "train")
    images = Calibration.draw(corpus, 32, 0, load_processor(directory))
    every, size = Mask.dense(model.config), 16
    first = (torch.arange(size) < size // 2).expand(12, size)
    mask = Mask(every.heads, every.neurons, first, first)

    def loss(tower):
        smaller = Tower.of(prune(tower.model, mask))
        repair_tower(tower, smaller, images)
        return embedding_loss(dense, smaller, images)

    assert loss(rotate_tower(dense, images.batches()).tower) < 0.1 * loss(dense)


def test_moments_turn_with_the_tower():
    model, images = tiny_clip(6), Images(10, 1)
    rotated = rotate_tower(Tower.of(model), images.batches())
    before = dense_moments(Tower.of(model), images.batches())
    after = dense_moments(rotated.tower, images.batches())
    for layer in range(3):
        found, expected = turn(before[2 * layer], rotated.value_bases[layer]), after[2 * layer]
        for name in ("xx", "xt"):
            wanted = getattr(expected, name)
            torch.testing.assert_close(
                getattr(found, name), wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item()
            )
        assert found.tt == pytest.approx(expected.tt, rel=1e-4)


def test_a_query_that_weighs_nothing_is_not_heard():
    """With all weight on the pooled token, the singular values are those of its queries alone."""
    model, images = tiny_clip(7), Images(10, 1)
    pooled = [TokenWeights(1.0, 0.0)] * 6
    found = rotate_tower(Tower.of(model), images.batches(), pooled)
    part = sublayers(model)[0]
    with torch.no_grad():
        hidden = model.vision_model.pre_layrnorm(model.vision_model.embeddings(images.pixels))
        q, k, _, _ = logits_and_outputs(part, hidden)
        for head in range(part.units):
            logits = q[:, head, 0] @ k[:, head].flatten(0, 1).T
            total = tail(found.query_key_values[0, head], 0)
            assert logits.square().sum().item() == pytest.approx(total, rel=1e-3)


def test_a_damaged_checkpoint_is_named():
    model = tiny_clip()
    sublayers(model)[2].body.k_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(UserError, match="not finite from the heads of layer 1 on"):
        rotate_tower(Tower.of(model), Images(4, 1).batches())
