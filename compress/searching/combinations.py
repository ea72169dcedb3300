"""Combinations of exit, merging and sizes: which promise most under prices, and what they lose.

The search of `compress.joint`. Promises add up what was measured of one thing at a time; what was
promised is then made and measured whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedModel

from compress.allocation.allocate import Curve, by_curves
from compress.allocation.plan import Plan
from compress.budgets.schedules import spread
from compress.budgets.token_prices import MacPrices, SecondPrices, TokenPrices
from compress.calibrating.importance import Importance
from compress.choices import Finish, Schedule, Thoroughness
from compress.errors import UserError
from compress.making.make import repaired
from compress.making.pruning import cut
from compress.making.rule import Cut
from compress.making.source import Source
from compress.searching.exits import ExitTower, Merged, ReadOff, exit_tower, linear_loss, read_off
from compress.searching.search import Search
from compress.solving.alignment import pooled_features
from pruning_mechanism import Mask, Reduction, Shape, reduce, reduced_shape
from pruning_mechanism.families import tower_config
from pruning_mechanism.protocols import Config

MERGED: Mapping[Schedule, Sequence[float]] = {
    "constant": (0.25, 0.5, 0.75),
    "decreasing": (0.3, 0.55, 0.75, 0.9),
}
"""Shares of the patches that a schedule has merged by the last layer of the whole tower."""


@dataclass(frozen=True)
class Candidate:
    """One combination: where the tower ends, what merges, what stays, and what that should lose.

    `exit` is the layer whose curves the mask is by. Its uppermost layers may keep nothing; the
    finished tower ends before them.
    """

    exit: int
    schedule: Merged
    mask: Mask
    promised: float

    @property
    def layers(self) -> int:
        """How many layers the finished tower has: to the last that keeps anything, at least 1."""
        anything = self.mask.heads.any(1) | self.mask.neurons.any(1)
        places: list[int] = (anything.nonzero().flatten() + 1).tolist()
        return max([1, *places])

    @property
    def merged(self) -> Merged:
        """How many tokens merge in each of these."""
        return self.schedule[: self.layers]

    @property
    def kept(self) -> Mask:
        """What these keep."""
        return Mask(**{name: bits[: self.layers] for name, bits in self.mask.tensors.items()})

    @property
    def says(self) -> str:
        """In words, for titles and records."""
        return f"exit after layer {self.layers}, {sum(self.merged)} tokens merged"


@dataclass(frozen=True)
class Tried:
    """A combination as it came out: `lost` is 1 - cos on images left out of the alignment."""

    candidate: Candidate
    model: PreTrainedModel
    lost: float


def least_lost(tried: Sequence[Tried]) -> Tried:
    """The one that loses least."""
    return min(tried, key=lambda combination: combination.lost)


def best_combinations(
    source: Source, prices: MacPrices | SecondPrices, search: Search
) -> list[Tried]:
    """Make the most promising combinations under these prices, best promise first.

    The most promising one that merges nothing is among them: promises of merging are the rougher.

    Raises:
        UserError: none keeps the constraint.
    """
    found = sorted(_candidates(source, prices, search), key=lambda candidate: candidate.promised)
    if not found:
        raise UserError(
            f"{search.label}: no combination of exit, merging and pruning of this tower is so "
            "cheap; allow more structures or earlier exits"
        )
    chosen = found[: search.thoroughness.tries]
    if all(any(candidate.schedule) for candidate in chosen):
        chosen += [candidate for candidate in found if not any(candidate.schedule)][:1]
    return [_made(source, candidate, search) for candidate in chosen]


def _candidates(
    source: Source, prices: MacPrices | SecondPrices, search: Search
) -> Iterator[Candidate]:
    """For each exit, from the deepest, and each schedule the sizes of least promised loss.

    An exit that loses more by itself than the best combination so far is passed over, and none of
    its curves are measured.
    """
    config, thoroughness = source.model.config, search.thoroughness
    reads, least = _reads(source, search), inf
    for layers in exits_tried(config, thoroughness)[::-1]:
        if min(reading.losses[layers] for reading in reads) >= least:
            continue
        exit_at = _exit(source, layers, search)
        start = exit_at.start(thoroughness.spending)
        curves = [*start.curves, *start.dims]
        for reading in tqdm(reads, desc=f"sizes, exit {layers}", unit="schedule"):
            shape = reduced_shape(config, _reduction(config, layers, reading.schedule))
            mask = _sizes(exit_at.scored.importance, curves, prices.of_shape(shape), thoroughness)
            if mask is not None:
                promised = reading.losses[layers] + _lost(curves, mask)
                least = min(least, promised)
                yield Candidate(layers, reading.schedule[:layers], mask, promised)


def _reads(source: Source, search: Search) -> list[ReadOff]:
    """What exits and merging lose by themselves, measured once for all constraints."""
    thoroughness, tokens = search.thoroughness, search.finish.align_tokens

    def read() -> list[ReadOff]:
        images = source.calibration.first(thoroughness.search_samples)
        config, embeddings = source.model.config, source.full_embeddings()[: len(images)]
        exits, schedules = exits_tried(config, thoroughness), merging_schedules(config)
        return read_off(source.model, exits, schedules, images, embeddings, tokens)

    key = ("read off", thoroughness.search_samples, thoroughness.exits, tokens)
    return source.cache.once(key, read)


def merging_schedules(config: Config) -> list[Merged]:
    """The schedules that are tried, the first with nothing merged."""
    layers = tower_config(config, "vision").num_hidden_layers
    patches = int(Shape.of(config).tokens) - 1
    found = [(0,) * layers]
    for kind, shares in MERGED.items():
        found += [spread(round(share * patches), layers, kind) for share in shares]
    return list(dict.fromkeys(found))


def exits_tried(config: Config, thoroughness: Thoroughness) -> list[int]:
    """The numbers of layers that a tower may end after, ascending.

    Raises:
        UserError: an exit asked for is none of the tower's layers.
    """
    layers = tower_config(config, "vision").num_hidden_layers
    if any(not 1 <= layer <= layers for layer in thoroughness.exits):
        raise UserError(f"exits are after layers 1 to {layers}, found {list(thoroughness.exits)}")
    sixths = np.ceil(layers * np.arange(1, 7) / 6).astype(int).tolist()
    return sorted(set(thoroughness.exits or sixths))


def _exit(source: Source, layers: int, search: Search) -> ExitTower:
    """An exit, scored once for all budgets and structures."""
    pooled = _reads(source, search)[0].pooled[layers]
    embeddings = source.full_embeddings()[: len(pooled)]
    images = source.calibration.first(search.thoroughness.score_samples)
    return source.cache.once(
        ("exit", layers, *pooled.shape, len(images)),
        lambda: exit_tower(source.model, layers, pooled, embeddings, images, source.cache),
    )


def _reduction(config: Config, layers: int, schedule: Merged) -> Reduction:
    """Exit and merging as one reduction of the whole tower."""
    every = tower_config(config, "vision").num_hidden_layers
    return Reduction(
        layers=layers if layers < every else None,
        merged_per_layer=schedule if any(schedule[:layers]) else None,
    )


def _sizes(
    importance: Importance,
    curves: Sequence[Curve],
    prices: TokenPrices,
    thoroughness: Thoroughness,
) -> Mask | None:
    """The sizes of least loss; None where the budget can't be met."""
    try:
        return by_curves(importance, curves, prices, 1, thoroughness.structures)
    except ValueError:
        return None


def _lost(curves: Sequence[Curve], mask: Mask) -> float:
    """What the curves say of the sizes of a mask, added up."""

    def at(curve: Curve) -> float:
        size = int(mask.tensors[curve.kind][curve.layer].sum())
        return float(curve.at(np.array([size]))[0])

    return sum(map(at, curves))


def _made(source: Source, candidate: Candidate, search: Search) -> Tried:
    """Prune, repair and merge; judged by its alignment."""
    thoroughness, tokens = search.thoroughness, search.finish.align_tokens
    tower, title = _exit(source, candidate.exit, search), f"joint {candidate.says}"
    plan = Plan(candidate.mask, turned=tower.start(thoroughness.spending).turned)
    made = cut(tower.subject, plan)
    finish = Finish("reconstruct", thoroughness.score_samples)
    repaired(made, Cut(tower.subject, plan), finish, f"{title}: repair")
    made = reduce(made, _reduction(made.config, candidate.layers, candidate.schedule))
    images = source.calibration.first(thoroughness.search_samples)
    pooled = pooled_features(made, images, f"{title}: read off", tokens)
    return Tried(candidate, made, linear_loss(pooled, source.full_embeddings()[: len(images)]))
