"""Token ranking: after some layers only the tokens that matter most go on, the others as one.

Ranks are the class token's attention (EViT, arXiv 2202.07800), or what a tiny predictor says of a
patch's effect on the embedding (in the way of Patch Ranking, arXiv 2409.14607). The predictor is
linear in the layer-normalised token and solved in closed form against the true leave-one-out
effect: 1 - cos between the embedding with the patch and without it. Of a text the ranks are the
attention of its end, and the share is of its own tokens; start and end always stay.

    python -m compress.rank --keep 0.7 --ranker learned
    python -m compress.rank --keep 0.7 --tower text
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from commands.flags import Bounds, Count, Share, Unread, by_default
from commands.run import main_of
from compress.budgets.budgets import MacBudget
from compress.choices import LEAST_IMAGES, Checkpoints, Finish
from compress.command import run_command
from compress.errors import UserError
from compress.options import OutputOptions, TokenOptions

Ranker = Literal["attention", "learned"]


@dataclass(frozen=True)
class RankingOptions(TokenOptions):
    """Which patches go on, or tokens of a text, how many, and from where on."""

    tower: Literal["vision", "text"] = "vision"
    """which to make cheaper; texts aren't aligned"""
    keep: Annotated[tuple[Share, ...], by_default("0.7")] = ()
    """share of the patches, or of a text's tokens, that goes on, each time, in (0, 1]"""
    mac_constraint: tuple[Share, ...] = ()
    """instead: kept MACs / dense MACs of the encoder layers, in (0, 1]; picks the share"""
    after: tuple[Count, ...] = ()
    """layers, from 1, after whose attention patches are ranked (default: at each quarter)"""
    ranker: Ranker = "attention"
    """rank by the class token's attention, or by a predictor of a patch's effect"""
    rank_samples: Annotated[int, Bounds(LEAST_IMAGES)] = 256
    """calibration images that the predictor is solved on"""

    exclusive: ClassVar = (("keep", "mac_constraint"),)
    unread: ClassVar = (
        *TokenOptions.unread,
        Unread(
            ("rank_samples",), lambda options: options.ranker != "learned", "--ranker attention"
        ),
        Unread(
            ("ranker", "rank_samples", "align", "align_features", "target"),
            lambda options: options.tower == "text",
            "--tower text",
        ),
    )

    @property
    def checkpoints(self) -> Checkpoints:
        """Which checkpoints to open, and the tower of them."""
        return replace(super().checkpoints, towers=(self.tower,))

    @property
    def finish(self) -> Finish:
        """What is done to what the rule makes: only what embeds images is aligned."""
        own = replace(self, align="none") if self.tower == "text" else self
        return super(RankingOptions, own).finish


@dataclass(frozen=True)
class RankOptions(RankingOptions, OutputOptions):
    """Let the highest-ranked tokens go on, and fuse the others into one.

    Example: python -m compress.rank --keep 0.7
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.rank"), RankOptions, "compress.rank")

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, layer_norm
from transformers import PreTrainedModel

from compress.calibrating.calibration import Calibration
from compress.calibrating.moments import precise
from compress.making.reducing import asked_of, check_of, within
from compress.making.rule import Rule, Step
from compress.making.source import Needs, Source
from compress.rule_command import run_rule
from pruning_mechanism import Reduction, Shape, Tower, reduce
from pruning_mechanism.families import tower_config
from pruning_mechanism.protocols import Config
from pruning_mechanism.ridge import deviations, ridge

USUAL_KEEPS = (0.7,)
"""The share of tokens that goes on if none is asked for."""
PATCHES_AN_IMAGE = 16
"""Patches of each image whose effect is measured."""
LEAST_EFFECT = 1e-9
"""Effects below it are rounding."""


def rule(options: RankingOptions) -> Rule:
    """Token ranking with the options' shares or under their budgets."""

    def choose(config: Config, asked: float | MacBudget) -> Reduction:
        if not isinstance(asked, MacBudget):
            return _ranked(config, asked, options)
        tokens = int(Shape.of(config, tower=options.tower).tokens)
        tokens -= 2 if options.tower == "text" else 1  # start and end, or the class token
        shares = [(count + 1) / tokens for count in range(tokens)]
        return within(config, [_ranked(config, share, options) for share in shares], asked)

    def step(source: Source, asked: float | MacBudget) -> Step:
        made = reduce(source.model, choose(source.model.config, asked))
        if learns:
            images = source.calibration.first(options.rank_samples)
            learn_rankers(made, images, options.seed)
        return Step(made, source.processor)

    learns = options.ranker == "learned" and options.tower == "vision"
    asked = asked_of("keep", options.keep or USUAL_KEEPS, options.mac_constraint)
    needs = Needs(images=LEAST_IMAGES) if learns else Needs()
    return Rule("rank", asked, step, check_of(choose), needs)


