"""The choice and the merging of tokens, against loops written from the papers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from pruning_mechanism.modeling.tokens import (
    bayer,
    complexity,
    grid_patches,
    keep_ranked,
    match,
    merge,
    mergeable,
    random_patches,
    resized,
    salient_patches,
)

GRIDS = [(2, 2), (4, 4), (6, 10), (7, 7), (14, 14), (16, 16), (5, 9)]
seeds = st.integers(0, 10**6)


def tokens_of(seed: int, tokens: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Random tokens [b, n, 5] and sizes [b, n] from 1 to 4."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, tokens, 5, generator=generator)
    return hidden, torch.randint(1, 5, (batch, tokens), generator=generator).float()


def board(rows: int, columns: int, keep: int) -> Tensor:
    """The grid with 1 where a patch is kept."""
    places = torch.zeros(rows * columns)
    places[grid_patches(rows, columns, keep)] = 1
    return places.view(rows, columns)


def spread_over(places: Tensor, side: int) -> int:
    """How many more patches are kept in one square of that side than in another."""
    kept = places.unfold(0, side, side).unfold(1, side, side).sum((2, 3))
    return int(kept.max() - kept.min())


@pytest.mark.parametrize(("rows", "columns"), GRIDS)
@pytest.mark.parametrize("rule", [grid_patches, lambda *size: random_patches(*size, seed=3)])
def test_so_many_distinct_patches_are_kept_in_order(rows, columns, rule):
    for keep in range(1, rows * columns + 1):
        kept = rule(rows, columns, keep).tolist()
        assert kept == sorted(set(kept))
        assert len(kept) == keep
        assert 0 <= kept[0] <= kept[-1] < rows * columns


@pytest.mark.parametrize(("rows", "columns"), [(r, c) for r, c in GRIDS if not (r % 2 or c % 2)])
def test_half_of_an_even_grid_is_a_chequered_board(rows, columns):
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    found = board(rows, columns, rows * columns // 2)
    assert torch.equal(found, (row + column + 1).remainder(2).float())


def test_a_quarter_of_a_grid_is_every_second_patch_of_every_second_row():
    expected = torch.zeros(14, 14)
    expected[::2, ::2] = 1
    assert torch.equal(board(14, 14, 49), expected)


@pytest.mark.parametrize("side", [2, 4, 8])
def test_no_square_of_a_grid_keeps_more_than_one_patch_more_than_another(side):
    for keep in range(1, 257):
        assert spread_over(board(16, 16, keep), side) <= 1


def test_no_two_by_two_square_of_a_vit_grid_keeps_more_than_one_patch_more_than_another():
    for keep in range(1, 197):
        assert spread_over(board(14, 14, keep), 2) <= 1


def test_more_kept_patches_are_those_before_and_others():
    for keep in range(1, 196):
        assert (board(14, 14, keep) <= board(14, 14, keep + 1)).all()


def test_the_bayer_matrix_is_that_of_ordered_dithering():
    assert bayer(1).tolist() == [[0, 2], [3, 1]]
    assert bayer(2).tolist() == [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]


def test_a_grid_beyond_the_matrix_is_refused():
    with pytest.raises(ValueError, match="64 x 64 patches only, found 65 x 3"):
        grid_patches(65, 3, 4)


def test_grid_patches_made_on_the_meta_device_spoil_no_later_ones():
    with torch.device("meta"):
        grid_patches(4, 4, 8)
    assert grid_patches(4, 4, 8).tolist() == [0, 2, 5, 7, 8, 10, 13, 15]


def test_random_patches_follow_the_seed_and_nothing_else():
    torch.manual_seed(1)
    first = random_patches(14, 14, 98, seed=5)
    torch.manual_seed(2)
    assert torch.equal(random_patches(14, 14, 98, seed=5), first)
    assert not torch.equal(random_patches(14, 14, 98, seed=6), first)


def test_every_patch_is_as_likely_as_another_to_be_kept():
    times = torch.zeros(16)
    for seed in range(2000):
        times[random_patches(4, 4, 4, seed)] += 1
    assert ((times - 500).abs() < 5 * math.sqrt(2000 * 0.25 * 0.75)).all()


@given(seed=seeds, keep=st.integers(1, 12))
def test_salient_patches_are_those_of_the_largest_variance(seed, keep):
    pixels = torch.randn(3, 2, 6, 16, generator=torch.Generator().manual_seed(seed))
    found = salient_patches(pixels, (2, 4), keep)
    for image, kept in zip(pixels, found.tolist(), strict=True):
        contrast = []
        for row in range(3):
            for column in range(4):
                patch = image[:, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
                contrast.append(sum(channel.var(unbiased=False).item() for channel in patch))
        assert kept == sorted(sorted(range(12), key=lambda place: -contrast[place])[:keep])


def test_salient_patches_of_a_plain_image_are_the_first():
    assert salient_patches(torch.zeros(2, 3, 32, 32), (4, 4), 5).tolist() == [[0, 1, 2, 3, 4]] * 2


def test_patches_that_are_no_numbers_stay_to_be_seen():
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels[..., 8:12, 4:8] = torch.nan
    assert 9 in salient_patches(pixels, (4, 4), 1).tolist()[0]


@given(seed=seeds, keep=st.integers(1, 12), levels=st.integers(1, 4))
def test_of_equally_salient_patches_the_first_stay(seed, keep, levels):
    """As a stable sort would have it."""
    generator = torch.Generator().manual_seed(seed)
    heights = torch.randint(0, levels, (2, 1, 3, 4), generator=generator).float()
    step = torch.tensor([-1.0, 1.0]).repeat(2)  # a patch's contrast is its height squared
    pixels = torch.kron(heights, step.expand(1, 1, 2, 4))
    contrast = heights.flatten(1).square()
    order = contrast.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values
    assert torch.equal(salient_patches(pixels, (2, 4), keep), order)


@pytest.mark.parametrize("rule", [grid_patches, lambda *size: random_patches(*size, seed=3)])
def test_patches_are_drawn_as_numbers_while_a_model_is_made_without_any(rule):
    expected = rule(6, 6, 9).tolist()
    with torch.device("meta"):
        assert rule(6, 6, 9).tolist() == expected


def test_saliency_is_not_lost_to_half_precision():
    pixels = torch.full((1, 1, 4, 8), 1.75)
    pixels[..., 4:] += torch.tensor([0.0078125, 0.0]).repeat(2)  # one step of bfloat16
    assert salient_patches(pixels.bfloat16(), (4, 4), 1).tolist() == [[1]]


def matched_by_loop(metric: Tensor, merged: int) -> dict[int, int]:
    """Source → target of one image, [n, c]: ToMe's steps 1 to 4, the class token protected."""
    pairs = []
    for source in range(2, len(metric), 2):
        similar = [cosine_similarity(metric[source], m, dim=0).item() for m in metric[1::2]]
        best = max(range(len(similar)), key=similar.__getitem__)
        pairs.append((similar[best], source, 2 * best + 1))
    return {source: target for _, source, target in sorted(pairs, reverse=True)[:merged]}


