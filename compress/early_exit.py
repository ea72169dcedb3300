"""Early exit: the embedding is read off after one of the first layers.

The exit's head is the alignment, a ridge regression in closed form: no gradient descent. One pass
of the tower over the calibration images gives the heads of all layers asked for. The layers
above are gone from the checkpoint; in a cascade the full tower may resume where this one stopped
(`cascade.resume`).

    python -m compress.early_exit --layer 4
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, ClassVar

from commands.flags import Count, Share, by_default
from commands.run import main_of
from compress.budgets.budgets import MacBudget
from compress.choices import AlignTokens
from compress.command import run_command
from compress.errors import UserError
from compress.options import AlignedTokenOptions, OutputOptions


@dataclass(frozen=True)
class ExitOptions(AlignedTokenOptions):
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


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.early_exit"), EarlyExitOptions, "compress.early_exit")

import torch
from torch import Tensor, nn

from compress.making.reducing import asked_of, check_of, within
from compress.making.rule import Rule, Step
from compress.making.source import Source
from compress.rule_command import run_rule
from compress.solving.alignment import pooled_after
from pruning_mechanism import Reduction, Tower, TowerError, pooled_only, reduce
from pruning_mechanism.families import tower_config
from pruning_mechanism.protocols import Config

USUAL_LAYERS = (4,)
"""The layers that stay if no number is asked for."""


def rule(options: ExitOptions) -> Rule:
    """Early exit after the options' layers or under their budgets."""
    asked_for = asked_of("layer", options.layer or USUAL_LAYERS, options.mac_constraint)

    def step(source: Source, asked: float | MacBudget) -> Step:
        reduction = _exit(source.model.config, asked)
        made = reduce(source.model, reduction)
        if options.align == "none":
            return Step(made, source.processor)
        every = tuple(asked_for.values())
        tokens = options.align_tokens
        pooled = source.cache.once(
            ("exits", every, tokens), lambda: _read_off(source, every, tokens)
        )
        embeddings = _own_embeddings(source, pooled[max(pooled)])
        return Step(made, source.processor, pooled=pooled[reduction.layers], embeddings=embeddings)

    return Rule("exit", asked_for, step, check_of(_exit))


def _exit(config: Config, asked: float | MacBudget) -> Reduction:
    if not isinstance(asked, MacBudget):
        return Reduction(layers=int(asked))
    layers = tower_config(config, "vision").num_hidden_layers
    return within(config, [Reduction(layers=layer + 1) for layer in range(layers)], asked)


@torch.no_grad()
def _read_off(
    source: Source, every: Sequence[float | MacBudget], tokens: AlignTokens | None
) -> dict[int, Tensor]:
    """What is read off all calibration images, float32 [n, r] each, in one pass.

    By number of layers: those of all that can be met, and the whole tower.
    """
    tower, config = Tower.of(pooled_only(source.model, tokens)), source.model.config
    found: dict[int, list[Tensor]] = {len(tower.layers): []}
    for asked in every:
        with suppress(UserError, TowerError):  # where that can't be met, nothing is made
            reduction = _exit(config, asked)
            reduction.check(config)
            found[reduction.layers] = []
    for batch in source.calibration.batches("exits"):
        for layers, pooled in pooled_after(tower, tower.embed(batch.pixels), found).items():
            found[layers].append(pooled)
    return {layers: torch.cat(rows) for layers, rows in found.items()}


@torch.no_grad()
def _own_embeddings(source: Source, top: Tensor) -> Tensor | None:
    """The full tower's embeddings, by what was read off after the last layer [n, r].

    None if the source isn't its own full tower. Not in the cache: other rules don't come by them so
    cheaply.
    """
    final = source.full.tower.final
    if source.full.tower.model is not source.model or not isinstance(final, nn.Linear):
        return None
    embeddings: Tensor = final(top[:, : final.in_features].to(final.weight))
    return embeddings.float().cpu()


def main(options: EarlyExitOptions) -> None:
    """End the tower, align it and save."""
    run_rule(rule(options), options)
