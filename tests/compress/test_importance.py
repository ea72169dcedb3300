import torch
from torch.nn.functional import log_softmax

from compress.calibration import Batch
from compress.importance import contrastive_loss, mask_gradients
from pruning_mechanism import Mask, masked, sublayers
from pruning_mechanism.tower import image_embeddings, text_embeddings
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
    (found,) = mask_gradients(model, [given])
    expected = gradients_by_definition(model, given)
    torch.testing.assert_close(found.heads, expected["heads"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.neurons, expected["neurons"], atol=1e-4, rtol=1e-4)
    assert found.heads.abs().max() > 0.01


def test_the_loss_is_clips_summed_over_the_batch():
    images, texts = torch.randn(6, 8), torch.randn(6, 8)
    normed = [x / x.norm(dim=-1, keepdim=True) for x in (images, texts)]
    logits = 7.0 * normed[0] @ normed[1].T
    expected = -(log_softmax(logits, 1) + log_softmax(logits, 0)).diagonal().sum() / 2
    torch.testing.assert_close(contrastive_loss(images, texts, torch.tensor(7.0)), expected)


def test_a_dropped_unit_has_no_gradient_in_the_masked_tower():
    model = tiny_clip()
    dense = Mask.dense(model.config)
    heads = dense.heads.clone()
    heads[1, 2] = False
    with masked(model, Mask(heads, dense.neurons)):
        (found,) = mask_gradients(model, [batch()])
    assert found.heads[:, 1, 2].abs().max() == 0
    assert (found.heads[:, 1, 3] != 0).all()


def test_weights_get_no_gradient_and_stay_trainable():
    model = tiny_clip()
    list(mask_gradients(model, [batch()]))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_another_models_texts_can_be_used():
    model, other = tiny_clip(0), tiny_clip(1)
    (own,) = mask_gradients(model, [batch()])
    (lent,) = mask_gradients(model, [batch()], texts=other)
    assert not torch.allclose(own.heads, lent.heads)
