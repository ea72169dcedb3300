"""The methods that an experiment can name: a rule, and words that change its options.

Stands between the rules and the first stages that are made by them. Which rules there are, and what
a word means to each, is in `compress.rules`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields

from commands.flags import unread_of
from compress.errors import UserError
from compress.options import FullTowerOptions, SourceOptions, SpendingOptions
from compress.rules import RULES, Row
from evaluation.experiment.first_stages import Method


def parse_method(name: str, given: SourceOptions, rules: Mapping[str, Row] = RULES) -> Method:
    """The method that `fisher`, `fisher+rescale`, `recover+uniform`, `flip+random` … mean.

    The first word is a rule; the others change its options, as its row in the table says: a repair,
    an allocation, `aligned` …. `heads` stands for the --heads in place of the --mac-constraint.

    Args:
        name: words joined by +.
        given: the experiment's options, of which the rule takes those that its row names.
        rules: the table of rules.

    Raises:
        UserError: a word is none of these, or the rule has no such option.
    """
    first, *words = name.split("+")
    if first not in rules:
        raise UserError(f"--methods {name}: {first!r} is none of {', '.join(rules)}")
    row = rules[first]
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    inherited = {option: values[option] for option in row.inherits if option in values}
    chosen = {**inherited, **row.fixed}
    if row.takes_heads and "heads" in words:
        words.remove("heads")
        chosen |= {"heads": values["heads"], "mac_constraint": ()}
    if chosen.get("latency_constraint"):
        chosen |= {"mac_constraint": (), **_deployment(name, values)}
    for word in words:
        if word not in row.words:
            raise UserError(f"--methods {name}: {word!r} is none of {', '.join(row.words)}")
        option, value = row.words[word]
        chosen[option] = value
    if "latency_constraint" not in row.inherits and "mac_constraint" in row.inherits:
        _refuse_latency(name, values)
    options = row.options(**chosen)
    called = "+".join(word for word in name.split("+") if word != "aligned")
    return Method(name, row.rule(options).named(called), options)


def unread_settings(
    methods: Sequence[Method], options: SpendingOptions, given: Collection[str]
) -> list[str]:
    """Which settings of the methods were given but are read by none of them.

    Args:
        methods: of the experiment; none if first stages were made before.
        options: the experiment's.
        given: names of the options that its user named.
    """
    own = {field.name for field in fields(SpendingOptions)}
    own -= {field.name for field in fields(SourceOptions)}
    settings = [*sorted(own - {"tower", "text_model"}), "samples", "calibration_split"]
    return [
        name
        for name in settings
        if name in given and not any(_reads(method.options, name, options) for method in methods)
    ]


def _reads(own: FullTowerOptions, name: str, options: SpendingOptions) -> bool:
    """Whether a method of these options goes by the experiment's value of one."""
    return (
        _has(own, name)
        and getattr(own, name) == getattr(options, name)
        and not unread_of(own, [name])
    )


def _deployment(name: str, given: Mapping[str, object]) -> Mapping[str, object]:
    """What a rule's seconds are measured in: what the experiment runs its first stages in.

    Raises:
        UserError: that is found out only once there is a first stage.
    """
    runtime, dtype = given.get("runtime", "torch"), given.get("dtype")
    if runtime == "auto":
        raise UserError(
            f"--methods {name}: seconds are measured before there is a tower to choose a runtime "
            "for: name one beside --latency-constraint, as in --runtime openvino"
        )
    as_loaded = runtime == "torch" and dtype == "float32"  # which torch runs in its own type
    return {"runtime": runtime, "dtype": None if as_loaded else dtype}


def _has(options: SourceOptions, name: str) -> bool:
    return name in {field.name for field in fields(options)}


def _refuse_latency(name: str, given: Mapping[str, object]) -> None:
    if given.get("latency_constraint"):
        raise UserError(f"--methods {name} takes a --mac-constraint, not a --latency-constraint")
