import torch
from torch.utils.flop_counter import FlopCounterMode

from pruning_mechanism import Shape, image_embeddings, macs, parameters, prune
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import random_mask


def counted_macs(model) -> int:
    """What torch counts for one image, its two operations a multiply-accumulate halved."""
    pixels = torch.randn(1, 3, 16, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        image_embeddings(model, pixels)
    return counter.get_total_flops() // 2


def test_tower_macs_are_what_torch_counts():
    model = tiny_clip()
    model.set_attn_implementation("eager")
    assert macs(model).tower == counted_macs(model)
    smaller = prune(model, random_mask(0))
    assert macs(smaller).tower == counted_macs(smaller)


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
