"""The clock takes turns, counts what it says, and summarises with medians and quartiles."""

import time

import pytest
import torch

from cascade import ResumedStage, Stage
from evaluation.measuring import clock
from evaluation.measuring.clock import (
    encoding,
    keeping_states,
    reading,
    resuming,
    seconds_per_image,
    speedup_interval,
    stage_timings,
    summarise,
)
from evaluation.measuring.values import Timing
from pruning_mechanism import Reduction, reduce
from tests.conftest import tiny_processor


def test_contenders_take_turns_after_their_warm_up():
    calls = []
    contenders = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    found = seconds_per_image(contenders, images=1, repetitions=3, warmup=2)
    assert "".join(calls) == "ab" * 5
    assert list(found) == ["a", "b"]
    assert all(timing.repetitions == 3 for timing in found.values())


def test_seconds_are_those_of_one_image_and_leave_the_warm_up_out(monkeypatch):
    now = [0.0]
    cost = iter([100.0, 6.0, 2.0, 4.0])  # one warm-up, three repetitions

    def work():
        now[0] += next(cost)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = seconds_per_image({"a": work}, images=2, repetitions=3, warmup=1)
    assert found["a"] == Timing(median=2.0, lower_quartile=1.5, upper_quartile=2.5, repetitions=3)


def test_an_accelerator_is_synchronised_before_and_after_each_call(monkeypatch):
    events = []
    monkeypatch.setattr(
        clock.torch.accelerator, "synchronize", lambda device: events.append(str(device))
    )
    seconds_per_image({"a": lambda: events.append("work")}, 1, 1, warmup=0, device="cuda")
    assert events == ["cuda", "work", "cuda"]


def test_one_slow_repetition_does_not_move_the_median():
    assert summarise([1.0, 1.0, 1.0, 1.0, 50.0]) == Timing(1.0, 1.0, 1.0, 5)


@pytest.mark.parametrize(
    "arguments", [{"images": 0}, {"images": 1, "repetitions": 0}, {"images": 1, "warmup": -1}]
)
def test_counts_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="need images"):
        seconds_per_image({"a": int}, **arguments)


def test_nothing_to_time_is_refused():
    with pytest.raises(ValueError, match="nothing to time"):
        seconds_per_image({}, images=1)
    with pytest.raises(ValueError, match="no measurement"):
        summarise([])


def test_speedup_bounds_take_the_quartiles_that_hurt_and_those_that_help():
    first, last = Timing(1.0, 0.5, 2.0, 9), Timing(10.0, 8.0, 12.0, 9)
    found = speedup_interval([first, last], f=0.1)
    assert found.value == pytest.approx(10 / (1 + 0.1 * 10))
    assert found.low == pytest.approx(8 / (2 + 0.1 * 8))
    assert found.high == pytest.approx(12 / (0.5 + 0.1 * 12))


def test_the_full_tower_is_exactly_as_fast_as_itself():
    found = speedup_interval([Timing(10.0, 8.0, 12.0, 9)], f=0.1)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_a_resumed_stage_is_paid_for_by_its_own_seconds_and_measured_against_its_whole_tower():
    first, then, whole = (
        Timing(1.0, 0.5, 2.0, 9), Timing(4.0, 3.0, 5.0, 9), Timing(10.0, 8.0, 12.0, 9),
    )  # fmt: skip
    found = speedup_interval([first, then], 0.1, whole)
    assert found.value == pytest.approx(10 / (1 + 0.1 * 4))
    assert found.low == pytest.approx(8 / (2 + 0.1 * 5))
    assert found.high == pytest.approx(12 / (0.5 + 0.1 * 3))
    assert found.value > speedup_interval([first, whole], 0.1).value


@pytest.fixture
def resumed(clip_directory):
    full = Stage.load(clip_directory)
    first = Stage(reduce(full.model, Reduction(layers=1)), tiny_processor())
    return ResumedStage(full, first)


@pytest.fixture
def files(folder):
    return [path.read_bytes() for path in sorted((folder / "train").glob("*.png"))[:3]]


def test_what_is_timed_of_a_stage_is_embedding_images(resumed, files):
    work = encoding(resumed.stage)(files)
    expected = resumed.stage.encode_images(files)
    torch.testing.assert_close(work.encoder(), expected)
    torch.testing.assert_close(work.end_to_end(), expected)


def test_what_is_timed_of_a_text_tower_is_embedding_texts(resumed):
    texts = ["a red square", "a big blue disc on the left"]
    work = reading(resumed.stage, texts)
    expected = resumed.stage.encode_texts(texts)
    torch.testing.assert_close(work.encoder(), expected)
    torch.testing.assert_close(work.end_to_end(), expected)


def test_what_is_timed_of_an_exit_that_is_resumed_is_keeping_its_states_too(resumed, files):
    expected, kept = resumed.encode_first(files)
    work = keeping_states(resumed)(files)
    for found, states in (work.encoder(), work.end_to_end()):
        torch.testing.assert_close(found, expected)
        assert torch.equal(states.hidden, kept.hidden)
        assert states.hidden.dtype == torch.float16


def test_what_is_timed_of_a_tower_that_resumes_opens_no_image(resumed, files):
    sources = list(files)
    work = resuming(resumed)(sources)
    expected = resumed.encode_images(files)
    sources[:] = [b"no image"] * 3
    torch.testing.assert_close(work.encoder(), expected)
    torch.testing.assert_close(work.end_to_end(), expected)


def test_every_contender_is_timed_both_ways(resumed, files):
    contenders = {
        "whole": encoding(resumed.stage), ("first", 0): keeping_states(resumed),
        ("then", 0): resuming(resumed),
    }  # fmt: skip
    found = stage_timings(contenders, files, 2, "cpu")
    assert list(found) == list(contenders)
    for timing in found.values():
        assert timing.basis("encoder").repetitions == timing.basis("end to end").repetitions == 2
