"""Early exit: the embedding is read off after one of the first layers.

The exit's head is the alignment, a ridge regression in closed form: no gradient descent. One pass
of the last stage over the calibration images gives the heads of all layers asked for. The layers
above are gone from the checkpoint; in a cascade the full tower may resume where this one stopped
(`cascade.resume`).

    python -m compress.early_exit --layer 4
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from commands.flags import Count, Share, by_default
from compress.budgets.prices import Constraint
from compress.command import run_command
from compress.errors import UserError
from compress.making.options import AlignOptions, OutputOptions
from compress.making.reduced import ReduceRule, Step, check_of, run_reduce, settings_of, within
from compress.making.source import Source
from compress.solving.alignment import pooled_after
from pruning_mechanism import Reduction, Tower, TowerError, pooled_only, reduce
from pruning_mechanism.families import tower_config

USUAL_LAYERS = (4,)
"""The layers that stay if no number is asked for."""


@dataclass(frozen=True)
class ExitOptions(AlignOptions):
    """After which layer the embedding is read off."""

    layer: Annotated[tuple[Count, ...], by_default("4")] = ()
    """layers that stay, from the first; several share the last stage's pass"""
    mac_constraint: tuple[Share, ...] = ()
    """instead: kept MACs / dense MACs of the encoder layers, in (0, 1]"""

    exclusive: ClassVar = (("layer", "mac_constraint"),)


@dataclass(frozen=True)
class EarlyExitOptions(ExitOptions, OutputOptions):
    """End a tower after one of its first layers, with a head solved in closed form.

    Example: python -m compress.early_exit --layer 4
    """


def rule(options: ExitOptions) -> ReduceRule:
    """Early exit after the options' layers or under their constraints."""
    settings = settings_of("layer", options.layer or USUAL_LAYERS, options.mac_constraint)

    def step(source: Source, setting: Constraint) -> Step:
        reduction = _exit(source.model.config, setting)
        made = reduce(source.model, reduction)
        if options.align == "none":
            return Step(made, source.processor)
        pooled = source.ledger.once(("exits", settings), lambda: _read_off(source, settings))
        targets = _own_targets(source, pooled[max(pooled)])
        return Step(made, source.processor, pooled[reduction.layers], targets)

    return ReduceRule("exit", settings, step, check_of(_exit))


def _exit(config, setting: Constraint) -> Reduction:
    if setting.kind == "layer":
        return Reduction(layers=int(setting.value))
    layers = tower_config(config, "vision").num_hidden_layers
    return within(config, [Reduction(layers=each + 1) for each in range(layers)], setting)


@torch.no_grad()
def _read_off(source: Source, settings: Sequence[Constraint]) -> dict[int, Tensor]:
    """What is read off all calibration images, float32 [n, 2d] each, in one pass.

    By number of layers: those of all settings that can be met, and the whole tower.
    """
    tower, config = Tower.of(pooled_only(source.model)), source.model.config
    found: dict[int, list[Tensor]] = {len(tower.layers): []}
    for each in settings:
        with suppress(UserError, TowerError):  # where that can't be met, nothing is made
            reduction = _exit(config, each)
            reduction.check(config)
            found[reduction.layers] = []
    for batch in source.calibration.batches("exits"):
        for layers, pooled in pooled_after(tower, tower.embed(batch.pixels), found).items():
            found[layers].append(pooled)
    return {layers: torch.cat(rows) for layers, rows in found.items()}


@torch.no_grad()
def _own_targets(source: Source, top: Tensor) -> Tensor | None:
    """The embeddings to align to, by what was read off after the last layer [n, 2d].

    None if the source isn't its own target. Not in the ledger: other rules' results don't come by
    them so cheaply.
    """
    final = source.target.final
    if source.target.model is not source.model or not isinstance(final, nn.Linear):
        return None
    return final(top[:, : final.in_features].to(final.weight)).float().cpu()


def main(options: EarlyExitOptions) -> None:
    """End the tower, align it and save."""
    run_reduce(rule(options), options)


if __name__ == "__main__":
    run_command(main, EarlyExitOptions, "compress.early_exit")
