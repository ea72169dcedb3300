"""The harm of int8 is told by product from one backward pass, and the worst stay in float32."""

import pytest
import torch
from torch import nn

from pruning_mechanism import Reduction, image_embeddings, reduce
from pruning_mechanism.runtimes.in_torch import Embedder
from pruning_mechanism.runtimes.int8 import rounding
from pruning_mechanism.runtimes.int8.rounding import Product, left_in_float, rounding_harm
from tests.conftest import tiny_clip
from tests.pruning_mechanism.runtimes.conftest import pixels
from tests.pruning_mechanism.test_export import MODELS, one_layer

PATCHES = "model.vision_model.embeddings.patch_embedding"


def rounded_weight(module: nn.Module, steps: int) -> None:
    """Round the weight of each output to so many steps either side of 0."""
    weight = module.weight.data
    most = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.dim() - 1))
    module.weight.data = (weight / most * steps).round() / steps * most


def harm_by_hand(model: nn.Module, name: str, given: torch.Tensor) -> float:
    """Mean 1 - cos of a model and one whose module has rounded weights and inputs."""
    module = Embedder(model).get_submodule(name)
    with torch.no_grad():
        before, kept, seen = image_embeddings(model, given).double(), module.weight.data, []
        watching = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        image_embeddings(model, given)
        watching.remove()
        low, high = seen[0].min(), seen[0].max()
        step = (high - low) / 255
        rounding_inputs = module.register_forward_pre_hook(
            lambda _, args: (torch.round(args[0] / step) * step,)
        )
        rounded_weight(module, 127)
        after = image_embeddings(model, given).double()
        rounding_inputs.remove()
        module.weight.data = kept
    return (1 - torch.cosine_similarity(before, after)).mean().item()


def test_the_harm_of_a_product_is_that_of_rounding_it_alone():
    model, given = tiny_clip().eval(), pixels(64)
    harm = {product.name: product.harm for product in rounding_harm(model, given)}
    assert harm[PATCHES] == pytest.approx(harm_by_hand(model, PATCHES, given), rel=0.4)


def test_work_is_counted_as_it_is_done():
    """A pruned layer's products are smaller, a merged one's have fewer tokens."""
    model = one_layer().eval()
    macs = {product.name: product.macs for product in rounding_harm(model, pixels(3))}
    module = Embedder(model).get_submodule(PATCHES)
    assert macs[PATCHES] == 16 * module.weight.numel()  # 16 pixels, patches of 4
    assert macs["model.visual_projection"] == model.visual_projection.weight.numel()


def test_a_last_layer_for_the_class_token_alone_is_work_for_one_token():
    model = reduce(tiny_clip().eval(), Reduction(layers=1))
    macs = {product.name: product.macs for product in rounding_harm(model, pixels(3))}
    layer = "model.vision_model.encoder.layers.0"
    assert macs[f"{layer}.mlp.fc1"] == model.vision_model.encoder.layers[0].mlp.fc1.weight.numel()
    assert f"{layer}.self_attn.q_proj" in macs
    assert f"{layer}.self_attn.k_proj" not in macs


def test_a_patch_embedding_is_seen_where_only_some_patches_are_embedded():
    given = pixels(32)
    whole, few = (
        {product.name: product for product in rounding_harm(model.eval(), given)}[PATCHES]
        for model in (tiny_clip(), reduce(tiny_clip(), Reduction(kept_patches=4)))
    )
    assert few.macs == whole.macs / 4
    assert few.harm > whole.harm / 4


def test_harm_does_not_depend_on_how_many_images_come_together(monkeypatch):
    model, given = one_layer().eval(), pixels(12)
    few = rounding_harm(model, given)
    monkeypatch.setattr(rounding, "TOGETHER", 12)
    many = rounding_harm(model, given)
    assert [each.macs for each in few] == [each.macs for each in many]
    harm = [each.harm for each in many]
    assert [each.harm for each in few] == pytest.approx(harm, rel=1e-3)


def test_the_model_is_left_as_it_was():
    model, given = tiny_clip(), pixels(4)
    model.logit_scale.requires_grad_(False)
    before = {name: (w.clone(), w.requires_grad) for name, w in model.named_parameters()}
    wanted = image_embeddings(model.eval(), given)
    rounding_harm(model, given)
    assert torch.equal(image_embeddings(model, given), wanted)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name][0])
        assert weight.grad is None
        assert weight.requires_grad == before[name][1]


@pytest.mark.parametrize("name", ["head sizes", "resolutions", "all together"])
def test_every_kind_of_tower_has_finite_harm(name):
    products = rounding_harm(MODELS[name]().eval(), pixels(8))
    assert all(0 <= product.harm < 1 and product.macs > 0 for product in products)
    assert len({product.name for product in products}) == len(products)


def test_what_does_most_harm_for_its_work_stays_in_float32(monkeypatch):
    monkeypatch.setattr(rounding, "HARM", 0.25)
    products = [Product("a", 10, 0.1), Product("b", 1, 0.5), Product("c", 89, 0.2)]
    assert [product.name for product in left_in_float(products)] == ["b", "a"]  # 0.3 left after b


def test_no_more_work_stays_than_is_allowed(monkeypatch):
    monkeypatch.setattr(rounding, "MOST", 0.1)
    products = [Product("large", 11, 0.9), Product("small", 4, 0.1), Product("rest", 85, 0.1)]
    assert [product.name for product in left_in_float(products)] == ["small"]


def test_nothing_stays_where_int8_does_no_harm():
    assert left_in_float([Product("a", 1, 1e-7)]) == []
