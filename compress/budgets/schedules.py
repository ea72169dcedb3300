"""Schedules of merging: how many tokens become one in each layer."""

from collections.abc import Sequence
from itertools import pairwise

from compress.choices import Schedule
from pruning_mechanism import Shape
from pruning_mechanism.families import tower_config
from pruning_mechanism.protocols import Config


def spread(total: int, layers: int, schedule: Schedule = "constant") -> tuple[int, ...]:
    """How many of `total` tokens merge in each layer: as evenly, or as evenly falling, as can be.

    Each layer's number is the difference of two rounded sums, so that they add up to `total`.
    """
    if schedule == "constant":
        sums = [total * layer // layers for layer in range(layers + 1)]
    else:  # falls linearly from the first layer to 0 in the last
        weights = range(layers - 1, -1, -1) if layers > 1 else [1]
        done = [sum(weights[:layer]) for layer in range(layers + 1)]
        sums = [total * share // done[-1] for share in done]
    return tuple(after - before for before, after in pairwise(sums))


def schedules(config: Config, schedule: Schedule = "constant") -> Sequence[tuple[int, ...]]:
    """All schedules of a tower, from no token merged to as many as there are."""
    layers = tower_config(config, "vision").num_hidden_layers
    tokens = int(Shape.of(config).tokens)
    return [spread(total, layers, schedule) for total in range(layers * tokens // 2)]
