import pytest
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig

from pruning_mechanism import Shape, Tower, macs, parameters, prune
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import (
    TOWERS,
    random_mask,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)


def counted_macs(model, tower) -> int:
    """What torch counts for one input, its two operations a multiply-accumulate halved."""
    inputs = tiny_inputs(tower, count=1)
    with FlopCounterMode(display=False) as counter:  # without gradients it sees less of a head
        Tower.of(model, tower).embeddings(inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("family", "tower"), TOWERS)
def test_tower_macs_are_what_torch_counts(family, tower):
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    assert macs(model, tower).tower == counted_macs(model, tower)
    mask = random_slim_mask(4)
    smaller = prune(model, mask, tower)
    assert macs(smaller, tower).tower == counted_macs(smaller, tower)
    assert macs(smaller, tower).fraction == mask.mac_fraction(model.config, tower) < 1


def test_an_image_need_not_be_square():
    config = CLIPVisionConfig(image_size=[32, 64], patch_size=[16, 8])
    assert Shape.of(config).tokens == 2 * 8 + 1


def test_the_fraction_is_of_the_dense_encoder_and_the_tower_adds_what_is_around_it():
    model, mask = tiny_clip(), random_mask(1)
    cost = macs(prune(model, mask))
    assert cost.fraction == mask.mac_fraction(model.config)
    assert cost.tower - cost.encoder == macs(model).tower - macs(model).encoder > 0


def test_parameters_are_those_of_the_vision_tower():
    model = tiny_clip()
    vision = sum(p.numel() for n, p in model.named_parameters() if n.startswith("vis"))
    assert parameters(model) == vision < sum(p.numel() for p in model.parameters())


def test_a_pruned_configuration_knows_its_own_and_its_dense_shape():
    model, mask = tiny_clip(), random_mask(2)
    config = prune(model, mask).config
    assert Shape.of(config).heads == tuple(mask.heads.sum(1).tolist())
    assert Shape.of(config, dense=True) == Shape.of(model.config)


def test_a_budget_is_the_decimal_share_of_the_macs_rounded_down():
    shape = Shape.of(tiny_clip().config)
    assert shape.budget(1.0) == shape.encoder_macs
    assert shape.budget(0.3) == shape.encoder_macs * 3 // 10
    assert shape.budget(0.9999999999997735) == shape.encoder_macs - 1
