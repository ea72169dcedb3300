"""Baselines: the importance scores of torch-pruning, at the same budget and with the same repair.

Stands beside the project's own rules between corpus and mask, to show what they are worth. The
groups are those of torch-pruning's dependency graph, traced through the tower: a channel of a head
is a row each of q_proj, k_proj and v_proj and a column of out_proj, a neuron a row of fc1 and a
column of fc2. The estimators are torch-pruning's with their default settings; a head's score is
the mean over its channels, as in torch-pruning's pruner (`prune_num_heads`). That is made of single
weights, so unlike the project's own rules it depends on the basis that a head is written in: the
published definition, kept as it is.

    python -m compress.baseline --importance magnitude --mac-constraint 0.5
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from commands.flags import Bounds, Unread
from commands.run import main_of
from compress.choices import Allocation
from compress.command import run_command
from compress.errors import UserError
from compress.options import BudgetOptions, OutputOptions

Estimator = Literal["random", "magnitude", "taylor", "hessian"]
HESSIAN_SAMPLES = 128
"""Images that Hessian scores are made of, the first of the sample: each has a pass of its own."""


@dataclass(frozen=True)
class EstimatorOptions(BudgetOptions):
    """Which of torch-pruning's estimators scores units, and under which budget they are kept."""

    importance: Estimator = "magnitude"
    """torch-pruning's estimator"""
    hessian_samples: Annotated[int, Bounds(2)] = HESSIAN_SAMPLES
    """calibration images for Hessian scores, the first of the samples"""

    unread: ClassVar = (
        *BudgetOptions.unread,
        Unread(
            ("hessian_samples",),
            lambda options: options.importance != "hessian",
            "another --importance than hessian",
        ),
    )
    usual_allocation: ClassVar = "uniform"


