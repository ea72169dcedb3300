"""Implementations of attention: measured, set, and all of one result."""

import copy

import pytest
import torch

from pruning_mechanism import Reduction, TowerError, image_embeddings, prune, reduce
from pruning_mechanism.attention import (
    IMPLEMENTATIONS,
    attention_of,
    check_attention,
    choose_attention,
    fastest_attention,
    set_attention,
)
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import (
    FAMILIES,
    random_mask,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)

MERGED = Reduction(merged_per_layer=(3, 3, 2), ranked_per_layer=(0, 9, 0))
TOWERS = {
    "dense": lambda model: model,
    "uneven heads": lambda model: prune(model, random_slim_mask(1)),
    "merged and ranked": lambda model: reduce(prune(model, random_mask(1)), MERGED),
    "masked": lambda model: reduce(model, Reduction(kept_patches=7, patch_rule="saliency")),
}
MADE = [
    (family, made)
    for family in FAMILIES
    for made in TOWERS
    if family != "siglip" or made in ("dense", "uneven heads")  # the others need a class token
]


def by(model, name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    set_attention(model, name)
    assert attention_of(model) == name
    with torch.no_grad():
        return image_embeddings(model, tiny_inputs("vision").to(dtype)).float()


@pytest.mark.parametrize(("family", "made"), MADE)
def test_every_implementation_gives_the_same_embeddings(family, made):
    model = TOWERS[made](tiny_model(family))
    expected = by(model, "sdpa")
    torch.testing.assert_close(by(model, "eager"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_they_differ_by_rounding_alone(dtype):
    model = TOWERS["merged and ranked"](tiny_clip())
    exact, half = by(model, "sdpa"), copy.deepcopy(model).to(dtype)
    for name in IMPLEMENTATIONS:
        error = (by(half, name, dtype) - exact).norm() / exact.norm()
        assert error < 8 * torch.finfo(dtype).eps


def test_the_implementations_are_really_different_computations():
    """Else a measurement would compare a tower with itself."""
    model = tiny_model("clip")
    assert not torch.equal(by(model, "eager"), by(model, "sdpa"))


def test_the_choice_is_the_fastest_of_those_measured_and_leaves_the_tower_as_it_was():
    model = TOWERS["merged and ranked"](tiny_clip())
    set_attention(model, "eager")
    choice = fastest_attention(model, batch_size=2, repetitions=3)
    assert set(choice.seconds) == set(IMPLEMENTATIONS)
    assert all(seconds > 0 for seconds in choice.seconds.values())
    assert choice.name == min(choice.seconds, key=choice.seconds.get)
    assert attention_of(model) == "eager"


def test_a_choice_says_what_it_was_measured_on():
    own = fastest_attention(tiny_clip().bfloat16(), batch_size=2, repetitions=1).conditions
    assert (own.device, own.dtype, own.threads) == ("cpu", "bfloat16", torch.get_num_threads())
    assert (own.batch_size, own.repetitions, own.tokens, own.head_dim) == (2, 1, 17, 4)


def test_choosing_the_fastest_sets_it_and_texts_stay_as_they_are():
    model = tiny_clip()
    before = model.config.text_config._attn_implementation
    choice = choose_attention(model, "fastest", batch_size=1)
    assert attention_of(model) == choice.name
    choose_attention(model, "eager")
    assert attention_of(model) == "eager"
    assert model.config.text_config._attn_implementation == before


def test_without_a_wish_nothing_is_measured_and_nothing_changes():
    model = tiny_clip()
    set_attention(model, "eager")
    choice = choose_attention(model, None)
    assert (choice.name, choice.seconds, choice.conditions) == ("eager", {}, None)
    assert attention_of(model) == "eager"


def test_an_attention_that_is_not_known_is_refused_in_one_line():
    for refuse in (check_attention, lambda name: choose_attention(tiny_clip(), name)):
        with pytest.raises(TowerError, match="'fastest', 'sdpa', 'eager', or None") as caught:
            refuse("quick")
        assert "\n" not in str(caught.value)


def test_an_attention_that_a_model_cannot_have_is_refused_in_one_line():
    with pytest.raises(TowerError, match="can't attend by 'quick'") as caught:
        set_attention(tiny_clip(), "quick")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("counts", [{"batch_size": 0}, {"repetitions": 0}])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match="at least 1"):
        fastest_attention(tiny_clip(), **counts)
