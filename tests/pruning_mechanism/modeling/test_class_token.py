"""The last layer for the class token alone gives what the whole layer gives, for less."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pruning_mechanism import (
    Reduction,
    Tower,
    TowerError,
    align,
    image_embeddings,
    load,
    masked,
    pooled_only,
    prune,
    reduce,
)
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from pruning_mechanism.modeling.class_token import class_token_after, class_token_suffices
from pruning_mechanism.runtimes.graph import write_onnx
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import (
    FAMILIES,
    random_mask,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)
from tests.pruning_mechanism.test_sentence_transformers import student

PIXELS = tiny_inputs("vision")
WITH_CLASS_TOKEN = [name for name in FAMILIES if name != "siglip"]


def class_aligned(model, features=5):
    torch.manual_seed(1)
    return align(model, AlignedProjection(16, features, 8))


def ended(model=None, layers=2):
    """A tower that ends early, and reads the class token."""
    return reduce(model or tiny_clip(), Reduction(layers=layers))


def without(structure):
    """A tower whose last layer has no heads, or no neurons."""
    mask = random_mask(4)
    getattr(mask, structure)[-1] = False
    return prune(tiny_clip(), mask)


MODELS = {
    **{name: lambda name=name: ended(tiny_model(name)) for name in WITH_CLASS_TOKEN},
    "pruned": lambda: prune(tiny_clip(), random_mask(3)),
    "head sizes": lambda: prune(tiny_clip(), random_slim_mask(8)),
    "no heads": lambda: without("heads"),
    "no neurons": lambda: without("neurons"),
    "one layer": lambda: ended(layers=1),
    "merged before": lambda: reduce(tiny_clip(), Reduction(merged_per_layer=(3, 2, 0))),
    "merged there": lambda: reduce(tiny_clip(), Reduction(merged_per_layer=(3, 2, 1))),
    "ranked": lambda: reduce(tiny_clip(), Reduction(ranked_per_layer=(9, 0, 0))),
    "sizes": lambda: reduce(
        tiny_clip(),
        Reduction(resolutions=(8, 16), resolution_bounds=(0.8,), resolution_shares=(0.5, 0.5)),
    ),
    "class token aligned": lambda: class_aligned(prune(tiny_clip(), random_mask(3))),
    "all tokens aligned": lambda: align(tiny_clip(), AlignedProjection(32, 5, 8)),
}


def whole(model, pixels=PIXELS):
    """The embeddings by the tower's own forward pass, watched, which computes every token."""
    tower = Tower.of(model)
    with tower.layers[-1].register_forward_hook(lambda *_: None):
        return tower.final(tower.root(pixel_values=pixels, return_dict=True).pooler_output)


@pytest.mark.parametrize("name", MODELS)
def test_an_embedding_is_that_of_the_whole_layer(name):
    model = MODELS[name]().double()
    with torch.inference_mode():
        found, expected = (of(model, PIXELS.double()) for of in (image_embeddings, whole))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)  # softmax is in float32


@pytest.mark.parametrize("name", ["clip", "pruned", "merged before"])
def test_in_float32_it_is_the_same_but_for_rounding(name):
    model = MODELS[name]()
    with torch.inference_mode():
        torch.testing.assert_close(
            image_embeddings(model, PIXELS), whole(model), atol=1e-5, rtol=1e-5
        )


