"""The `evaluate` metrics load offline from anywhere and give the plain functions' numbers."""

import os
from pathlib import Path

import pytest
import torch

from evaluation import metrics
from evaluation.retrieval import agreement, recall
from tests.fresh import python

FOLDER = Path(metrics.__file__).parent


def test_recall_at_k_is_recall():
    scores = torch.rand(20, 7, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    target = torch.arange(20) % 7
    found = metrics.load("recall_at_k").compute(
        predictions=scores.tolist(), references=target.tolist(), ks=[1, 3]
    )
    assert found == {f"recall@{k}": value for k, value in recall(scores, target, [1, 3]).items()}


def test_agreement_at_k_is_agreement_and_asks_what_the_cascade_lost():
    own, cascaded = [[0, 1, 2], [3, 4, -1]], [[2, 9, -1], [4, 3, 8]]
    found = metrics.load("agreement_at_k").compute(predictions=cascaded, references=own)
    assert found == {"agreement": agreement(torch.tensor(own), torch.tensor(cascaded))}
    assert found["agreement"] == pytest.approx(100 * (1 / 3 + 1) / 2)


def test_an_unknown_metric_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="recall_at_k or agreement_at_k"):
        metrics.load("accuracy")


def test_evaluate_loads_them_without_a_network_in_another_directory(tmp_path):
    script = f"""
import socket
def refuse(*arguments, **named):
    raise OSError("this test has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate
recall = evaluate.load({str(FOLDER / "recall_at_k")!r})
print(recall.compute(predictions=[[0.1, 0.9], [0.8, 0.2]], references=[1, 1], ks=[1]))
agreement = evaluate.load({str(FOLDER / "agreement_at_k")!r})
print(agreement.compute(predictions=[[1, 2]], references=[[2, 3]]))
"""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(FOLDER.parents[1]),
    }
    asked = python("-c", script, cwd=tmp_path, env=environment)
    assert asked.stdout.split("\n")[:2] == ["{'recall@1': 50.0}", "{'agreement': 50.0}"]