@dataclass(frozen=True)
class BaselineOptions(EstimatorOptions, OutputOptions):
    """Prune a CLIP tower by a torch-pruning importance, to compare with.

    Example: python -m compress.baseline --importance magnitude --mac-constraint 0.5
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.baseline"), BaselineOptions, "compress.baseline")

import torch
import torch_pruning as tp
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedModel

from compress.allocation.allocate import Curves, allocated, best_units
from compress.budgets.prices import Prices, as_prices
from compress.calibrating.calibration import Batch, Calibration, Group, calibrate
from compress.calibrating.importance import Importance
from compress.calibrating.objective import Contrastive, Objective
from compress.calibrating.subject import Subject
from compress.calibrating.weight_gradients import borrowed, mean_squared_gradients, summed_gradients
from compress.making.pruning import Scoring, pruning
from compress.making.rule import Rule
from compress.rule_command import run_rule
from pruning_mechanism import Mask, Sublayer, Tower, TowerError, TowerKind
from pruning_mechanism.families import tower_config
from pruning_mechanism.protocols import Config
from pruning_mechanism.tower import Inputs


def scores(
    model: PreTrainedModel,
    corpus: Dataset | Calibration,
    samples: int = 2048,
    seed: int = 0,
    *,
    tower: TowerKind = "vision",
    kind: Estimator = "magnitude",
    hessian_samples: int = HESSIAN_SAMPLES,
    texts: PreTrainedModel | None = None,
    progress: bool = False,
) -> Importance:
    """Scores of every head and neuron of one of `model`'s towers by a torch-pruning estimator.

    The loss is `compress.fisher`'s contrastive loss. `model` is left as it was, gradients included.

    Args:
        model: a CLIP, or a vision tower with projection.
        corpus: images and captions to draw `samples` from with `seed`, or a sample drawn already;
            unread by random and magnitude scores.
        samples: how many images are used; ignored if the sample is drawn already.
        seed: of the draw, and of random scores; the global generator is left as it was.
        tower: which one; the loss leaves the other as it is.
        kind: `random`, or of a channel's rows and columns w with gradients g the mean `Σ w²`
            (magnitude), `Σ |w g|` with g summed over the images (taylor), or `Σ w² mean_i g_i²`
            over images i (hessian).
        hessian_samples: how many images of the sample Hessian scores use, the first.
        texts: the CLIP whose text tower embeds the captions, if `model` has none.
        progress: whether to show a bar.

    Returns:
        Importance on the CPU. Each layer's scores have mean 1, torch-pruning's normalisation,
        except random ones.

    Raises:
        TowerError: the tower's groups aren't those above, or scores aren't finite.
        UserError: the loss has no gradient, as for a single image.
    """
    exact = Tower.of(model if model.dtype.itemsize >= 4 else deepcopy(model).float(), tower)
    with borrowed(exact):
        groups = coupled_channels(exact)
        if kind in ("taylor", "hessian"):
            calibration = calibrate(model, corpus, samples, seed, texts)
            if kind == "hessian":
                calibration = calibration.first(hessian_samples)
            groups_of_images = calibration.groups(f"{kind}: gradients" if progress else None)
            objective = Contrastive(texts or model, tower)
            _fill_gradients(kind, exact, groups_of_images, objective, _weights(groups))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return score_groups(exact, groups, kind)


def score_groups(tower: Tower, groups: list[tp.dependency.Group], kind: Estimator) -> Importance:
    """The estimator's scores of each sublayer's channels, averaged over each head.

    Args:
        tower: its weights have in `.grad` what the estimator needs, see `scores`.
        groups: one for each sublayer, of all its channels.
        kind: which estimator.

    Raises:
        TowerError: scores aren't finite.
    """
    estimate = _estimator(kind)
    found: dict[str, list[Tensor]] = {"heads": [], "neurons": []}
    for sublayer, group in zip(tower.sublayers, groups, strict=True):
        units = estimate(group).view(sublayer.units, sublayer.unit_width).mean(1).cpu()
        if not units.isfinite().all():
            raise TowerError(
                f"layer {sublayer.layer}: the {kind} scores of its {sublayer.kind} aren't finite: "
                "look for NaN or infinity in the checkpoint"
            )
        found[sublayer.kind].append(units)
    return Importance(torch.stack(found["heads"]), torch.stack(found["neurons"]))


def _estimator(kind: Estimator) -> tp.importance.Importance:
    if kind == "random":
        return tp.importance.RandomImportance()
    estimators = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "hessian": tp.importance.GroupHessianImportance,
    }
    return estimators[kind](normalizer=_by_mean)


def _by_mean(channels: Tensor) -> Tensor:
    """torch-pruning's own normalisation, but a layer of nothing but zeros stays that."""
    return channels / channels.mean().clamp(min=torch.finfo(channels.dtype).tiny)


def coupled_channels(tower: Tower) -> list[tp.dependency.Group]:
    """What torch-pruning removes together with each sublayer's output inputs, one group each.

    The tower is traced with one blank image, or empty text, and the output projection is a group's
    root, as torch-pruning's pruner has it for attention. Weights must ask for gradients.

    Raises:
        TowerError: a group isn't made of exactly the sublayer's own linear layers.
    """
    graph = tp.DependencyGraph().build_dependency(
        tower.root,
        _blank(tower),
        forward_fn=lambda _root, inputs: tower.embeddings(inputs),
        verbose=False,
    )
    return [_group(graph, sublayer) for sublayer in tower.sublayers]


def _blank(tower: Tower) -> Inputs:
    """One blank image; or one text of nothing but ends."""
    device = tower.model.device
    if tower.kind == "vision":
        side = tower_config(tower.model.config, "vision").image_size
        return torch.zeros(1, 3, side, side, device=device)
    text = tower_config(tower.model.config, "text")
    ends = torch.full((1, text.max_position_embeddings), text.eos_token_id, device=device)
    return {"input_ids": ends}


def _group(graph: tp.DependencyGraph, sublayer: Sublayer) -> tp.dependency.Group:
    channels = list(range(sublayer.output.in_features))
    group = graph.get_pruning_group(sublayer.output, tp.prune_linear_in_channels, channels)
    linear = [item for item in group if isinstance(item.dep.layer, nn.Linear)]
    own = {module for module in sublayer.body.modules() if isinstance(module, nn.Linear)}
    in_order = all(list(item.idxs) == list(item.root_idxs) == channels for item in linear)
    if {item.dep.layer for item in linear} != own or not in_order:
        names = ", ".join(item.dep.target.name for item in linear)
        raise TowerError(
            f"layer {sublayer.layer}: torch-pruning couples its {sublayer.kind} with {names}, "
            "which isn't how a CLIP is built: no baseline for this tower"
        )
    return group


