"""Measuring a latency table: every size of a sublayer timed where it runs, inside whole towers.

A sublayer timed in a loop of its own finds its weights in the cache and is faster than it will
ever be in a tower. So a few pruned towers are made in which every number of heads, every size of
heads and every width of a grid has its place in some layer, whole batches pass through them and the
dense tower in turn, and a clock is read after every sublayer. Whole towers of a few sizes, all
layers alike, are timed in the same turns. All are computed for all tokens; where the last layer is
to be computed for the class token alone, every layer is timed as if it were that one as well, in a
pass of its own, so that its weights have to come from as far away as they will.
"""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from pruning_mechanism.cost import Shape
from pruning_mechanism.costs.clock import noise_of, seconds_of, synchronise
from pruning_mechanism.costs.conditions import (
    Conditions,
    computed_in_full,
    conditions_of,
    noise_pixels,
    settle_memory,
)
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_sizes import (
    Attention,
    mixed_masks,
    uniform_counts,
    uniform_mask,
)
from pruning_mechanism.costs.sublayer_seconds import SublayerSeconds
from pruning_mechanism.encoding import image_embeddings
from pruning_mechanism.families import TowerError
from pruning_mechanism.modeling.class_token import class_token_attended, class_token_fed
from pruning_mechanism.reduction import Reduction, reduce
from pruning_mechanism.sublayer import Sublayer
from pruning_mechanism.surgery import prune
from pruning_mechanism.tower import Tower, embed, project, sublayers


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    repetitions: int = 7,
    progress: str | None = None,
    class_token: bool = False,
) -> LatencyTable:
    """Measure how long the parts of `model`'s vision tower take on this machine.

    A turn passes one batch through the dense tower and through each tower of mixed sizes; entries
    are medians over the turns and over the layers of that size. The dense tower, and towers with
    the same share of heads and neurons in every layer, are timed as their user calls them as well;
    all entries are multiplied by one factor, close to 1, so that the parts of the table's dense
    tower add up to just what that took.

    Args:
        model: a dense tower, which stays as it is.
        batch_size: images in a batch; the table is true of batches of that size.
        device: where to measure; where the model is, if None.
        repetitions: timed turns, after one untimed.
        progress: the title of a bar.
        class_token: whether smaller towers will compute their last layer for the class token alone.

    Raises:
        TowerError: the tower is pruned already, or its layers differ in shape.
        ValueError: a count is below 1.
    """
    if batch_size < 1 or repetitions < 1:
        raise ValueError(f"need counts of at least 1, got {batch_size} and {repetitions}")
    here = next(model.parameters()).device
    if device is not None and torch.empty(0, device=device).device != here:  # "cuda" is "cuda:0"
        model = copy.deepcopy(model)
        model.to(device)  # type: ignore[arg-type]  # to mypy what wraps it is no method
    layers, heads, neurons = dense_shape(model)
    masks = mixed_masks(layers, heads, neurons, Shape.of(model.config).head_dim)
    towers = [model, *(prune(model, mask) for mask in masks)]
    wholes = {
        counts: computed_in_full(prune(model, uniform_mask(layers, (heads, neurons), counts)))
        for counts in uniform_counts(heads, neurons)
    } | {(heads, neurons): computed_in_full(model)}
    pixels = noise_pixels(model, batch_size)
    settle_memory()
    seconds = Seconds()
    for turn in tqdm(range(repetitions + 1), desc=progress, unit="turn", disable=progress is None):
        now = seconds if turn else Seconds()  # the first turn warms up
        for counts, tower in wholes.items():
            now.wholes[counts].append(
                seconds_of(partial(image_embeddings, tower, pixels), pixels.device)
            )
        for tower in towers:
            now.add_parts(tower, pixels)
            if class_token:
                now.add_class_token(tower, pixels)
    return seconds.table(layers, conditions_of(model, batch_size, repetitions))


@torch.inference_mode()
def seconds_of_merging(
    model: PreTrainedModel, batch_size: int = 32, repetitions: int = 7, progress: str | None = None
) -> float:
    """What merging adds to a layer, in seconds per image, not counting what fewer tokens save.

    Matching tokens, merging them, and attending by their sizes; attention alone and with all of
    it in turn, layer by layer, the median difference.

    Args:
        model: a dense tower with a class token, which stays as it is.
        batch_size: images in a batch.
        repetitions: timed turns, after one untimed.
        progress: the title of a bar.
    """
    layers = len(Tower.of(model).layers)
    tower = Tower.of(reduce(model, Reduction(merged_per_layer=(1,) * layers)))
    hidden = tower.embed(noise_pixels(model, batch_size))
    sizes = hidden.new_ones(hidden.shape[:2], dtype=torch.float32)
    settle_memory()
    extra = []
    for turn in tqdm(range(repetitions + 1), desc=progress, unit="turn", disable=progress is None):
        for layer in range(layers):
            marks = _Marks(hidden.device)
            tower.root.attend(layer, hidden, None)
            marks.add()
            tower.root.attend_and_reduce(layer, hidden, sizes)
            marks.add()
            alone, merging = marks.laps()
            if turn:
                extra.append(merging - alone)
    return max(0.0, float(np.median(extra))) / batch_size


