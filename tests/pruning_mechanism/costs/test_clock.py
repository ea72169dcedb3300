import time

import torch

from pruning_mechanism.costs.clock import in_turn

CPU = torch.device("cpu")


def test_each_contender_is_prepared_right_before_each_of_its_calls():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = in_turn(works, 2, CPU, warmup=1, prepare=lambda name: calls.append(name.upper()))
    assert "".join(calls) == "AaBb" * 3
    assert {name: len(each) for name, each in found.items()} == {"a": 2, "b": 2}


def test_neither_preparing_nor_the_warm_up_is_timed(monkeypatch):
    now = [0.0]

    def takes(seconds: float):
        now[0] += seconds

    cost = iter([100.0, 3.0, 4.0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = in_turn({"a": lambda: takes(next(cost))}, 2, CPU, prepare=lambda _name: takes(50.0))
    assert found == {"a": [3.0, 4.0]}
