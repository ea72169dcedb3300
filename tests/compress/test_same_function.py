"""The changes of weights that change no output, which invariance is tested with."""

import pytest
import torch

from pruning_mechanism import Tower
from tests.compress.same_function import CHANGES
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import TOWERS, tiny_inputs, tiny_model


def embedded(model, tower, dtype):
    inputs = tiny_inputs(tower)
    with torch.no_grad():
        return Tower.of(model, tower).embeddings(inputs.to(dtype) if tower == "vision" else inputs)


DTYPES = [(torch.float64, 1e-11), (torch.float32, 1e-3)]


@pytest.mark.parametrize(("dtype", "tolerance"), sweep(DTYPES, DTYPES[:1]))
@pytest.mark.parametrize(
    ("family", "tower"),
    sweep(TOWERS, [("clip", "text"), ("siglip", "vision"), ("altclip", "vision")]),
)
@pytest.mark.parametrize("change", CHANGES)
def test_the_weights_change_and_the_output_does_not(change, family, tower, dtype, tolerance):
    model = tiny_model(family).to(dtype)
    before = embedded(model, tower, dtype)
    changed = CHANGES[change](model, torch.Generator().manual_seed(0), tower)
    after = embedded(changed, tower, dtype)
    torch.testing.assert_close(after, before, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(embedded(model, tower, dtype), before, rtol=0, atol=0)
    own, others = model.state_dict(), changed.state_dict()
    moved = {name for name in own if not torch.equal(own[name], others[name])}
    layers = len(Tower.of(model, tower).layers)
    assert len({name.split("layers.")[1].split(".")[0] for name in moved}) == layers
