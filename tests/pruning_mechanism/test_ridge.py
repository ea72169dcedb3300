"""Ridge regression with its leave-one-out error, exact for few rows as for many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_mechanism.ridge import SILENCED, STRENGTHS, SURE, Principal, deviations, ridge
from tests.lanes import examples, sweep

FEATURES = 12


def problem(seed: int, images: int = 12, features: int = 5, outputs: int = 3):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = draw(images, features)
    return x, x @ draw(features, outputs) + draw(images, outputs), draw(features, outputs)


def refit(x, y, prior, strength):
    """Ridge towards a prior with a free intercept, from its normal equations."""
    mean_x, mean_y = x.mean(0), (y - x @ prior).mean(0)
    centred = x - mean_x
    right = centred.T @ (y - x @ prior - mean_y)
    change = torch.linalg.solve(
        centred.T @ centred + strength * torch.eye(x.shape[1], dtype=x.dtype), right
    )
    return prior + change, mean_y - mean_x @ change


@pytest.mark.parametrize("towards_prior", [True, False])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 3.0])
def test_the_leave_one_out_error_is_that_of_refitting_without_each_image(strength, towards_prior):
    x, y, prior = problem(0)
    if towards_prior:  # an offset that 0 would not find: the prior is the better start
        y = y + 100 * (x @ prior)
        prior = 101 * prior
    nothing = torch.full((3,), 1e6, dtype=torch.float64)  # as it was is no choice
    solved = ridge(x, y, prior, nothing, [strength])
    scale = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0))).mean() * strength
    starts = (prior, torch.zeros_like(prior))
    errors = []
    for start in starts:
        lost = 0.0
        for out in range(len(x)):
            others = torch.arange(len(x)) != out
            weight, free = refit(x[others], y[others], start, scale)
            lost += (y[out] - x[out] @ weight - free).square().sum().item()
        errors.append(lost / len(x))
    assert solved.left_out == pytest.approx(min(errors), rel=1e-9)
    best = starts[errors.index(min(errors))]
    weight, free = refit(x, y, best, scale)
    torch.testing.assert_close(solved.weight, weight)
    torch.testing.assert_close(solved.intercept, free)


@pytest.mark.parametrize("images", [4, 9, 30])
def test_fewer_images_than_features_are_solved_as_the_normal_equations_say(images):
    x, y, prior = problem(1, images, features=12)
    x[:, 7] = x[:, 3]
    nothing = torch.full((3,), 1e6, dtype=torch.float64)
    solved = ridge(x, y, prior, nothing, [0.1])
    squares = (x - x.mean(0)).square().sum()
    fits = [refit(x, y, start, 0.1 * squares / 12) for start in (prior, torch.zeros_like(prior))]
    torch.testing.assert_close(
        solved.weight, min((weight for weight, _ in fits), key=lambda w: (w - solved.weight).norm())
    )
    found = (y - x @ solved.weight - solved.intercept).square().sum(1).mean().item()
    assert found == pytest.approx(solved.after, rel=1e-9)


@pytest.mark.parametrize("images", [4, 30])
def test_features_that_say_nothing_leave_the_mean(images):
    x, y, prior = problem(2, images, features=12)
    nothing = torch.full((3,), 1e6, dtype=torch.float64)
    solved = ridge(torch.ones_like(x), y, prior, nothing)
    torch.testing.assert_close(
        (torch.ones_like(x) @ solved.weight + solved.intercept)[0], y.mean(0)
    )
    assert solved.left_out == pytest.approx(solved.after / (1 - 1 / images) ** 2)


def test_a_prior_without_an_intercept_has_one_of_0():
    x, y, prior = problem(3, images=6)
    solved, same = ridge(x, y, prior), ridge(x, y, prior, y.new_zeros(3))
    assert (solved.before, solved.left_out) == (same.before, same.left_out)
    torch.testing.assert_close(solved.intercept, same.intercept)


@given(st.integers(0, 1000), st.floats(0, 3))
def test_on_its_own_images_it_is_never_worse_than_what_it_replaces(seed, noise):
    x, y, prior = problem(seed, images=6)
    y = x @ prior + noise * y
    solved = ridge(x, y, prior, y.new_zeros(3))
    assert solved.after <= solved.left_out + 1e-12
    assert solved.left_out <= solved.before + 1e-12
    found = (y - x @ solved.weight - solved.intercept).square().sum(1).mean().item()
    assert found == pytest.approx(solved.after, abs=1e-9)


def refit_without(x, y, prior, strength, out):
    """The errors on the rows `out` of the regression without them, by its singular values.

    The normal equations lose the smallest λ's to rounding.
    """
    others = torch.ones(len(x), dtype=torch.bool)
    others[out] = False
    mean, offset = x[others].mean(0), (y - x @ prior)[others].mean(0)
    u, values, vh = torch.linalg.svd(x[others] - mean, full_matrices=False)
    right = u.T @ ((y - x @ prior)[others] - offset)
    change = vh.T @ (right * (values / (values.square() + strength))[:, None])
    return y[out] - x[out] @ prior - offset - (x[out] - mean) @ change


def farthest(x, y, prior, together=1, strengths=STRENGTHS):
    """The largest distance of what is left out from true refits, as a share, for all λ's."""
    scale, parts = (x - x.mean(0)).square().sum() / x.shape[1], Principal.of(x)
    worst = 0.0
    for share in strengths:
        found = parts.fit(y - x @ prior, share, together).left_out
        runs = torch.arange(len(x)).split(together)
        true = torch.cat([refit_without(x, y, prior, share * scale, out) for out in runs])
        worst = max(worst, ((found - true).norm(dim=1) / true.norm(dim=1)).max().item())
    return worst


