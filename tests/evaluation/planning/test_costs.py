"""What candidates cost is told end to end and of encoders alone, with how stages run."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from cascade.searching.ranking import NOTHING
from evaluation.measuring.values import Running
from evaluation.planning import telling
from evaluation.planning.costs import Costs
from evaluation.planning.measuring import Row, spending


def test_what_a_number_of_candidates_saves_is_said_end_to_end_and_of_encoders_alone():
    candidates = torch.tensor([[0, 1], [1, NOTHING]])
    costs = Costs(10, 24, (0.02, 0.1), encoders=(0.01, 0.08))
    found = spending(candidates, costs)
    assert (found.f, found.nbytes) == (0.2, 48)
    assert found.speedup == pytest.approx(0.1 / (0.02 + 0.2 * 0.1))
    assert found.encoder_speedup == pytest.approx(0.08 / (0.01 + 0.2 * 0.08))
    row = Row(5, 0.9, 0.8, [found], 0.5)
    shown = printed(telling.table([row], 5, 0.95))
    assert "2.50" in shown
    assert "(3.08)" in shown
    costs = replace(costs, running=[Running("thumbnail", "openvino", "bfloat16"), None])
    assert telling.timed(costs) == [
        "from the bytes of files: first stage reads thumbnail, openvino bfloat16: 20.00 ms an "
        "image (10.00 its encoder); full tower 100.00 ms an image (80.00 its encoder)"
    ]
    unmeasured = spending(candidates, Costs(10, 24, None))
    assert (unmeasured.speedup, unmeasured.encoder_speedup) == (None, None)
    assert telling.timed(Costs(10, 24, None)) == []


def printed(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()
