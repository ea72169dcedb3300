"""What a hook holds stays what the layer gave, in inference too."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.modules.module import register_module_forward_hook

from pruning_mechanism import image_embeddings, load, prune
from pruning_mechanism.modeling import pruned_layers
from pruning_mechanism.tower import Tower
from tests.conftest import tiny_clip
from tests.pruning_mechanism.conftest import random_mask

PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
INFERENCE = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.fixture(scope="module", params=["dense", "pruned"])
def saved(request, tmp_path_factory):
    """Where a tower lies; the widths of the pruned one are odd."""
    place = tmp_path_factory.mktemp(request.param)
    made = tiny_clip() if request.param == "dense" else prune(tiny_clip(), random_mask(3))
    made.save_pretrained(place)
    return place


@pytest.fixture
def model(saved):
    """As a user has it: loaded, so that activations are computed in place."""
    return load(saved)


@pytest.fixture(params=[10**6, 1], ids=["small batch", "large batch"])
def batch(request, monkeypatch):
    """Large batches compute fc1 a few zero neurons wider, unless somebody looks."""
    monkeypatch.setattr(pruned_layers, "LARGE_BATCH", request.param)


def check(mlp: nn.Module, given: torch.Tensor, found: torch.Tensor) -> None:
    torch.testing.assert_close(found, linear(given, mlp.fc1.weight, mlp.fc1.bias))


def layer_mlp(model: nn.Module) -> nn.Module:
    return Tower.of(model).layers[1].mlp


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("mode", INFERENCE)
def test_a_hook_on_fc1_keeps_what_fc1_gave(model, mode):
    mlp, seen = layer_mlp(model), []
    with INFERENCE[mode]():
        expected = image_embeddings(model, PIXELS)
        mlp.fc1.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        assert torch.allclose(image_embeddings(model, PIXELS), expected, atol=1e-5)
        check(mlp, *seen[0])


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("mode", INFERENCE)
def test_hooks_on_the_activation_see_both_sides_of_it(model, mode):
    mlp, given, seen = layer_mlp(model), [], []
    with INFERENCE[mode]():
        mlp.fc1.register_forward_pre_hook(lambda _, args: given.append(args[0]))
        mlp.activation_fn.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
        mlp.activation_fn.register_forward_hook(
            lambda _, args, output: seen.extend((*args, output))
        )
        image_embeddings(model, PIXELS)
        before, again, after = seen
        check(mlp, given[0], before)
        assert torch.equal(again, before)
        torch.testing.assert_close(after, before * torch.sigmoid(1.702 * before))


@pytest.mark.usefixtures("batch")
def test_a_hook_on_every_module_keeps_what_each_gave(model):
    mlp, seen = layer_mlp(model), {}
    handle = register_module_forward_hook(
        lambda module, args, output: seen.update({module: (args[0], output)}) if args else None
    )
    try:
        with torch.no_grad():
            image_embeddings(model, PIXELS)
    finally:
        handle.remove()
    check(mlp, *seen[mlp.fc1])


@pytest.mark.usefixtures("batch")
def test_a_forward_put_in_the_place_of_fc1s_is_called(model):
    """As libraries do that move layers between devices or watch them."""
    mlp, seen = layer_mlp(model), []
    own = mlp.fc1.forward

    def watched(hidden):
        seen.append((hidden, own(hidden)))
        return seen[0][1]

    mlp.fc1.forward = watched
    with torch.no_grad():
        image_embeddings(model, PIXELS)
    check(mlp, *seen[0])
