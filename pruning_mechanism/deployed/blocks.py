"""Latency tables of towers that run as one graph: seconds of sublayers by differences of towers.

Where torch runs a tower, a clock is read after every sublayer (`costs.latency_measurement`). A
graph in another program, or a compiled one, fuses what it likes and shows one number. So towers of
few layers are made whose layers are all alike, with all, few, least or no heads and neurons, and
the parts are found whose sums come closest to what these towers take (least squares, no part below
zero). Their last layer is computed for all tokens: of two layers, one for the class token alone
would be half of all. Where smaller towers will compute theirs so, such towers are made as well, and
have parts of their own for that layer. Making a graph takes seconds, so few sizes are made, and
seconds lie on lines between these: one head takes more than its share, since norms, sums and narrow
products take what they do however few units there are. Even a layer without any adds biases to the
stream; that shows only beside towers of another depth, so two are made of all layers. Whole towers
correct the sums, as in every latency table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic

import numpy as np
from tqdm import tqdm

from pruning_mechanism.cost import Shape
from pruning_mechanism.costs.clock import Name, in_turn, noise_of
from pruning_mechanism.costs.conditions import (
    computed_in_full,
    conditions_of,
    settle_memory,
)
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_measurement import dense_shape
from pruning_mechanism.costs.latency_sizes import uniform_mask
from pruning_mechanism.deployed.block_table import Size, Sizes, table_of
from pruning_mechanism.deployed.tower import Deployed
from pruning_mechanism.reduction import Reduction, reduce
from pruning_mechanism.surgery import prune

BLOCK = 2
"""Layers of the small towers."""


def measure_blocks(
    tower: Deployed,
    batch_size: int = 32,
    repetitions: int = 15,
    progress: str | None = None,
    class_token: bool = False,
) -> LatencyTable:
    """The latency table of a dense tower where it will run.

    Args:
        tower: dense; it stays as it is.
        batch_size: images in a batch; the table is true of batches of that size.
        repetitions: timed turns, after one untimed.
        progress: the title of bars.
        class_token: whether smaller towers will compute their last layer for the class token alone.

    Raises:
        TowerError: the tower is pruned already, its layers differ in shape, or it can't be put
            into the runtime.
    """
    layers, heads, neurons = dense_shape(tower.model)
    sizes = Sizes.of(heads, neurons, Shape.of(tower.model.config).head_dim)
    small, block = _small(tower, layers)
    if class_token:  # an exit reads the class token even where nothing is pruned
        small = small.like(reduce(small.model, Reduction(layers=block), share=True))
    towers: dict[Size | None, Deployed] = {None: _in_full(tower)}
    for size in sizes.measured(block < layers, class_token):
        whole, depth = (tower, layers) if size.whole else (small, block)
        pruned = tower.like(prune(whole.model, uniform_mask(depth, sizes.dense[:4], size[:4])))
        towers[size] = pruned if size.class_token else _in_full(pruned)
    turns = _in_turn(towers, None, batch_size, repetitions, progress)
    conditions = conditions_of(tower.model, batch_size, repetitions)
    conditions = replace(conditions, runtime=tower.runtime, dtype=tower.kind)
    table = table_of(sizes, turns.shares, layers, block, conditions, turns.noise)
    return table.scaled(turns.seconds)


def merging_in_blocks(
    tower: Deployed, batch_size: int = 32, repetitions: int = 15, progress: str | None = None
) -> float:
    """What merging adds to a layer where a tower will run, in seconds per image.

    Each layer merges one pair of tokens; the seconds that fewer tokens save, in proportion, are
    added again. The arguments are those of `measure_blocks`.
    """
    small, block = _small(tower, dense_shape(tower.model)[0])
    merging = tower.like(reduce(small.model, Reduction(merged_per_layer=(1,) * block)))
    layerless = uniform_mask(block, dense_shape(small.model)[1:], (0, 0))
    towers = {"none": small, "merging": merging, "empty": tower.like(prune(small.model, layerless))}
    towers = {name: _in_full(each) for name, each in towers.items()}
    turns = _in_turn(towers, "none", batch_size, repetitions, progress)
    left_out = block**2 / 2 / Shape.of(tower.model.config).tokens  # layers of one token, together
    saved = (1 - turns.shares["empty"]) / block * left_out
    return max(0.0, turns.shares["merging"] - 1 + saved) / block * turns.seconds


def _small(tower: Deployed, layers: int) -> tuple[Deployed, int]:
    """The tower that ends after a few layers, and how many these are."""
    block = min(BLOCK, layers)
    if block == layers:
        return tower, block
    return tower.like(reduce(tower.model, Reduction(layers=block), share=True)), block


def _in_full(tower: Deployed) -> Deployed:
    """The same tower, its last layer computed for all tokens."""
    return tower.like(computed_in_full(tower.model))


@dataclass(frozen=True)
class Turns(Generic[Name]):
    """What towers took in turn.

    Attributes:
        shares: median seconds / those of one tower in the same turn.
        seconds: median ones of that tower, per image.
        noise: the relative standard error of a share, the median one.
    """

    shares: dict[Name, float]
    seconds: float
    noise: float


def _in_turn(
    towers: Mapping[Name, Deployed],
    whole: Name,
    batch_size: int,
    repetitions: int,
    progress: str | None,
) -> Turns[Name]:
    """Time towers in turn, as shares of one of them."""
    bar = tqdm(towers.items(), desc=progress, unit="graph", disable=progress is None)
    works = {name: partial(tower.embed, tower.noise(batch_size)) for name, tower in bar}
    settle_memory()
    turns = in_turn(works, repetitions, towers[whole].device, progress=progress)
    ratios = {name: np.divide(taken, turns[whole]) for name, taken in turns.items()}
    shares = {name: float(np.median(ratio)) for name, ratio in ratios.items()}
    return Turns(shares, float(np.median(turns[whole])) / batch_size, noise_of(ratios.values()))