@pytest.mark.parametrize("towards_prior", [True, False])
@pytest.mark.parametrize("images", sweep(range(2, 2 * FEATURES + 1), (2, 3, 11, 12, 13, 14, 24)))
def test_from_two_rows_to_twice_the_features_leave_one_out_is_refitting(images, towards_prior):
    x, y, prior = problem(images, images, FEATURES)
    assert farthest(x, y, prior * towards_prior) < 1e-9


def test_next_to_no_damping_of_many_features_is_no_exception():
    """1 - h is 5e-10 here: less than what it was once held above."""
    x, y, prior = problem(0, 32, 6144)
    assert farthest(x, y, prior, strengths=STRENGTHS[:1]) < 1e-6


@settings(max_examples=examples(15, 40))
@given(
    seed=st.integers(0, 1000),
    images=st.integers(3, 2 * FEATURES),
    decades=st.floats(0, 5),
    twins=st.integers(0, FEATURES // 2),
    far=st.floats(0, 3),
)
def test_leave_one_out_is_refitting_whatever_the_features(seed, images, decades, twins, far):
    """Features of very different sizes, equal ones, an image far from all others."""
    x, y, prior = problem(seed, images, FEATURES)
    x = x * 10.0 ** -torch.linspace(0, decades, FEATURES, dtype=x.dtype)
    x[:, :twins] = x[:, FEATURES - twins :]
    x[0] *= 10**far
    assert farthest(x, y, prior) < 1e-6


@pytest.mark.parametrize("together", [2, 4])
@pytest.mark.parametrize("images", [8, 12, 16, 24])
def test_rows_of_one_image_are_left_out_together(images, together):
    x, y, prior = problem(5, images, FEATURES)
    assert farthest(x, y, prior, together) < 1e-7


def test_one_image_cannot_be_left_out():
    x, y, _ = problem(0, 4)
    with pytest.raises(ValueError, match="too few to leave 4 out"):
        ridge(x, y, together=4)


@pytest.mark.parametrize("images", [8, 16, 32, 64])
def test_with_fewer_images_than_features_the_error_is_that_of_other_images(images):
    """It was 0 or so: what is left of images that the features can tell apart is 0 / 0."""
    features, claimed, true = 600, [], []
    for seed in range(10):
        x, y, _ = problem(seed, images + 300, features, 4)
        solved = ridge(x[:images], y[:images])
        claimed.append(solved.left_out)
        rest = y[images:] - x[images:] @ solved.weight - solved.intercept
        true.append(rest.square().sum(1).mean().item())
    assert sum(claimed) == pytest.approx(sum(true), rel=0.15)


@pytest.mark.parametrize("images", [8, 16, 32, 200])
def test_what_the_features_say_nothing_of_is_left_as_it_was(images):
    """The best of forty estimates is too low; taken for true, every prior would go."""
    kept = 0
    for seed in range(20):
        x, y, prior = problem(seed, images, 100)
        y = x @ prior + torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).double()
        solved = ridge(x, y, prior, y.new_zeros(3))
        kept += solved.as_it_was
        if solved.as_it_was:
            assert torch.equal(solved.weight, prior)
            assert solved.tried >= solved.before - SURE * solved.unsure
    assert kept >= 17


def test_without_a_prior_there_is_nothing_to_stay():
    x, y, _ = problem(0)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    solved = ridge(x, noise)
    assert not solved.as_it_was
    assert solved.left_out == solved.tried > solved.after


@given(st.integers(0, 100), st.floats(-6, 6))
def test_deviations_have_the_units_of_their_columns(seed, decades):
    values = problem(seed, 20)[0] + torch.arange(5.0).double()
    torch.testing.assert_close(deviations(values), values.std(0))
    scale = 10**decades
    torch.testing.assert_close(deviations(values * scale), values.std(0) * scale)


def test_next_to_nothing_is_silenced():
    values = problem(0, 20)[0]
    values[:, 0] = 7 + 1e-6 * values[:, 0]  # rounding, beside its own size
    values[:, 1] *= 1e-8  # and beside the others'
    values[:, 2] = 5.0
    varying = torch.tensor([False, False, False, True, True])
    found = deviations(values)
    assert torch.equal(found[varying], values.std(0)[varying])
    silenced = values[:, ~varying] / found[~varying]
    assert (silenced - silenced.mean(0)).abs().max() < 2 / SILENCED
    assert torch.equal(deviations(torch.zeros(9, 3)), torch.ones(3))
