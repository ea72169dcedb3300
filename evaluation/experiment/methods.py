"""The methods that an experiment can name: a rule, and words that change its options.

Stands between the rules and the first stages that are made by them. `KINDS` is the one table of
rules; what a word means is in there too.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

from commands.flags import unread_of
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
from compress.budgets.structures import USUAL, Structure
from compress.calibrating.objective import ObjectiveName
from compress.errors import UserError
from compress.making.options import Align, AlignOptions, Allocation, BudgetOptions, SourceOptions
from compress.making.reduced import ReduceRule
from compress.making.rule import Rule
from compress.solving.repair import Repair
from evaluation.experiment.first_stages import Method, Pruning, Reducing

Words = Mapping[str, tuple[str, object]]
"""What each word changes: an option, and its value."""


def words_of(option: str, choices: object) -> dict[str, tuple[str, object]]:
    """Words that are themselves the values of one option."""
    return {each: (option, each) for each in get_args(choices)}


PRUNING = {
    **words_of("repair", Repair),
    **words_of("allocate", Allocation),
    **words_of("objective", ObjectiveName),
    "head_dims": ("structures", get_args(Structure)),
    "aligned": ("align", "ridge"),
}
REDUCING = {"unaligned": ("align", "none")}
NUMBERS = ("rounds", "steps")
"""Options that take a number, as in rounds=2."""


@dataclass(frozen=True)
class Kind:
    """A rule that an experiment can name.

    `options` are those of its own command, `words` those that may follow its name, `align` is how
    its results are aligned if no word says otherwise, `fixed` what its name says of its options.
    """

    options: type[SourceOptions]
    rule: Callable[[Any], Rule | ReduceRule]
    words: Words
    align: Align
    fixed: Mapping[str, object] = field(default_factory=dict)


def _prunes(options: type[SourceOptions], rule: Callable[[Any], Rule], **fixed: object) -> Kind:
    return Kind(options, rule, PRUNING, "none", fixed)


def _reduces(
    options: type[AlignOptions], rule: Callable[[Any], ReduceRule], **words: object
) -> Kind:
    """`words` are the choices of the options that they are the values of."""
    own = {word: change for each in words for word, change in words_of(each, words[each]).items()}
    return Kind(options, rule, own | REDUCING, "ridge")


KINDS = {
    "recover": _prunes(BudgetOptions, recover.rule),
    "fisher": _prunes(fisher.ScoreOptions, fisher.rule),
    "sensitivity": _prunes(sensitivity.HeadOptions, sensitivity.rule),
    **{
        name: _prunes(baseline.EstimatorOptions, baseline.rule, importance=name)
        for name in get_args(baseline.Estimator)
    },
    "flip": _reduces(flip.MaskingOptions, flip.rule, keep=flip.PatchRule),
    "merge": _reduces(merge.MergingOptions, merge.rule, schedule=merge.Schedule),
    "rank": _reduces(rank.RankingOptions, rank.rule, ranker=rank.Ranker),
    "resolution": _reduces(resolution.ResolutionOptions, resolution.rule),
    "early_exit": _reduces(early_exit.ExitOptions, early_exit.rule),
    "joint": Kind(
        joint.CombinationOptions,
        joint.rule,
        {"no_head_dims": ("structures", USUAL)},
        "ridge",
        {"structures": get_args(Structure)},
    ),
}


def parse_method(name: str, given: SourceOptions) -> Method:
    """The method that `fisher`, `fisher+rescale`, `recover+rounds=0`, `flip+random` … mean.

    The first word is a rule; the others change its options, as the rule's kind has it: a repair,
    an allocation, `aligned`, a number of rounds …. `heads` stands for the --heads in the place of
    the --mac-constraint.

    Args:
        name: words joined by +.
        given: the experiment's options, which the rule's start from.

    Raises:
        UserError: a word is none of these, or the rule has no such option.
    """
    first, *words = name.split("+")
    if first not in KINDS:
        raise UserError(f"--methods {name}: {first!r} is none of {', '.join(KINDS)}")
    kind = KINDS[first]
    known = {each.name for each in (*fields(kind.options), *fields(AlignOptions))}
    chosen = {each: getattr(given, each) for each in known if hasattr(given, each)}
    chosen |= {"align": kind.align, **kind.fixed}
    if issubclass(kind.options, BudgetOptions):
        if "heads" in words:
            words.remove("heads")
            chosen["mac_constraint"] = ()
        else:
            chosen["heads"] = ()
    if chosen.get("latency_constraint"):
        chosen["mac_constraint"] = ()
    for word in words:
        option, value = _change(word, name, kind, known)
        chosen[option] = value
    options, align = _made(kind.options, chosen), _made(AlignOptions, chosen)
    rule = kind.rule(options)
    if isinstance(rule, ReduceRule):
        _refuse_latency(name, given, known)
        return Reducing(name, replace(rule, name=name), options)
    unaligned = "+".join(word for word in name.split("+") if word != "aligned")
    return Pruning(name, replace(rule, name=unaligned), options, align)


def unread_settings(
    methods: Sequence[Method], options: BudgetOptions, given: Collection[str]
) -> list[str]:
    """Which settings of the methods were given but are read by none of them.

    Args:
        methods: of the experiment; none if first stages were made before.
        options: the experiment's.
        given: names of the options that its user named.
    """
    own = {each.name for each in fields(BudgetOptions)} - {
        each.name for each in fields(SourceOptions)
    }
    settings = [*sorted(own - {"tower", "text_model"}), "samples", "calibration_split"]
    return [
        name
        for name in settings
        if name in given and not any(_reads(method, name, options) for method in methods)
    ]


def _reads(method: Method, name: str, options: BudgetOptions) -> bool:
    """Whether a method goes by the experiment's value of an option."""
    own = method.options
    return (
        hasattr(own, name)
        and getattr(own, name) == getattr(options, name)
        and not unread_of(own, [name])
    )


def _change(word: str, name: str, kind: Kind, known: set[str]) -> tuple[str, object]:
    """The option that a word changes, and its value."""
    number, _, value = word.partition("=")
    if number in NUMBERS and number in known and value.isdecimal():
        return number, int(value)
    allowed = {each: change for each, change in kind.words.items() if change[0] in known}
    if word not in allowed:
        names = [*allowed, *(f"{each}=N" for each in NUMBERS if each in known)]
        raise UserError(f"--methods {name}: {word!r} is none of {', '.join(names)}")
    return allowed[word]


def _made(options: type[SourceOptions], chosen: Mapping[str, object]) -> SourceOptions:
    """Options of that type, of those chosen that it has."""
    own = {each.name for each in fields(options)}
    return options(**{each: value for each, value in chosen.items() if each in own})


def _refuse_latency(name: str, given: SourceOptions, known: set[str]) -> None:
    if getattr(given, "latency_constraint", ()) and "latency_constraint" not in known:
        raise UserError(f"--methods {name} takes a --mac-constraint, not a --latency-constraint")
