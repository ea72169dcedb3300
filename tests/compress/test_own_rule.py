"""A pruning rule from outside the package, made with public names alone."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from compress.allocation.allocate import Curves, allocated
from compress.budgets.prices import Prices, as_prices
from compress.calibrating.importance import Importance
from compress.choices import Allocation
from compress.command import run_command
from compress.making.pruning import Scoring, pruning
from compress.making.rule import Rule
from compress.options import BudgetOptions, OutputOptions
from compress.rule_command import run_rule
from compress.rules import ALLOCATED, BUDGET, RULES, Row
from evaluation.cascade import CascadeOptions
from evaluation.experiment.methods import parse_method
from pruning_mechanism import Mask, Tower, TowerKind, load


def scores(model, corpus=None, *, tower: TowerKind = "vision") -> Importance:
    """The norm of what each unit's rows of the output projection write."""
    found = {"heads": [], "neurons": []}
    for part in Tower.of(model, tower).sublayers:
        rows = part.output.weight.detach().square().sum(0)
        found[part.kind].append(rows.view(part.units, part.unit_width).sum(1))
    return Importance(*(torch.stack(each) for each in found.values()))


def select(
    importance: Importance,
    budget: float | Prices,
    config: object = None,
    allocate: Allocation = "uniform",
    curves: Curves | None = None,
) -> Mask:
    """The units of the largest norms."""
    return allocated(importance, as_prices(budget, config), allocate, curves)


@dataclass(frozen=True)
class NormOptions(BudgetOptions, OutputOptions):
    """Prune the units that write least.

    Example: python -m norms --mac-constraint 0.5
    """


def rule(options: BudgetOptions) -> Rule:
    """Pruning by norm."""
    scoring = Scoring(lambda subject: scores(subject.model, tower=subject.kind), "norm")
    return pruning("norm", options.budgets(), scoring, select, options.spending)


def main(options: NormOptions) -> None:
    """Score, select, repair, cut and save."""
    run_rule(rule(options), options)


@pytest.mark.parametrize("allocate", ["curves", "uniform", "scores"])
def test_its_command_makes_repairs_and_records(clip_directory, folder, tmp_path, allocate):
    given = ["--model", clip_directory, "--corpus", "folder", "--corpus-dir", folder]
    given += ["--samples", 12, "--output", tmp_path / "out", "--allocate", allocate]
    given += ["--mac-constraint", 0.4]
    run_command(main, NormOptions, "norms", [str(each) for each in given])
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    assert record["rule"] == "norm"
    assert 0.2 < record["mac_fraction"] <= 0.4
    repairs = json.loads((tmp_path / "out" / "repair.json").read_text())
    assert any(each["damping"] for each in repairs)


def test_as_a_row_of_the_table_it_is_a_method_of_experiments():
    rules = {**RULES, "norm": Row(BudgetOptions, rule, BUDGET, ALLOCATED)}
    method = parse_method("norm+rescale", replace(CascadeOptions(), mac_constraint=(0.3,)), rules)
    assert [setting.label for setting in method.settings] == ["MAC 0.3"]
    assert method.options.repair == "rescale"


def test_the_library_and_the_command_select_by_the_same_function(clip_directory, folder, tmp_path):
    model = load(clip_directory)
    chosen = select(scores(model), 0.4, model.config)
    given = ["--model", clip_directory, "--corpus", "folder", "--corpus-dir", folder]
    given += ["--samples", 12, "--output", tmp_path / "out", "--allocate", "uniform"]
    run_command(
        main, NormOptions, "norms", [str(each) for each in (*given, "--mac-constraint", 0.4)]
    )
    assert Mask.load(tmp_path / "out" / "mask.safetensors") == chosen