class Seconds:
    """Seconds per batch of every pass so far, by part and size.

    `wholes` are of whole towers, by the numbers of heads and neurons in each of their layers;
    `parts` of sublayers, `class_token` of those that are computed for the class token alone.
    """

    def __init__(self) -> None:
        self.wholes: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        self.outside: list[float] = []
        self.parts = Laps()
        self.class_token = Laps()

    def add_parts(self, model: PreTrainedModel, pixels: Tensor) -> None:
        """Time every part of a tower in one pass; what isn't the CPU keeps the time itself."""
        parts, device = sublayers(model), pixels.device
        marks = _Marks(device)
        hidden = embed(model, pixels)
        marks.add()
        for part in parts:
            hidden = part(hidden)
            marks.add()
        project(model, hidden)
        marks.add()
        first, *laps, last = marks.laps()
        self.outside.append(first + last)
        self.parts.add(parts, laps)

    def add_class_token(self, model: PreTrainedModel, pixels: Tensor) -> None:
        """Time every layer of a tower as if it were one for the class token alone."""
        hidden = embed(model, pixels)
        marks = _Marks(pixels.device)
        for layer in Tower.of(model).layers:
            attended = class_token_attended(layer, hidden)
            marks.add()
            class_token_fed(layer, attended)
            marks.add()
        self.class_token.add(sublayers(model), marks.laps())

    def table(self, layers: int, conditions: Conditions) -> LatencyTable:
        """Median seconds per image; the dense tower's parts add up to what it took as a whole."""

        def per_image(batches: list[float]) -> float:
            return float(np.median(batches)) / conditions.batch_size

        own = self.parts.seconds(per_image)
        table = LatencyTable(
            layers=layers,
            outside=per_image(self.outside),
            noise=noise_of((*self.parts.attention.values(), *self.parts.mlps.values())),
            conditions=conditions,
            class_token=self.class_token.seconds(per_image) if self.class_token.mlps else None,
            **{each.name: getattr(own, each.name) for each in fields(own)},
        )
        heads, widest = len(table.heads) - 1, table.widths[-1]
        dense_turns = self.wholes[heads, widest]
        table = table.scaled(per_image(dense_turns) / table.dense)
        full = replace(table, class_token=None)
        shares = {
            full.parts([kept] * layers, [width] * layers): np.median(np.divide(turns, dense_turns))
            for (kept, width), turns in self.wholes.items()
        }
        wholes = ((parts, float(shares[parts] * table.dense)) for parts in sorted(shares))
        return replace(table, wholes=tuple(wholes))


class Laps:
    """Seconds per batch of sublayers so far, by size."""

    def __init__(self) -> None:
        self.attention: defaultdict[Attention, list[float]] = defaultdict(list)
        self.mlps: defaultdict[int, list[float]] = defaultdict(list)

    def add(self, parts: Sequence[Sublayer], laps: Sequence[float]) -> None:
        """What each sublayer of a tower took."""
        for part, lap in zip(parts, laps, strict=True):
            if part.kind == "heads":
                self.attention[_size_of(part)].append(lap)
            else:
                self.mlps[part.units].append(lap)

    def seconds(self, median: Callable[[list[float]], float]) -> SublayerSeconds:
        """The median of every size that there is."""
        attention, neurons = self.attention, self.mlps
        dense = max(attention)
        numbers = sorted({size.heads for size in attention})
        sizes = sorted({size.query_key_size for size in attention})
        return SublayerSeconds(
            heads=tuple(median(attention[dense._replace(heads=number)]) for number in numbers),
            widths=tuple(sorted(neurons)),
            neurons=tuple(median(neurons[width]) for width in sorted(neurons)),
            head_sizes=tuple(sizes),
            sized=tuple(
                tuple(median(attention[Attention(dense.heads, row, column)]) for column in sizes)
                for row in sizes
            ),
        )


def _size_of(part: Sublayer) -> Attention:
    """What the seconds of attention depend on; without heads, the sizes it would have."""
    dense, queries = part.attention.head_dim, part.attention.q_proj.out_features
    if not part.units:
        return Attention(0, dense, dense)
    return Attention(part.units, queries // part.units, part.unit_width)


def dense_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, heads and neurons of a tower whose layers are all alike.

    Raises:
        TowerError: they aren't.
    """
    parts = sublayers(model)
    units = {kind: {p.units for p in parts if p.kind == kind} for kind in ("heads", "neurons")}
    for kind, found in units.items():
        if len(found) != 1:
            raise TowerError(
                "a latency table is of a tower whose layers are all alike, found layers of "
                f"{', '.join(map(str, sorted(found)))} {kind}"
            )
    return len(parts) // 2, units["heads"].pop(), units["neurons"].pop()


class _Marks:
    """When the work got to certain points, the first of them here.

    What isn't the CPU keeps the time itself: waiting for it at each point would slow it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []
        self._events: list[torch.Event] = []
        self.add()

    def add(self) -> None:
        """Mark this point."""
        if self._device.type == "cpu":
            self._times.append(time.perf_counter())
            return
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        self._events.append(event)

    def laps(self) -> list[float]:
        """Seconds from each mark to the next, once the work is done."""
        synchronise(self._device)
        if self._device.type == "cpu":
            return [end - start for start, end in pairwise(self._times)]
        return [start.elapsed_time(end) / 1000 for start, end in pairwise(self._events)]
