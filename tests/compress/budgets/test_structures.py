"""What may go decides which sizes there are, and how little of a tower can be asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPConfig

from compress.budgets.budgets import HeadBudget, MacBudget
from compress.budgets.structures import allowed, check_reach, dim_sizes
from compress.choices import USUAL_STRUCTURES
from compress.errors import UserError
from compress.options import BudgetOptions
from tests.compress.allocation.test_allocate import CONFIG

SIZES = np.array([0, 2, 5, 1, 8, 8])


@pytest.mark.parametrize(
    ("structures", "expected"),
    [
        (USUAL_STRUCTURES, [0, 1, 2, 5, 8]),
        (("heads", "neurons"), [1, 2, 5, 8]),
        (("sublayers",), [0, 8]),
        (("neurons",), [8]),
        (("neurons", "sublayers"), [0, 8]),
        (("head_dims",), [8]),
    ],
)
def test_a_sublayer_loses_what_may_go_and_nothing_else(structures, expected):
    assert allowed(structures, "heads", 8, SIZES).tolist() == expected


@given(head_dim=st.integers(1, 128))
def test_head_dimensions_are_measured_from_an_eighth_to_all(head_dim):
    sizes = dim_sizes(head_dim)
    assert sizes[0] == max(1, round(head_dim / 8))
    assert sizes[-1] == head_dim
    assert (np.diff(sizes) > 0).all()


def test_a_constraint_out_of_reach_is_refused():
    for structures, reachable in (
        (("heads", "neurons"), 0.3),
        (("neurons", "head_dims"), 0.3),
        (USUAL_STRUCTURES, 0.001),
        (("sublayers",), 0.001),
    ):
        check_reach(structures, MacBudget(reachable), CONFIG)
    for structures in (("heads",), ("head_dims",), ("heads", "head_dims")):
        names = ",".join(structures)
        found = rf"structures {names} at least 0\.\d+ of the vision tower's MACs"
        with pytest.raises(UserError, match=found):
            check_reach(structures, MacBudget(0.3), CONFIG)


def test_a_number_of_heads_out_of_reach_is_refused():
    for structures, reachable, beyond in (
        (("heads",), 9, 10),  # 3 layers x 4 heads: one a layer stays
        (("neurons",), 0, 1),
        (("sublayers",), 12, None),
        (USUAL_STRUCTURES, 12, None),
    ):
        check_reach(structures, HeadBudget(reachable), CONFIG)
        if beyond:
            with pytest.raises(UserError, match=rf"{beyond} heads: with structures .* stay"):
                check_reach(structures, HeadBudget(beyond), CONFIG)


def test_each_tower_is_asked_what_is_left_of_it():
    """Without its neurons the wide tower meets a constraint that the narrow one doesn't."""
    config = CLIPConfig(
        vision_config=CONFIG.to_dict(),
        text_config={**CONFIG.to_dict(), "intermediate_size": 400, "max_position_embeddings": 16},
    )
    constraint = MacBudget(0.3)
    check_reach(("neurons",), constraint, config, "text")
    with pytest.raises(UserError, match="of the vision tower's MACs stay"):
        check_reach(("neurons",), constraint, config, "vision")


def test_options_refuse_structures_that_do_not_go_with_them():
    dims = ("heads", "neurons", "head_dims", "sublayers")
    assert BudgetOptions(structures=dims).budgets()
    assert BudgetOptions(structures=dims, latency_constraint=(0.5,)).budgets()
    assert BudgetOptions(structures=USUAL_STRUCTURES[::-1], allocate="scores").budgets()
    for options, message in (
        (BudgetOptions(structures=()), "at least one of --structures"),
        (BudgetOptions(structures=dims, allocate="uniform"), "takes --allocate curves"),
        (BudgetOptions(structures=("heads",), allocate="scores"), "takes --allocate curves"),
        (BudgetOptions(structures=dims, heads=(5,)), "a number of heads says nothing of their"),
    ):
        with pytest.raises(UserError, match=message):
            options.budgets()
