"""What a tower takes where it will run: its latency table, merging, and its share of another's.

In torch each part is timed in its place; elsewhere by what small towers take (`blocks`).
"""

from functools import partial

import numpy as np

from pruning_mechanism.costs import latency_measurement
from pruning_mechanism.costs.clock import in_turn
from pruning_mechanism.costs.conditions import settle_memory
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.deployed.blocks import measure_blocks, merging_in_blocks
from pruning_mechanism.deployed.tower import Deployed

SMALL = 3
"""Turns of small towers for one of whole ones: they take a fraction of these, and differ little."""


def measure(
    tower: Deployed,
    batch_size: int = 32,
    repetitions: int = 7,
    progress: str | None = None,
    class_token: bool = False,
) -> LatencyTable:
    """How long the parts of a dense tower take where it will run, on this machine.

    Args:
        tower: dense; it stays as it is.
        batch_size: images in a batch; the table is true of batches of that size.
        repetitions: timed turns, after one untimed.
        progress: the title of a bar.
        class_token: whether smaller towers will compute their last layer for the class token alone
            (`Tower.reads_class_token`); what that takes is measured as well.

    Raises:
        TowerError: the tower is pruned already, its layers differ in shape, or it can't be put
            into the runtime.
        ValueError: a count is below 1.
    """
    if not tower.in_torch:
        return measure_blocks(tower, batch_size, SMALL * repetitions, progress, class_token)
    return latency_measurement.measure(
        tower.in_its_type,
        batch_size,
        repetitions=repetitions,
        progress=progress,
        class_token=class_token,
    )


def seconds_of_merging(
    tower: Deployed, batch_size: int = 32, repetitions: int = 7, progress: str | None = None
) -> float:
    """What merging adds to a layer, in seconds per image, not counting what fewer tokens save.

    The arguments are those of `measure`, of a tower with a class token.
    """
    if not tower.in_torch:
        return merging_in_blocks(tower, batch_size, SMALL * repetitions, progress)
    return latency_measurement.seconds_of_merging(
        tower.in_its_type, batch_size, repetitions, progress
    )


def measured_share(
    smaller: Deployed, dense: Deployed, batch_size: int = 32, repetitions: int = 7
) -> float:
    """Seconds of one vision tower / those of another, in turn, whole batches; the median ratio.

    Args:
        smaller: the one that is to be cheaper.
        dense: the one that it is compared with, on the same device.
        batch_size: images in a batch.
        repetitions: timed turns, after one untimed.
    """
    towers = {"smaller": smaller, "dense": dense}
    works = {name: partial(tower.embed, tower.noise(batch_size)) for name, tower in towers.items()}
    settle_memory()
    seconds = in_turn(works, repetitions, dense.device)
    return float(np.median(np.divide(seconds["smaller"], seconds["dense"])))
