"""A tower in 8 bits keeps its embeddings, says what is rounded, and leaves what gains nothing."""

import pytest
import torch
from torch import nn

from cascade.stages.fingerprints import computed_in
from pruning_mechanism import (
    Mask,
    Reduction,
    TowerError,
    align,
    image_embeddings,
    prune,
    reduce,
)
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from pruning_mechanism.modeling.class_token import class_token_suffices
from pruning_mechanism.runtimes import DTYPES, RuntimeChoice
from pruning_mechanism.runtimes.in_torch import TorchRuntime, vision_in
from pruning_mechanism.runtimes.on_gpu.products import EightBitLinear
from pruning_mechanism.runtimes.on_gpu.towers import fill_up, in_eight_bits
from pruning_mechanism.tower import Tower
from tests.conftest import tiny_clip
from tests.pruning_mechanism.runtimes.conftest import pixels

KINDS = ("float8", "int8")


@pytest.fixture(scope="module")
def wide():
    return tiny_clip(hidden_size=64, intermediate_size=96, initializer_factor=1.0)


@pytest.fixture(scope="module")
def uneven(wide):
    """Heads of 16 and neurons of any number; a layer has no heads, another no neurons."""
    heads, neurons = torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 96, dtype=torch.bool)
    heads[1], heads[2, 0] = False, False
    neurons[0, :19], neurons[1, 50:] = False, False
    return prune(wide, Mask(heads=heads, neurons=neurons))


def rounded(model, kind, least=16):
    return in_eight_bits(model, vision_in(model, torch.bfloat16), kind, least)


@torch.no_grad()
def cosine(model, made):
    given = pixels(8)
    wanted = image_embeddings(model, given)
    found = image_embeddings(made.model, given.bfloat16()).float()
    return torch.cosine_similarity(found, wanted).min()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_tower_keeps_its_embeddings(wide, kind):
    made = rounded(wide, kind)
    assert len(made.rounded) == 3 * 6
    assert made.left == ()
    assert 0.99 < cosine(wide, made) < 1 - 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_an_uneven_tower_is_filled_up_with_zeros_and_keeps_its_embeddings(uneven, kind):
    made = rounded(uneven, kind)
    layers = Tower.of(made.model).layers
    assert [layer.mlp.fc1.out_features for layer in layers] == [80, 64, 96]
    assert all(name.count("layers.2") == 0 for name in made.rounded)
    assert len(made.rounded) == (4 + 2) + 2
    assert len(made.left) == 6
    assert 0.99 < cosine(uneven, made) < 1 - 1e-6


def test_zeros_add_nothing(uneven):
    """In int8 the levels of zeros are zeros: an MLP filled up gives what it gave."""
    mlp = Tower.of(uneven).layers[0].mlp
    filled = Tower.of(rounded(uneven, "int8").model).layers[0].mlp
    given = torch.randn(7, 64, generator=torch.Generator().manual_seed(0))
    rows = filled.fc1.levels[mlp.fc1.out_features :], filled.fc2.levels[:, mlp.fc1.out_features :]
    assert all(not each.any() for each in rows)
    with torch.no_grad():
        wanted, found = mlp(given), filled(given.bfloat16()).float()
    assert torch.cosine_similarity(found, wanted).min() > 0.999


def test_a_tower_filled_up_with_zeros_computes_the_same(uneven):
    filled = vision_in(uneven, torch.float64)
    exact, given = vision_in(uneven, torch.float64), pixels(4).double()
    fill_up(filled)
    widths = [layer.mlp.fc1.out_features for layer in Tower.of(filled).layers]
    assert widths == [80, 64, 96]
    assert [layer.mlp.fc2.in_features for layer in Tower.of(filled).layers] == widths
    with torch.no_grad():
        wanted, found = (image_embeddings(model, given) for model in (exact, filled))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)
    assert class_token_suffices(Tower.of(filled).layers[-1])
    assert [layer.mlp.fc1.out_features for layer in Tower.of(uneven).layers] == [77, 50, 96]


def test_a_smaller_tower_still_computes_its_last_layer_for_the_class_token_alone(uneven, wide):
    assert class_token_suffices(Tower.of(rounded(uneven, "float8").model).layers[-1])
    last = Tower.of(rounded(wide, "float8").model).layers[-1]  # transformers' computes it whole
    assert isinstance(last.self_attn.q_proj, EightBitLinear)


def test_a_tower_that_reads_patches_has_its_last_layer_in_8_bits_as_well(wide):
    exit_at = reduce(wide, Reduction(layers=2))
    assert len(rounded(exit_at, "float8").left) == 6
    patches = AlignedProjection(2 * 64, 5, wide.config.projection_dim)
    assert rounded(align(exit_at, patches), "float8").left == ()


def test_narrow_products_are_left_and_a_tower_of_them_is_refused(wide, uneven):
    mask = Mask.dense(wide.config)
    heads = mask.heads.clone()
    heads[0, :2] = False
    narrow = prune(wide, Mask(heads=heads, neurons=mask.neurons))
    made = rounded(narrow, "float8", least=48)
    own = [name for name in made.left if "layers.0" in name]
    assert {name.rsplit(".", 1)[1] for name in own} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert len(made.rounded) == 2 + 6
    with pytest.raises(TowerError, match=r"wide enough for float8 .*512.*bfloat16"):
        TorchRuntime(uneven, "float8", compiled=True)


def test_the_model_itself_stays_as_it_is(wide):
    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    rounded(wide, "float8")
    assert all(torch.equal(tensor, before[name]) for name, tensor in wide.state_dict().items())
    assert not any(isinstance(module, EightBitLinear) for module in wide.modules())


def test_what_is_rounded_is_part_of_a_name(wide, uneven):
    assert rounded(wide, "float8").content != rounded(uneven, "float8").content
    assert rounded(wide, "float8").content == rounded(wide, "float8").content


def test_each_type_has_a_name_and_says_how_much_is_rounded():
    model = tiny_clip(hidden_size=512, intermediate_size=520, num_hidden_layers=1)
    runtimes = {kind: TorchRuntime(model, kind, compiled=True) for kind in DTYPES}
    names = {kind: computed_in("own", runtime) for kind, runtime in runtimes.items()}
    assert names["float32"] == "own"
    assert len(set(names.values())) == len(DTYPES)
    said = {kind: str(RuntimeChoice.of(runtime)) for kind, runtime in runtimes.items()}
    assert said["float16"] == "compile, float16"
    assert said["float8"] == "compile, float8 (6 of 6 products)"


def test_weights_are_rounded_from_what_is_stored_and_not_twice(wide):
    made = rounded(wide, "int8")
    linear = Tower.of(wide).layers[0].mlp.fc1
    own = Tower.of(made.model).layers[0].mlp.fc1
    assert isinstance(linear, nn.Linear)
    exact = linear.weight.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(own.scales, exact, rtol=1e-6, atol=0)
