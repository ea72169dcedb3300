"""A report and results to draw; their numbers are made up and describe no measurement."""

import json
from pathlib import Path

import pytest
import torch

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports.report import Report
from evaluation.reports.row import FULL_TOWER, Result, Row, constraint_of
from pruning_mechanism import Mask


def around(value, width):
    return Interval(value, value - width, value + width)


def measured(recall):
    recalls = {1: around(recall / 2, 1.4), 5: around(recall * 0.9, 1.2), 10: around(recall, 1.1)}
    return Result(recalls, {k: around(0.0, 0.3) for k in recalls}, around(90.0, 0.5))


def row(method, constraint, speedup, alone, cascade):
    timing = Timing(0.01, 0.009, 0.011, 5)
    rule, _, variant = method.partition("+")
    kind, value = constraint_of(constraint)
    return Row(
        method=method,
        rule=rule,
        variant=variant,
        constraint=constraint,
        constraint_kind=kind,
        constraint_value=value,
        directory=None,
        encoder_macs=10**9,
        mac_fraction=0.5,
        tower_macs=10**9,
        parameters=10**6,
        alone=measured(alone),
        cascade=None if cascade is None else measured(cascade),
        one_minus_cosine=None,
        encoder_seconds=timing,
        end_to_end_seconds=timing,
        lifetime_speedup=Interval(speedup, 0.96 * speedup, 1.05 * speedup),
        query_speedup=None,
        f_assumed=0.1,
        f_measured=None,
        compression_seconds=None,
    )


@pytest.fixture
def report():
    rows = [
        row("fisher", f"MAC {value}", speedup, alone, cascade)
        for value, speedup, alone, cascade in [
            (0.25, 2.75, 21.0, 55.0),
            (0.4, 2.0, 55.0, 80.5),
            (0.5, 1.68, 69.0, 84.2),
            (0.65, 1.34, 80.0, 85.3),
            (0.8, 1.12, 84.0, 85.5),
        ]
    ]
    rows += [
        row("sensitivity", f"{heads} heads", speedup, alone, cascade)
        for heads, speedup, alone, cascade in [
            (22, 0.97, 84.5, 85.45),
            (77, 1.12, 62.0, 82.0),
            (132, 1.32, 12.0, 41.0),
        ]
    ]
    reference = row(FULL_TOWER, "", 1.0, 85.5, None)
    reference.__dict__["lifetime_speedup"] = Interval(1.0, 1.0, 1.0)
    return Report(
        command="made up",
        model="made-up-numbers",
        corpus="scenes",
        split="test",
        images=1000,
        queries=5000,
        calibration="",
        captions="all",
        m=(50,),
        seconds_basis="encoder",
        seed=0,
        skipped=(),
        reference=reference,
        rows=tuple(rows),
        machine=Machine("a processor", 2, 2, "cpu", "float32", "Linux"),
        versions={},
        date="2026-01-01T00:00:00+00:00",
    )


def write_result(directory: Path) -> Path:
    """What a compression command writes of a tower of 3 layers, all but the checkpoint itself."""
    directory.mkdir()
    heads = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    neurons = torch.arange(24) < torch.tensor([[7], [24], [0]])
    Mask(heads, neurons).save(directory / "mask.safetensors")
    record = {
        "rule": "recover", "constraint": "MAC 0.5", "repair": "reconstruct", "base": "some/clip",
        "corpus": "scenes train", "samples": 2048, "mac_fraction": 0.4987, "seconds": 12.0,
    }  # fmt: skip
    repairs, curves = [], []
    for layer in range(3):
        for kind, mask, units in (("heads", heads, 4), ("neurons", neurons, 24)):
            worth = 0.3 / (1 + layer)
            sizes = [0, units // 4, units // 2, units]
            losses = [worth, worth / 8, worth / 50, 0.0]
            chosen = int(mask[layer].sum())
            curves.append(
                {"layer": layer, "kind": kind, "sizes": sizes, "losses": losses, "chosen": chosen}
            )
            repairs.append(write_repair(layer, kind, worth))
    files = {
        "compression.json": record,
        "repair.json": repairs,
        "curves.json": {"schema": 1, "metric": "1 - cos to the dense embedding", "curves": curves},
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    return directory


def write_repair(layer: int, kind: str, error: float) -> dict:
    """A repaired sublayer; the heads of layer 1 needed nothing, the neurons of 2 had a problem."""
    entry = {"layer": layer, "kind": kind, "error_before": error, "error_after": error / 10}
    if (layer, kind) == (1, "heads"):
        return {**entry, "error_before": 0.0, "error_after": 0.0, "damping": None, "problem": None}
    if (layer, kind) == (2, "neurons"):
        return {**entry, "error_after": error, "damping": None, "problem": "a factor of 12"}
    return {**entry, "damping": 0.01, "problem": None}


def both(directory: Path, name: str) -> tuple[bytes, bytes]:
    """What a picture's two files hold, PNG and SVG; neither says when it was drawn."""
    png, svg = ((directory / f"{name}.{ending}").read_bytes() for ending in ("png", "svg"))
    assert b"<dc:date>" not in svg
    return png, svg


@pytest.fixture
def result(tmp_path) -> Path:
    return write_result(tmp_path / "recover-mac-0.5")


@pytest.fixture
def other(tmp_path) -> Path:
    return write_result(tmp_path / "fisher-mac-0.5")
