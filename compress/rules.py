"""The one table of rules: what each is called, its options, and the words of experiments.

`evaluation.cascade --methods` and whoever else names rules reads it. A new rule is a file of its
own and a row here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from compress import (
    baseline,
    early_exit,
    fisher,
    flip,
    joint,
    merge,
    rank,
    recover,
    resolution,
    sensitivity,
)
from compress.choices import (
    USUAL_STRUCTURES,
    Allocation,
    ObjectiveName,
    PatchRule,
    Repair,
    Schedule,
    Structure,
)
from compress.making.rule import Rule
from compress.options import BudgetOptions, CombinationOptions, FullTowerOptions

Change = tuple[str, object]
"""An option, and the value that a word gives it."""


def words_of(option: str, choices: object) -> dict[str, Change]:
    """Words that are themselves the values of one option."""
    return {word: (option, word) for word in get_args(choices)}


SAMPLE = (
    "model",
    "corpus",
    "corpus_dir",
    "calibration_split",
    "samples",
    "batch_size",
    "seed",
    "device",
)
"""Options that every rule takes from an experiment."""
SECONDS = ("latency_constraint", "runtime", "dtype")
"""A budget of seconds, and what these are measured in."""
TOWER = (*SAMPLE, "text_model", "tower", "repair", "repair_samples")
BUDGET = (
    *TOWER,
    "mac_constraint",
    *SECONDS,
    "allocate",
    "structures",
    "curve_samples",
    "round_to",
)
"""Those of rules that prune heads and neurons; `heads` only under the word of that name."""
TOKENS = (*SAMPLE, "mac_constraint")
REPAIRED: Mapping[str, Change] = {**words_of("repair", Repair), "aligned": ("align", "ridge")}
ALLOCATED: Mapping[str, Change] = {
    **REPAIRED,
    **words_of("allocate", Allocation),
    "head_dims": ("structures", get_args(Structure)),
}
UNALIGNED: Mapping[str, Change] = {"unaligned": ("align", "none")}


@dataclass(frozen=True)
class Row:
    """A rule that an experiment can name.

    Attributes:
        options: those of its own command, but for where results go.
        rule: makes the rule of its options.
        inherits: options that it takes from an experiment which has them.
        words: what may follow its name, as in `fisher+rescale`, and what each changes.
        fixed: what its name says of its options.
    """

    options: type[FullTowerOptions]
    rule: Callable[[Any], Rule]
    inherits: tuple[str, ...]
    words: Mapping[str, Change]
    fixed: Mapping[str, object] = field(default_factory=dict)

    @property
    def takes_heads(self) -> bool:
        """Whether it may be asked for a number of heads in place of a share of the cost."""
        return issubclass(self.options, BudgetOptions)


RULES: dict[str, Row] = {
    "recover": Row(BudgetOptions, recover.rule, BUDGET, ALLOCATED),
    "fisher": Row(
        fisher.ScoreOptions,
        fisher.rule,
        BUDGET,
        {**ALLOCATED, **words_of("objective", ObjectiveName)},
    ),
    "sensitivity": Row(sensitivity.HeadOptions, sensitivity.rule, (*TOWER, "heads"), REPAIRED),
    **{
        name: Row(baseline.EstimatorOptions, baseline.rule, BUDGET, ALLOCATED, {"importance": name})
        for name in get_args(baseline.Estimator)
    },
    "flip": Row(
        flip.MaskingOptions,
        flip.rule,
        TOKENS,
        {**UNALIGNED, **words_of("keep", PatchRule)},
    ),
    "merge": Row(
        merge.MergingOptions,
        merge.rule,
        TOKENS,
        {**UNALIGNED, **words_of("schedule", Schedule)},
    ),
    "rank": Row(
        rank.RankingOptions,
        rank.rule,
        TOKENS,
        {**UNALIGNED, **words_of("ranker", rank.Ranker)},
    ),
    "resolution": Row(resolution.ResolutionOptions, resolution.rule, TOKENS, UNALIGNED),
    "early_exit": Row(early_exit.ExitOptions, early_exit.rule, TOKENS, UNALIGNED),
    "joint": Row(
        CombinationOptions,
        joint.rule,
        (*TOKENS, *SECONDS, "curve_samples"),
        {"no_head_dims": ("structures", USUAL_STRUCTURES)},
    ),
}
