import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig

from pruning_mechanism import Reduction, Shape, Tower, align, macs, parameters, prune, reduce
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import (
    TOWERS,
    random_mask,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)
from tests.pruning_mechanism.modeling.test_class_token import Flops


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


def class_aligned(model):
    return align(model, AlignedProjection(16, 5, 8))


UNEVEN = random_slim_mask(4)
MERGED, EXIT = Reduction(merged_per_layer=(3, 2, 0)), Reduction(layers=2)
SMALLER = {
    "pruned": lambda: prune(tiny_clip(), UNEVEN),
    "exit": lambda: reduce(tiny_clip(), EXIT),
    "merged": lambda: reduce(tiny_clip(), MERGED),
    "kept patches": lambda: reduce(tiny_clip(), Reduction(kept_patches=5)),
    "all of it": lambda: reduce(
        prune(tiny_clip(), UNEVEN),
        Reduction(merged_per_layer=(3, 0, 0), layers=2, kept_patches=9),
    ),
    "class token aligned": lambda: class_aligned(reduce(tiny_clip(), EXIT)),
}


@pytest.mark.parametrize("name", SMALLER)
def test_macs_count_the_last_layer_for_all_tokens_and_the_clock_sees_less(name):
    """The published way to count, beside what is computed where the class token alone is read."""
    model = SMALLER[name]()
    model.set_attn_implementation("eager")
    assert macs(model).tower == counted_macs(model, "vision")  # its hooks watch the last layer
    assert Tower.of(model).reads_class_token
    with torch.no_grad(), Flops() as counter:
        Tower.of(model).embeddings(tiny_inputs("vision", count=1))
    assert counter.total // 2 == macs(model).tower - saved(Shape.of(model.config))


def saved(shape: Shape) -> int:
    """MACs of the last layer that are not computed for the class token alone."""
    n, d = int(shape.layer_tokens[-1].attention), shape.hidden
    heads, neurons = shape.heads[-1], shape.neurons[-1]
    size, of_values = shape.query_key_sizes[-1], shape.value_sizes[-1]
    # queries, their product with the keys' weights, logits; sums of tokens, values, output
    own = heads * (2 * d * size + n * d + n * d + 2 * d * of_values) + 2 * d * neurons
    in_full = heads * shape.sized_head_macs(size, of_values, -1) + neurons * shape.neuron_macs(-1)
    return int(in_full - own)


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
