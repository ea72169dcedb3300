"""The list of token rules, and what holds for all of them; part of every checkpoint.

A rule of this project is a file beside this one and a place in `BUILT_IN`. A rule of another
program joins the list by `register_token_rule`; checkpoints name it, because they don't carry its
code.
"""

from collections.abc import Sequence
from dataclasses import fields, make_dataclass

from transformers import CLIPTextConfig, CLIPVisionConfig

from .aligned_projection import Alignment
from .checks import is_whole
from .early_exit import EarlyExit
from .image_size import SmallerImages
from .merging import Merging
from .patch_masking import PatchMasking
from .patch_size import CoarserPatches
from .ranking import Ranking
from .resolutions import Resolutions
from .text_ranking import TextRanking
from .token_rule import TokenRule, TowerSizes

BUILT_IN = (
    CoarserPatches,
    SmallerImages,
    Resolutions,
    PatchMasking,
    EarlyExit,
    Ranking,
    Merging,
    Alignment,
    TextRanking,
)
"""In the order in which they see the tokens of a layer."""
NAMED = "token_rules"
"""The entry of a configuration that names those of its rules that aren't built in."""

_registered: dict[str, type[TokenRule]] = {}


def _entries_of(tower: str, name: str) -> type:
    """A class of the entries that the rules built in have in the configurations of a tower."""
    rules = [rule for rule in BUILT_IN if rule.tower == tower]
    return make_dataclass(
        name,
        [(field.name, field.type, None) for rule in rules for field in fields(rule)],
        init=False,
        repr=False,
        eq=False,
        namespace={
            "__module__": __name__,
            "__doc__": f"The entries that the rules built in have in a {tower} tower's "
            "configuration.",
        },
    )


FewerTokens = _entries_of("vision", "FewerTokens")
FewerTextTokens = _entries_of("text", "FewerTextTokens")


def token_rules() -> tuple[type[TokenRule], ...]:
    """All rules that are known here, in the order in which they see the tokens of a layer."""
    return (*BUILT_IN, *_registered.values())


def register_token_rule(rule: type[TokenRule]) -> type[TokenRule]:
    """Make a rule known: `Reduction`, towers, costs and checkpoints take it like the others.

    Usable as a decorator. A program that loads a checkpoint with such a rule registers it first;
    registering one again, under the same name, takes the place of the former.

    Raises:
        ValueError: it has no fields, or a field or setting that another rule or every tower has.
    """
    names = {*rule.settings(), *(field.name for field in fields(rule))}
    if not fields(rule):
        raise ValueError(f"{rule.__name__} has no fields: is it decorated as a dataclass?")
    usual = CLIPVisionConfig() if rule.tower == "vision" else CLIPTextConfig()
    if every := sorted(names & set(dir(usual))):
        raise ValueError(
            f"{rule.__name__} takes {', '.join(every)}, which is an entry of every tower"
        )
    former = _registered.get(rule.__name__)
    for other in token_rules():
        taken = {*other.settings(), *(field.name for field in fields(other))}
        if other is not former and names & taken:
            raise ValueError(
                f"{rule.__name__} and {other.__name__} both have {', '.join(sorted(names & taken))}"
            )
    _registered[rule.__name__] = rule
    return rule


def asked_rules(config: object) -> tuple[TokenRule, ...]:
    """The rules that a tower's configuration asks for, none for a dense or pruned tower."""
    return tuple(asked for rule in token_rules() if (asked := rule.of(config)).is_asked)


def is_reduced(config: object) -> bool:
    """Whether a tower's configuration asks for any rule."""
    return bool(asked_rules(config))


def entry_names(rules: Sequence[TokenRule], config: object) -> list[str]:
    """The entries by which a configuration asks for rules."""
    return [
        field.name
        for rule in rules
        for field in fields(rule)
        if getattr(config, field.name, None) is not None
    ]


def names_to_register(rules: Sequence[TokenRule]) -> list[str]:
    """The names of those of the rules that aren't built in, for the entry `NAMED`."""
    return sorted(type(rule).__name__ for rule in rules if not isinstance(rule, BUILT_IN))


def dense_size(config: object, name: str) -> int:
    """An entry of a tower's sizes as it was before any rule: `num_hidden_layers`, `image_size`."""
    for rule in asked_rules(config):
        if size := rule.dense_sizes().get(name):
            return size
    own: int = getattr(config, name)
    return own


def has_several_sizes(config: object) -> bool:
    """Whether a tower computes its images at several sizes, with different numbers of tokens."""
    return any(rule.sides() for rule in asked_rules(config))


def check_registered(config: object) -> None:
    """Raise `ValueError` if a configuration names rules that aren't known here."""
    named = getattr(config, NAMED, None) or ()
    if not isinstance(named, (list, tuple)) or not all(isinstance(name, str) for name in named):
        raise ValueError(f"{NAMED} takes names of rules, found {named!r}"[:200])
    if absent := [name for name in named if name not in _registered]:
        raise ValueError(
            f"the tower works by token rules that aren't known here, {', '.join(absent)}: import "
            "the program that registers them (register_token_rule) before it is loaded"
        )


def check_token_rules(config: TowerSizes) -> None:
    """Raise `ValueError` unless a tower can do what the rules that it asks for say.

    Args:
        config: a tower's, or anything with its entries.
    """
    rules = asked_rules(config)
    if not rules or any(rule.tower == "vision" for rule in rules):
        patch, size = config.patch_size, config.image_size
        if not (is_whole(patch) and is_whole(size)):
            raise ValueError(f"images and patches must be square, found {size!r} and {patch!r}")
    for rule in rules:
        rule.check(config, rules)