def merged_by_loop(hidden: Tensor, sizes: Tensor, pairs: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Of one image [n, d], [n]: each group of tokens becomes its mean weighted by size."""
    means, counts = [], []
    for place in range(len(hidden)):
        if place in pairs:
            continue
        group = [place, *(source for source, target in pairs.items() if target == place)]
        counts.append(sizes[group].sum())
        means.append((hidden[group] * sizes[group, None]).sum(0) / counts[-1])
    return torch.stack(means), torch.stack(counts)


@given(seed=seeds, tokens=st.integers(2, 20), share=st.floats(0, 1))
def test_merging_is_what_the_paper_says_step_by_step(seed, tokens, share):
    hidden, sizes = tokens_of(seed, tokens)
    metric = torch.randn(2, tokens, 4, generator=torch.Generator().manual_seed(seed + 1))
    merged = round(share * mergeable(tokens))
    matching = match(metric, merged)
    found, left = merge(hidden, sizes, matching)
    for image in range(2):
        pairs = matched_by_loop(metric[image], merged)
        places = zip(matching.source[image].tolist(), matching.target[image].tolist(), strict=True)
        assert dict(places) == pairs
        expected, counts = merged_by_loop(hidden[image], sizes[image], pairs)
        torch.testing.assert_close(found[image], expected)
        assert torch.equal(left[image], counts)


@given(seed=seeds, tokens=st.integers(2, 20), share=st.floats(0, 1))
def test_merging_loses_no_patch_and_leaves_the_class_token_alone(seed, tokens, share):
    hidden, sizes = tokens_of(seed, tokens)
    merged = round(share * mergeable(tokens))
    matching = match(hidden, merged)
    found, left = merge(hidden, sizes, matching)
    assert found.shape[1] == left.shape[1] == tokens - merged
    assert torch.equal(left.sum(1), sizes.sum(1))
    assert (matching.stay[:, 0] == 0).all()
    assert (matching.target > 0).all()
    torch.testing.assert_close(found[:, 0], hidden[:, 0])
    assert torch.equal(left[:, 0], sizes[:, 0])
    totals = (hidden * sizes[..., None]).sum(1), (found * left[..., None]).sum(1)
    torch.testing.assert_close(*totals, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", range(1, 8))
def test_as_many_tokens_merge_as_have_a_partner_between_them(tokens):
    assert mergeable(tokens) == len(range(2, tokens, 2))
    if tokens > 1:
        assert match(torch.randn(1, tokens, 3), mergeable(tokens)).source.shape[1] == (
            mergeable(tokens)
        )


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_counts_every_patch_of_large_tokens(half):
    """A sum of 300 tokens of 300 is more than half precision holds, 601 more than it counts to."""
    hidden, sizes = torch.full((1, 3, 2), 300.0, dtype=half), torch.tensor([[1.0, 300.0, 301.0]])
    found, left = merge(hidden, sizes, match(hidden, 1))
    assert left.tolist() == [[1, 601]]
    assert found.dtype == half
    torch.testing.assert_close(found, hidden[:, :2])


@given(seed=seeds, tokens=st.integers(4, 20), share=st.floats(0, 1))
def test_ranking_keeps_the_best_and_fuses_the_others(seed, tokens, share):
    hidden, sizes = tokens_of(seed, tokens)
    ranks = torch.randn(2, tokens - 1, generator=torch.Generator().manual_seed(seed + 1))
    keep = 1 + round(share * (tokens - 4))
    found, left = keep_ranked(hidden, sizes, ranks, keep)
    assert found.shape[:2] == left.shape == (2, keep + 2)
    assert torch.equal(left.sum(1), sizes.sum(1))
    for image in range(2):
        order = sorted(range(1, tokens), key=lambda place: -ranks[image, place - 1].item())
        kept = [0, *sorted(order[:keep])]
        assert torch.equal(found[image, :-1], hidden[image, kept])
        assert torch.equal(left[image, :-1], sizes[image, kept])
        total = fused = 0
        for place in order[keep:]:
            weight = math.exp(ranks[image, place - 1].item())
            total, fused = total + weight, fused + weight * hidden[image, place]
        torch.testing.assert_close(found[image, -1], fused / total)


@given(seed=seeds, tokens=st.integers(2, 12))
def test_a_token_of_a_size_is_attended_to_as_so_many_tokens(seed, tokens):
    """ToMe's proportional attention: the logarithm of the size is added to the logits."""
    keys, sizes = tokens_of(seed, tokens, batch=1)
    queries, values = tokens_of(seed + 1, tokens, batch=1)[0], keys.flip(1)
    repeats = sizes[0].long()
    found = scaled_dot_product_attention(queries, keys, values, sizes.log()[:, None])
    expected = scaled_dot_product_attention(
        queries, keys.repeat_interleave(repeats, dim=1), values.repeat_interleave(repeats, dim=1)
    )
    torch.testing.assert_close(found, expected)


def test_a_plain_image_loses_nothing_when_it_shrinks_and_noise_most():
    smooth = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    images = torch.cat([torch.ones(1, 3, 32, 32), smooth, torch.randn(1, 3, 32, 32)])
    plain, gradient, noise = complexity(images, 16).tolist()
    assert plain == pytest.approx(0, abs=1e-10)
    assert plain < gradient < 0.01 < 0.3 < noise


def test_an_image_at_its_own_size_is_itself():
    pixels = torch.randn(2, 3, 16, 16)
    assert resized(pixels, 16) is pixels
    assert resized(pixels, 8).shape == (2, 3, 8, 8)
    assert complexity(pixels, 16).tolist() == [0, 0]