def test_the_layer_gives_the_class_token_of_a_plain_layer():
    layer = tiny_clip().vision_model.encoder.layers[0]
    hidden = torch.randn(2, 17, 16)
    bias = torch.rand(2, 17).log()[:, None, None]
    with torch.no_grad():
        expected = layer(hidden, bias)[:, 0]
        found = class_token_after(layer, hidden, bias)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Flops(TorchDispatchMode):
    """Counts what torch's `FlopCounterMode` does, without the hooks that this sets."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def flops(work, model):
    with torch.no_grad(), Flops() as counted:
        work(model, PIXELS)
    return counted.total


@pytest.mark.parametrize("name", ["clip", "one layer", "pruned", "class token aligned"])
def test_it_computes_less_of_the_last_layer(name):
    model = MODELS[name]()
    assert flops(image_embeddings, model) < 0.9 * flops(whole, model)


def test_a_one_layer_tower_costs_little_more_than_its_embedding():
    model = ended(layers=1)
    layer = flops(whole, model) - flops(lambda model, pixels: Tower.of(model).embed(pixels), model)
    alone = flops(image_embeddings, model) - flops(whole, model) + layer
    assert alone < 0.3 * layer  # 17 tokens only; of 65, a thirtieth


@pytest.mark.parametrize("name", ["all tokens aligned", "merged there"])
def test_where_more_is_read_all_of_it_is_computed(name):
    model = MODELS[name]()
    assert flops(image_embeddings, model) == flops(whole, model)


def test_gradients_are_those_of_the_whole_layer():
    model = MODELS["class token aligned"]().double()
    found, expected = (
        torch.autograd.grad(of(model, PIXELS.double()).square().sum(), last_layer(model))
        for of in (image_embeddings, whole)
    )
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


def last_layer(model):
    return list(Tower.of(model).layers[-1].parameters())


@pytest.mark.parametrize("place", ["self_attn.out_proj", "mlp.fc2", "layer_norm1", ""])
@torch.no_grad()
def test_hooks_on_the_last_layer_see_every_token(place):
    model, seen = ended(), []
    module = Tower.of(model).layers[-1].get_submodule(place)
    with module.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape)):
        image_embeddings(model, PIXELS)
    assert [tuple(shape[:2]) for shape in seen] == [(3, 17)]


@pytest.mark.parametrize("place", ["self_attn", "self_attn.k_proj", ""])
def test_hooks_on_the_last_layer_see_the_gradient_of_every_token(place):
    model, seen = ended(), []
    module = Tower.of(model).layers[-1].get_submodule(place)
    with module.register_full_backward_hook(lambda _, __, given: seen.append(given[0].shape)):
        image_embeddings(model, PIXELS).sum().backward()
    assert [tuple(shape[:2]) for shape in seen] == [(3, 17)]


@torch.no_grad()
def test_hooks_on_the_tower_see_its_output():
    model, seen = ended(), []
    hook = Tower.of(model).root.register_forward_hook(lambda *given: seen.append(given[2]))
    with hook:
        image_embeddings(model, PIXELS)
    assert seen[0].last_hidden_state.shape == (3, 17, 16)


@torch.no_grad()
def test_masking_masks_the_last_layer_too():
    model, mask = tiny_clip(), random_mask(5)
    with masked(model, mask):
        found = image_embeddings(model, PIXELS)
    pruned = image_embeddings(prune(model, mask), PIXELS)
    torch.testing.assert_close(found, pruned, atol=1e-5, rtol=1e-5)


class Adapted(nn.Linear):
    """As adapters and quantised layers are: a linear map that adds something to its weight's."""

    def forward(self, given):
        return super().forward(given) + 1.0


@torch.no_grad()
def test_an_adapter_in_a_projections_place_is_used():
    model = ended()
    attention = Tower.of(model).layers[-1].self_attn
    adapted = Adapted(16, 16)
    adapted.load_state_dict(attention.v_proj.state_dict())
    attention.v_proj = adapted
    torch.testing.assert_close(image_embeddings(model, PIXELS), whole(model))


def test_dropped_attention_is_left_to_the_whole_layer():
    layer = tiny_clip(attention_dropout=0.5).vision_model.encoder.layers[-1]
    assert class_token_suffices(layer.eval())
    assert not class_token_suffices(layer.train())


def test_a_graph_of_it_takes_any_batch(tmp_path):
    model = MODELS["class token aligned"]()
    write_onnx(model, tmp_path / "tower.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "tower.onnx")
    for count in (1, 5):
        pixels = tiny_inputs("vision", count)
        with torch.no_grad():
            expected = image_embeddings(model, pixels)
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_projection_of_the_class_token_is_the_same_from_disk(tmp_path):
    model = MODELS["class token aligned"]()
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.config.vision_config.aligned_tokens == "class"
    assert torch.equal(image_embeddings(again, PIXELS), image_embeddings(model, PIXELS))
    assert image_embeddings(pooled_only(again), PIXELS).shape == (3, 16)
    assert image_embeddings(pooled_only(again, "all"), PIXELS).shape == (3, 32)
    wide = align(again, AlignedProjection(32, 0, 8))
    assert wide.config.vision_config.aligned_tokens is None
    assert image_embeddings(pooled_only(wide), PIXELS).shape == (3, 32)


def test_an_encoder_taken_as_a_whole_has_no_tokens_to_choose():
    with pytest.raises(TowerError, match="an alignment reads its features, not tokens"):
        pooled_only(student(), "class")


def test_a_projection_of_another_size_is_refused():
    with pytest.raises(TowerError, match=r"takes 24 dimensions, but .* 32, the class token .* 16"):
        align(tiny_clip(), AlignedProjection(24, 0, 8))
