"""Changes of a dense tower's weights that change nothing that it computes.

What a rule decides and what a closed form solves must not depend on which of these towers it is
given. Each function takes a model and gives a copy; what it draws comes from the generator. They
are computed in the model's own precision: in float64 the two agree to about 1e-12.
"""

import copy
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from pruning_mechanism import Sublayer, Tower, TowerKind
from pruning_mechanism.heads import rotate, shift_keys

Change = Callable[[nn.Module, Generator, TowerKind], nn.Module]


def scaled_values(model: nn.Module, generator: Generator, tower: TowerKind = "vision") -> nn.Module:
    """Every head's values times a factor of its own from 1/30 to 30, its output rows divided."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        factors = _factors(generator, part.units)[:, None].expand(-1, part.unit_width)
        same = _identity(part)
        rotate(part, same, same, torch.diag_embed(factors))
    return changed


def scaled_value_dimensions(
    model: nn.Module, generator: Generator, tower: TowerKind = "vision"
) -> nn.Module:
    """As `scaled_values`, with a factor for every single dimension of a head."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        same = _identity(part)
        rotate(part, same, same, torch.diag_embed(_factors(generator, part.units, part.unit_width)))
    return changed


def scaled_keys(model: nn.Module, generator: Generator, tower: TowerKind = "vision") -> nn.Module:
    """Every head's keys times a factor of its own, its queries divided by it."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        same = _identity(part)
        factors = _factors(generator, part.units)[:, None, None]
        rotate(part, same / factors, same * factors, same)
    return changed


def rotated_heads(model: nn.Module, generator: Generator, tower: TowerKind = "vision") -> nn.Module:
    """Every head's queries and keys turned together, and its values against the output rows."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        turned, values = (_orthogonal(generator, part) for _ in range(2))
        rotate(part, turned, turned, values)
    return changed


def recombined_heads(
    model: nn.Module, generator: Generator, tower: TowerKind = "vision"
) -> nn.Module:
    """Every head's queries and keys, and its values, in any other bases, not orthogonal."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        bases = [
            _orthogonal(generator, part)
            * _factors(generator, part.units, part.unit_width)[:, None] ** 0.5
            @ _orthogonal(generator, part)
            for _ in range(2)
        ]
        rotate(part, torch.linalg.inv(bases[0]).mT, bases[0], bases[1])
    return changed


@torch.no_grad()
def permuted_units(
    model: nn.Module, generator: Generator, tower: TowerKind = "vision"
) -> nn.Module:
    """Every layer's heads in another order, and its neurons.

    In the order of the tower's sublayers, each takes one `torch.randperm(units)` from the
    generator: the new unit `i` is the old one `order[i]`.
    """
    changed = copy.deepcopy(model)
    for part in Tower.of(changed, tower).sublayers:
        order = torch.randperm(part.units, generator=generator)
        rows = torch.arange(part.units * part.unit_width).unflatten(0, (part.units, -1))
        rows = rows[order].flatten().to(part.output.weight.device)
        body = part.body
        into = (body.q_proj, body.k_proj, body.v_proj) if part.kind == "heads" else (body.fc1,)
        for layer in into:
            layer.weight.copy_(layer.weight[rows])
            layer.bias.copy_(layer.bias[rows])
        part.output.weight.copy_(part.output.weight[:, rows])
    return changed


@torch.no_grad()
def shifted_values(
    model: nn.Module, generator: Generator, tower: TowerKind = "vision"
) -> nn.Module:
    """A constant added to every head's values; attention sums to 1, so the bias takes it back."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        values, output = part.body.v_proj, part.output
        shift = 3 * _normal(generator, values.bias.numel()).to(values.bias.device)
        bias = output.bias.double() - output.weight.double() @ shift
        values.bias.copy_(values.bias.double() + shift)
        output.bias.copy_(bias)
    return changed


def shifted_keys(model: nn.Module, generator: Generator, tower: TowerKind = "vision") -> nn.Module:
    """A constant added to every head's keys: the softmax over keys doesn't see it."""
    changed = copy.deepcopy(model)
    for part in _attentions(changed, tower):
        shift_keys(part, _normal(generator, part.units, part.unit_width))
    return changed


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        scaled_values,
        scaled_value_dimensions,
        scaled_keys,
        rotated_heads,
        recombined_heads,
        permuted_units,
        shifted_values,
        shifted_keys,
    )
}
"""All of them by name, for `pytest.mark.parametrize`."""


def _attentions(model: nn.Module, tower: TowerKind) -> list[Sublayer]:
    return [part for part in Tower.of(model, tower).sublayers if part.kind == "heads"]


def _identity(part: Sublayer) -> Tensor:
    return torch.eye(part.unit_width, dtype=torch.float64).expand(part.units, -1, -1)


def _normal(generator: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _factors(generator: Generator, *shape: int) -> Tensor:
    """From 1/30 to 30, evenly by their logarithm."""
    return 30.0 ** (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1)


def _orthogonal(generator: Generator, part: Sublayer) -> Tensor:
    """A rotation or reflection for each head, [H, h, h]."""
    return torch.linalg.qr(_normal(generator, part.units, part.unit_width, part.unit_width))[0]
