import pytest

from compress.command import UserError
from evaluation.cascade import CascadeOptions
from evaluation.first_stages import KINDS, parse_method

GIVEN = CascadeOptions(repair="none", rounds=3, seed=7, mac_constraint=(0.3, 0.6), heads=(5,))


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
        ("recover+uniform+rounds=0", {"allocate": "uniform", "rounds": 0}),
        ("recover+steps=4+scores", {"steps": 4, "allocate": "scores"}),
        ("fisher+embedding+rescale", {"objective": "embedding", "repair": "rescale"}),
        ("fisher+curves", {"allocate": "curves"}),
        ("recover+head_dims", {"structures": ("heads", "neurons", "head_dims", "sublayers")}),
    ],
)
def test_words_after_the_rule_change_its_options_and_nothing_else(name, differences):
    found = changed(name)
    assert {each: found.get(each) for each in differences} == differences
    known = {"objective", "heads"}  # no flag of the experiment; only asked for by its own word
    assert set(found) - set(differences) <= known
    method = parse_method(name, GIVEN)
    assert method.name == name
    assert method.options.seed == 7


def test_a_rule_gets_the_experiments_constraints():
    labels = [each.label for each in parse_method("magnitude", GIVEN).rule.constraints]
    named = [each.label for each in parse_method("sensitivity", GIVEN).rule.constraints]
    instead = [each.label for each in parse_method("recover+heads", GIVEN).rule.constraints]
    assert (labels, named, instead) == (["MAC 0.3", "MAC 0.6"], ["5 heads"], ["5 heads"])


@pytest.mark.parametrize("name", ["random", "magnitude", "taylor", "hessian"])
def test_a_baseline_is_named_by_its_estimator(name):
    assert parse_method(f"{name}+reconstruct", GIVEN).options.importance == name


@pytest.mark.parametrize("name", KINDS)
def test_every_rule_takes_a_repair(name):
    for repair in ("none", "rescale", "reconstruct"):
        assert parse_method(f"{name}+{repair}", GIVEN).options.repair == repair


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("wanda", "'wanda' is none of recover, fisher"),
        ("", "'' is none of recover"),
        ("recover+wanda", "'wanda' is none of none, rescale, reconstruct, curves"),
        ("recover+", "'' is none of"),
        ("recover+embedding", "'embedding' is none of"),
        ("sensitivity+curves", "'curves' is none of none, rescale, reconstruct$"),
        ("sensitivity+head_dims", "'head_dims' is none of none, rescale, reconstruct$"),
        ("recover+uniform+head_dims", "takes --allocate curves, not uniform"),
        ("recover+heads+head_dims", "takes a --mac-constraint: a number of heads"),
        ("sensitivity+rounds=1", "'rounds=1' is none of"),
        ("recover+rounds", "'rounds' is none of .*rounds=N, steps=N"),
        ("recover+rounds=x", "'rounds=x' is none of"),
        ("recover+rounds=-1", "'rounds=-1' is none of"),
        ("recover+steps=0", "--steps must be at least 1"),
    ],
)
def test_a_word_that_means_nothing_to_the_rule_is_refused(name, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_method(name, GIVEN)
