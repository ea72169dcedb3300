import weakref

import pytest
import torch

from compress.calibrating.calibration import Batch
from compress.calibrating.importance import mask_gradients
from compress.calibrating.objective import Contrastive, contrastive_loss
from compress.errors import UserError
from pruning_mechanism import Mask, Tower, masked, sublayers
from pruning_mechanism.encoding import image_embeddings, text_embeddings
from tests.conftest import tiny_clip


def batch(images=5, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 15, (images, 6), generator=generator)
    tokens[:, 0], tokens[:, -1] = 0, 1
    return Batch(torch.randn(images, 3, 16, 16, generator=generator), {"input_ids": tokens})


def gradients_by_definition(model, given: Batch):
    """Autograd through a mask variable of 1 before every unit, each image its own."""
    images = len(given.pixels)
    variables, contexts = {}, []
    for sublayer in sublayers(model):
        variable = torch.ones(images, sublayer.units, requires_grad=True)
        variables[sublayer.kind, sublayer.layer] = variable

        def scaled(features, variable=variable, width=sublayer.unit_width):
            return features * variable.repeat_interleave(width, dim=1)[:, None]

        contexts.append(sublayer.watch(scaled))
    for context in contexts:
        context.__enter__()
    embeddings = image_embeddings(model, given.pixels)
    texts = text_embeddings(model, given.tokens)
    loss = contrastive_loss(embeddings, texts, model.logit_scale.exp())
    found = torch.autograd.grad(loss, list(variables.values()))
    for context in contexts:
        context.__exit__(None, None, None)
    by_place = dict(zip(variables, found, strict=True))
    return {
        kind: torch.stack([by_place[kind, layer] for layer in range(3)], dim=1)
        for kind in ("heads", "neurons")
    }


def test_mask_gradients_are_those_of_a_mask_variable_for_each_image():
    model, given = tiny_clip(), batch()
    (found,) = mask_gradients(Tower.of(model), [given], Contrastive(model))
    expected = gradients_by_definition(model, given)
    torch.testing.assert_close(found.heads, expected["heads"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.neurons, expected["neurons"], atol=1e-4, rtol=1e-4)
    assert found.heads.abs().max() > 0.01


def test_a_dropped_unit_has_no_gradient_in_the_masked_tower():
    model = tiny_clip()
    dense = Mask.dense(model.config)
    heads = dense.heads.clone()
    heads[1, 2] = False
    with masked(model, Mask(heads, dense.neurons)):
        (found,) = mask_gradients(Tower.of(model), [batch()], Contrastive(model))
    assert found.heads[:, 1, 2].abs().max() == 0
    assert (found.heads[:, 1, 3] != 0).all()


def test_weights_get_no_gradient_and_stay_trainable():
    model = tiny_clip()
    list(mask_gradients(Tower.of(model), [batch()], Contrastive(model)))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_another_models_texts_can_be_used():
    model, other = tiny_clip(0), tiny_clip(1)
    (own,) = mask_gradients(Tower.of(model), [batch()], Contrastive(model))
    (lent,) = mask_gradients(Tower.of(model), [batch()], Contrastive(other))
    assert not torch.allclose(own.heads, lent.heads)


def test_each_loss_of_an_objective_has_its_own_gradients():
    model, given = tiny_clip(), batch()
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))

    def three(embeddings, _batch):
        return [(embeddings * row).sum() for row in rows]

    together = list(mask_gradients(Tower.of(model), [given, given], three))
    assert len(together) == 6
    for index, row in enumerate(rows):
        (alone,) = mask_gradients(Tower.of(model), [given], lambda y, _, row=row: [(y * row).sum()])
        for twice in (together[index], together[index + 3]):
            torch.testing.assert_close(twice.heads, alone.heads)
            torch.testing.assert_close(twice.neurons, alone.neurons)


def saved_for_backward(model) -> int:
    """The most numbers that autograd holds at a time during a scoring pass."""
    alive, most = weakref.WeakSet(), 0

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # a graph that held its own outputs would never go

    def hold(tensor):
        nonlocal most
        alive.add(held := Held(tensor))
        most = max(most, sum(each.tensor.numel() for each in alive))
        return held

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda held: held.tensor):
        list(mask_gradients(Tower.of(model), [batch()], Contrastive(model)))
    return most


def test_the_graph_that_is_held_does_not_grow_with_the_layers():
    shallow, deep = tiny_clip(num_hidden_layers=2), tiny_clip(num_hidden_layers=6)
    assert saved_for_backward(deep) == saved_for_backward(shallow) > 0


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ("vision_model.embeddings.patch_embedding.weight", "the patch embedding"),
        ("vision_model.encoder.layers.1.self_attn.v_proj.weight", "the heads of layer 1"),
        ("vision_model.encoder.layers.2.mlp.fc2.bias", "the neurons of layer 2"),
        ("visual_projection.weight", "the projection"),
    ],
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_activations_that_are_not_finite_name_where_they_start(broken, place, value):
    model = tiny_clip()
    model.get_parameter(broken).data.view(-1)[3] = value
    with pytest.raises(UserError, match=f"not finite from {place} on"):
        list(mask_gradients(Tower.of(model), [batch()], Contrastive(model)))


def test_gradients_that_are_not_finite_name_the_layer():
    model = tiny_clip()
    model.vision_model.encoder.layers[1].mlp.fc2.register_full_backward_hook(
        lambda _module, gradients, _: (gradients[0] * torch.inf,)
    )
    with pytest.raises(UserError, match=r"neurons of layer 1 are not finite for 5 of 5 images"):
        list(mask_gradients(Tower.of(model), [batch()], Contrastive(model)))