def _weights(groups: list[tp.dependency.Group]) -> list[Tensor]:
    """The weights that the groups' channels are rows and columns of."""
    layers = [item.dep.layer for group in groups for item in group]
    return [layer.weight for layer in layers if isinstance(layer, nn.Linear)]


def _fill_gradients(
    kind: Literal["taylor", "hessian"],
    tower: Tower,
    batches: Iterable[Batch | Group],
    objective: Objective,
    weights: list[Tensor],
) -> None:
    """Leave in the weights' `.grad` what torch-pruning's Taylor or Hessian estimator reads there.

    Hessian's means aren't taken by torch-pruning's own `accumulate_grad`, which in 1.6 keeps the
    last sample's alone: it looks for a parameter's name among keys that are parameters.

    Raises:
        UserError: the gradients are zero everywhere.
    """
    derive = summed_gradients if kind == "taylor" else mean_squared_gradients
    gradients = derive(tower, batches, objective, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    if not any(gradient.any() for gradient in gradients):
        raise UserError(
            f"the contrastive loss has no gradient to make {kind} scores of: "
            "it takes at least 2 images"
        )


def select(
    importance: Importance,
    budget: float | Prices,
    config: Config | None = None,
    allocate: Allocation = "uniform",
    tower: TowerKind = "vision",
    curves: Curves | None = None,
) -> Mask:
    """The mask of the best-scored units under a budget, in torch-pruning's two ways or by curves.

    Args:
        importance: scores of heads and neurons.
        budget: kept MACs / dense MACs, in (0, 1], or what sizes cost under another budget.
        config: the model's configuration, or the tower's; not read where there are prices.
        allocate: `uniform` keeps the same number in every layer (torch-pruning's local pruning),
            `scores` the best of the whole tower (its global pruning), `curves` those of the least
            loss by measured curves.
        tower: which one of the model's.
        curves: from `compress.allocation.curves.measure_curves`, which `curves` needs.

    Raises:
        UserError: the budget is out of range, or can't be met.
    """
    prices = as_prices(budget, config, tower)
    return allocated(importance, prices, allocate, curves, ranked)


def ranked(importance: Importance, prices: Prices) -> Mask:
    """The best units of the whole tower, heads among heads and neurons among neurons.

    Heads aren't weighed against neurons, because each layer's scores of each kind have mean 1
    whatever a unit costs: the budget's share of the heads stays, and the neurons that it then pays.
    """
    heads = prices.share_of(importance.heads.numel())
    left = prices.budget - heads * int(prices.heads[1])
    neurons = min(importance.neurons.numel(), left // int(prices.neurons[1]))
    return Mask(_best(importance.heads, heads), _best(importance.neurons, neurons))


def _best(scores: Tensor, count: int) -> Tensor:
    """The mask bool[L, u] of the `count` largest scores of all layers."""
    return best_units(scores.reshape(1, -1), [count]).view_as(scores)


def rule(options: EstimatorOptions) -> Rule:
    """Pruning by one of torch-pruning's estimators under the options' budgets."""

    def score(subject: Subject) -> Importance:
        return scores(
            subject.model,
            subject.calibration,
            seed=options.seed,
            tower=subject.kind,
            kind=options.importance,
            hessian_samples=options.hessian_samples,
            texts=subject.texts,
            progress=True,
        )

    key = ("baseline", options.importance, options.seed, options.hessian_samples)
    scoring = Scoring(score, key, options.importance in ("taylor", "hessian"))
    return pruning(options.importance, options.budgets(), scoring, select, options.spending)


def main(options: BaselineOptions) -> None:
    """Score, select, repair, cut and save."""
    run_rule(rule(options), options)