def _ranked(config: Config, keep: float, options: RankingOptions) -> Reduction:
    """Each time the share `keep` of what was kept before goes on."""
    layers = tower_config(config, options.tower).num_hidden_layers
    places = [layer - 1 for layer in options.after]
    if not places:
        places = sorted({layers // 4, layers // 2, 3 * layers // 4} - {layers})
    if any(not 0 <= index < layers for index in places):
        raise UserError(f"--after takes layers from 1 to {layers}, found {list(options.after)}")
    if options.tower == "text":
        at = set(places)
        shares = tuple(keep if index in at else 1.0 for index in range(layers))
        return Reduction(ranked_share_per_layer=shares)
    patches, kept = int(Shape.of(config).tokens) - 1, [0] * layers
    for number, place in enumerate(sorted(set(places)), start=1):
        kept[place] = max(1, round(keep**number * patches))
    return Reduction(ranked_per_layer=tuple(kept), ranker=options.ranker)


@torch.no_grad()
def learn_rankers(model: PreTrainedModel, calibration: Calibration, seed: int = 0) -> None:
    """Solve the predictors of a tower that ranks by them, bottom to top, in place.

    Those above see the tokens that those below let go on. λ is chosen by the error on images left
    out with all their patches.
    """
    for index, layer in enumerate(Tower.of(model).layers):
        if hasattr(layer, "ranker"):
            tokens, effects = leave_one_out(model, index, calibration, seed)
            mean, deviation = tokens.mean(0), deviations(tokens)
            wanted = effects.clamp(min=LEAST_EFFECT).log()[:, None]
            of_image = len(tokens) // len(calibration)
            solved = ridge((tokens - mean) / deviation, wanted, together=of_image)
            weight = (solved.weight[:, 0] / deviation).to(layer.ranker.weight)
            layer.ranker.weight.copy_(weight[None])
            layer.ranker.bias.copy_(solved.intercept - weight.cpu().double() @ mean.double())


@torch.no_grad()
def leave_one_out(
    model: PreTrainedModel, index: int, calibration: Calibration, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """What the embedding loses without one patch, from a layer's attention on.

    No patch is left out above.

    Args:
        model: its vision tower ranks in layer `index`.
        index: of the layer, from 0.
        calibration: images, of each of which `PATCHES_AN_IMAGE` patches are drawn.
        seed: of the patches.

    Returns:
        the layer-normalised tokens [p, d] and their effects, 1 - cos in [0, 2], [p]; those of one
        image, as many for each, come one after the other.
    """
    ranked: Sequence[int] = Tower.of(model).root.config.ranked_per_layer
    below = [keep if layer < index else 0 for layer, keep in enumerate(ranked)]
    tower = Tower.of(reduce(model, Reduction(ranked_per_layer=tuple(below))))
    root, generator = tower.root, torch.Generator().manual_seed(seed)

    def embedded(hidden: Tensor, sizes: Tensor | None) -> Tensor:
        hidden = root.feed(index, hidden)
        for above in range(index + 1, len(tower.layers)):
            hidden, sizes = root.through(above, hidden, sizes)
        return precise(tower.final(root.pool(hidden, sizes)))

    states, effects = [], []
    for batch in calibration.batches(f"effects in layer {index + 1}"):
        hidden, sizes = tower.embed(batch.pixels), None
        for layer in range(index):
            hidden, sizes = root.through(layer, hidden, sizes)
        hidden = root.attend(index, hidden, sizes)[0]
        whole, tokens = embedded(hidden, sizes), layer_norm(hidden, hidden.shape[-1:])
        order = torch.rand(hidden.shape[0], hidden.shape[1] - 1, generator=generator).argsort(1) + 1
        lost, without = [], []
        for gone in order[:, :PATCHES_AN_IMAGE].T.to(hidden.device):
            stay = torch.arange(hidden.shape[1], device=hidden.device) != gone[:, None]
            left = hidden[stay].unflatten(0, (len(hidden), -1))
            left_sizes = None if sizes is None else sizes[stay].unflatten(0, (len(hidden), -1))
            lost.append(1 - cosine_similarity(embedded(left, left_sizes), whole))
            without.append(tokens[torch.arange(len(gone)), gone])
        effects.append(torch.stack(lost, dim=1).flatten())
        states.append(torch.stack(without, dim=1).flatten(0, 1))
    return torch.cat(states).float().cpu(), torch.cat(effects).float().cpu()


def main(options: RankOptions) -> None:
    """Rank, align and save."""
    run_rule(rule(options), options)
