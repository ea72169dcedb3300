"""What may be named as a method of an experiment, and what each word of its name changes."""

from dataclasses import replace

import pytest

from compress.errors import UserError
from compress.options import RepairOptions
from compress.rules import RULES
from evaluation.cascade import CascadeOptions
from evaluation.experiment.methods import parse_method

GIVEN = CascadeOptions(repair="none", seed=7, mac_constraint=(0.3, 0.6), heads=(5,))
REDUCING = ("flip", "merge", "rank", "resolution", "early_exit", "joint")
PRUNING = tuple(name for name in RULES if name not in REDUCING)


def changed(name: str) -> dict[str, object]:
    """The options of a method that aren't those given."""
    options = parse_method(name, GIVEN).options
    return {
        each: value
        for each, value in vars(options).items()
        if value != getattr(GIVEN, each, object())
    }


@pytest.mark.parametrize(
    ("name", "differences"),
    [
        ("recover", {}),
        ("recover+reconstruct", {"repair": "reconstruct"}),
        ("recover+scores", {"allocate": "scores"}),
        ("fisher+embedding+rescale", {"objective": "embedding", "repair": "rescale"}),
        ("fisher+curves", {"allocate": "curves"}),
        ("recover+head_dims", {"structures": ("heads", "neurons", "head_dims", "sublayers")}),
        ("recover+uniform+aligned", {"allocate": "uniform", "align": "ridge"}),
    ],
)
def test_words_after_the_rule_change_its_options_and_nothing_else(name, differences):
    found = changed(name)
    assert {each: found.get(each) for each in differences} == differences
    # no flags of the experiment; heads are only asked for by their own word
    known = {"objective", "heads", "target", "align", "align_features", "config"}
    assert set(found) - set(differences) <= known
    method = parse_method(name, GIVEN)
    assert method.name == name
    assert method.options.seed == 7


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("flip", "keep", "grid"),
        ("flip+random", "keep", "random"),
        ("flip+saliency", "keep", "saliency"),
        ("merge", "schedule", "constant"),
        ("merge+decreasing", "schedule", "decreasing"),
        ("rank+attention", "ranker", "attention"),
        ("rank+learned", "ranker", "learned"),
        ("resolution+unaligned", "align", "none"),
        ("merge+unaligned+decreasing", "schedule", "decreasing"),
        ("early_exit", "align", "ridge"),
    ],
)
def test_words_after_a_rule_that_leaves_out_tokens_are_its_own(name, option, value):
    method = parse_method(name, GIVEN)
    assert getattr(method.options, option) == value
    assert method.aligns == ("unaligned" not in name)
    assert (method.name, method.rule.name) == (name, name)
    assert (method.options.samples, method.options.seed) == (GIVEN.samples, 7)


@pytest.mark.parametrize("name", REDUCING)
def test_a_rule_that_leaves_out_tokens_gets_the_mac_constraints(name):
    labels = [each.label for each in parse_method(name, GIVEN).settings]
    assert labels == ["MAC 0.3", "MAC 0.6"]


def test_a_rule_gets_the_experiments_constraints():
    labels = [each.label for each in parse_method("magnitude", GIVEN).settings]
    named = [each.label for each in parse_method("sensitivity", GIVEN).settings]
    instead = [each.label for each in parse_method("recover+heads", GIVEN).settings]
    assert (labels, named, instead) == (["MAC 0.3", "MAC 0.6"], ["5 heads"], ["5 heads"])


@pytest.mark.parametrize("name", ["random", "magnitude", "taylor", "hessian"])
def test_a_baseline_is_named_by_its_estimator(name):
    assert parse_method(f"{name}+reconstruct", GIVEN).options.importance == name


@pytest.mark.parametrize("name", PRUNING)
def test_every_pruning_rule_takes_a_repair_and_is_aligned_only_if_asked_to(name):
    for repair in ("none", "rescale", "reconstruct"):
        method = parse_method(f"{name}+{repair}", GIVEN)
        assert isinstance(method.options, RepairOptions)
        assert (method.options.repair, method.aligns) == (repair, False)
        aligned = parse_method(f"{name}+aligned+{repair}", GIVEN)
        assert (replace(aligned.options, align="none"), aligned.aligns) == (method.options, True)
        assert aligned.rule.name == f"{name}+{repair}"  # what is done before the alignment


@pytest.mark.parametrize("name", REDUCING)
def test_every_other_rule_is_aligned_unless_asked_not_to(name):
    assert not isinstance(parse_method(name, GIVEN).options, RepairOptions)
    assert parse_method(name, GIVEN).aligns
    if name == "joint":  # judges by the aligned embedding
        with pytest.raises(UserError, match="'unaligned' is none of no_head_dims"):
            parse_method("joint+unaligned", GIVEN)
    else:
        assert not parse_method(f"{name}+unaligned", GIVEN).aligns


def test_the_joint_rule_takes_all_structures_unless_head_dims_are_left_out():
    assert "head_dims" not in GIVEN.structures
    assert "head_dims" in parse_method("joint", GIVEN).options.structures
    assert "head_dims" not in parse_method("joint+no_head_dims", GIVEN).options.structures


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("wanda", "'wanda' is none of recover, fisher"),
        ("", "'' is none of recover"),
        ("recover+wanda", "'wanda' is none of none, rescale, reconstruct, aligned, curves"),
        ("recover+", "'' is none of"),
        ("recover+embedding", "'embedding' is none of"),
        ("recover+unaligned", "'unaligned' is none of"),
        ("sensitivity+curves", "'curves' is none of none, rescale, reconstruct, aligned$"),
        ("sensitivity+head_dims", "'head_dims' is none of none, rescale, reconstruct, aligned$"),
        ("recover+uniform+head_dims", "takes --allocate curves, not uniform"),
        (
            "recover+heads+head_dims",
            "takes a --mac-constraint or a --latency-constraint: a number of heads",
        ),
        ("flip+none", "'none' is none of unaligned, grid, random, saliency$"),
        ("flip+aligned", "'aligned' is none of"),
        ("flip+heads", "'heads' is none of"),
        ("rank+random", "'random' is none of unaligned, attention, learned$"),
        ("resolution+grid", "'grid' is none of unaligned$"),
    ],
)
def test_a_word_that_means_nothing_to_the_rule_is_refused(name, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_method(name, GIVEN)


def test_a_rule_that_knows_no_seconds_is_refused_beside_a_latency_constraint():
    given = CascadeOptions(latency_constraint=(0.5,))
    with pytest.raises(UserError, match="flip takes a --mac-constraint, not a --latency"):
        parse_method("flip", given)
    assert parse_method("recover", given).settings[0].label == "latency 0.5"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("torch", None)),
        ({"dtype": "bfloat16"}, ("torch", "bfloat16")),
        ({"runtime": "openvino"}, ("openvino", "float32")),
    ],
)
@pytest.mark.parametrize("name", ["recover", "joint"])
def test_seconds_are_measured_in_what_first_stages_run_in(name, given, found):
    method = parse_method(name, CascadeOptions(latency_constraint=(0.5,), **given))
    (asked,) = method.rule.asked.values()
    assert (asked.deployment.runtime, asked.deployment.dtype) == found


def test_seconds_of_a_runtime_that_is_yet_to_be_chosen_are_refused():
    given = CascadeOptions(latency_constraint=(0.5,), runtime="auto")
    with pytest.raises(UserError, match="name one beside --latency-constraint"):
        parse_method("recover", given)
