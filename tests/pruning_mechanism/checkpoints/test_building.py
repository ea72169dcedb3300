"""A model filled with the tensors of files is the one that transformers would load."""

import pytest
import torch
from transformers import AutoConfig

from pruning_mechanism import prune
from pruning_mechanism.checkpoints import building
from pruning_mechanism.checkpoints.weights import Weights
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import FAMILIES, random_slim_mask, tiny_model


@pytest.fixture(scope="module", params=[*FAMILIES, "pruned"])
def stored(request, tmp_path_factory):
    """A checkpoint's configuration and weights, as they are read."""
    if request.param == "pruned":
        model = prune(tiny_model("clip"), random_slim_mask(0))
    else:
        model = tiny_model(request.param)
    place = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(place)
    weights = Weights.of(place)
    if weights.tensors.keys() != model.state_dict().keys():
        pytest.skip("transformers writes this family's weights under other names")
    return AutoConfig.from_pretrained(place), weights


@pytest.mark.parametrize("dtype", sweep([torch.float32, torch.float64], [torch.float64]))
def test_filled_and_matched_are_the_same_model(stored, dtype):
    filled = building._filled(*stored, dtype)
    found = building._matched(*stored, dtype)
    matched = found.model
    assert not found.missing
    assert not found.unexpected
    assert type(filled) is type(matched)
    matched.config._name_or_path = filled.config._name_or_path  # which `load` sets
    assert filled.config.to_dict() == matched.config.to_dict()
    for name, tensor in stored[1].read().items():  # transformers zeroes a row of Chinese-CLIP's
        assert torch.equal(filled.state_dict()[name], tensor.to(dtype))
    other = dict(matched.named_parameters())
    for name, parameter in filled.named_parameters():
        assert parameter.requires_grad == other[name].requires_grad
        assert parameter.dtype == other[name].dtype
    buffers = dict(matched.named_buffers())
    assert buffers.keys() == dict(filled.named_buffers()).keys()
    for name, buffer in filled.named_buffers():  # position ids, too, which no file holds
        assert torch.equal(buffer, buffers[name])


def test_loading_draws_no_random_numbers(stored):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    building.build("here", *stored, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_and_other_names_are_left_to_transformers(stored, monkeypatch):
    config, weights = stored
    monkeypatch.setattr(building, "_filled", None)
    assert building.build("here", config, weights, torch.bfloat16).model.dtype == torch.bfloat16
    beside = {**weights.tensors, "beside": next(iter(weights.tensors.values()))}
    more = Weights(weights.path, beside)
    assert building.build("here", config, more, torch.float32).unexpected == {"beside"}
