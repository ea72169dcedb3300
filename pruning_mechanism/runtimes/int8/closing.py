"""The last linear map of a tower, solved anew for what a quantised tower computes before it.

int8 rounds what every layer hands to the next; what has come of all that before the projection
differs a little from what the projection was made for. So the projection is put right by the same
ridge regression as alignment (`pruning_mechanism.ridge`), towards the one that it has:

    min ‖Y - ẐW‖² + λ‖W - W₀‖²

with Ẑ [n, r] what the quantised tower gives it on calibration images and Y [n, e] the embeddings of
the tower in float32. The projection itself stays in float32: it is a hundredth of the work.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_mechanism.encoding import tower_of
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from pruning_mechanism.ridge import Ridge, deviations, ridge


@dataclass(frozen=True)
class Closing:
    """A linear map [n, r] → [n, e] in float32: `weight` [r, e] and `bias` [e].

    `solved` is the regression that it came of; None: it is the tower's own.
    """

    weight: Tensor
    bias: Tensor
    solved: Ridge | None = None


def split(model: PreTrainedModel) -> tuple[PreTrainedModel, Closing]:
    """A copy of a model that gives what its last linear map takes, and that map.

    Where a tower doesn't end in one, the copy gives the embeddings and the map leaves them. Weights
    lie in the same memory.
    """
    shared = {id(weight): nn.Parameter(weight.detach(), False) for weight in model.parameters()}
    made = copy.deepcopy(model, {**shared, **{id(tensor): tensor for tensor in model.buffers()}})
    final = tower_of(made).final
    linear = final.linear if isinstance(final, AlignedProjection) else final
    if not isinstance(linear, nn.Linear):
        size = tower_of(made).dimension
        return made, Closing(torch.eye(size), torch.zeros(size))
    for module in list(made.modules()):
        for name, child in module.named_children():
            if child is linear:
                setattr(module, name, nn.Identity())
    bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
    return made, Closing(linear.weight.detach().float().T.contiguous(), bias.float())


def solve(own: Closing, features: Tensor, targets: Tensor) -> Closing:
    """The linear map that comes closest to the embeddings; the own one unless it is surely better.

    Args:
        own: the tower's, W₀.
        features: what the quantised tower gives, Ẑ [n, r].
        targets: Y [n, e].
    """
    read = features.double()
    mean, deviation = read.mean(0), deviations(read)
    weight, bias = own.weight.double(), own.bias.double()
    solved = ridge(
        (read - mean) / deviation, targets, weight * deviation[:, None], bias + mean @ weight
    )
    if solved.as_it_was:
        return Closing(own.weight, own.bias, solved)
    weight = solved.weight / deviation[:, None]
    return Closing(weight.float(), (solved.intercept - mean @ weight).float(), solved)
