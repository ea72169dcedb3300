"""What is prepared ahead comes in order, bounded, with its errors, and leaves no thread."""

import threading
import time

import pytest
import torch

from corpora.pixels.ahead import TOGETHER, WAITING, InTurn, ahead, batches_ahead, joined


def test_what_taking_an_item_raises_comes_after_what_was_taken_before():
    def items():
        yield from range(5)
        raise OSError("the disk is gone")

    for together in (1, 3):
        running = ahead(items(), lambda item: item, threads=2, waiting=2, together=together)
        assert [next(running) for _ in range(5)] == list(range(5))
        with pytest.raises(OSError, match="the disk is gone"):
            next(running)


def test_items_come_in_order_with_what_was_made_of_each():
    def slow(number):
        time.sleep(0.002 * (number % 3))
        return number * number

    for threads, waiting in ((1, 1), (4, 3), (4, 100)):
        found = list(ahead(range(20), slow, threads, waiting))
        assert found == [number * number for number in range(20)]


def test_an_unexpected_error_ends_it_in_its_turn_and_leaves_no_thread():
    def prepare(number):
        return 1 // (number - 2)

    got = []
    running = ahead(range(10), prepare, 3, 5)
    with pytest.raises(ZeroDivisionError):
        got.extend(running)
    assert got == [-1, -1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_no_more_than_asked_for_is_prepared():
    taken, most = [], []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    for place, _ in enumerate(ahead(items(), lambda number: number, 4, 6)):
        most.append(len(taken) - place)
    assert max(most) <= 6


@pytest.mark.parametrize("end", ["close", "throw"])
def test_stopping_in_the_middle_drops_the_rest_and_leaves_no_thread(end):
    begun = []

    def prepare(number):
        begun.append(number)
        time.sleep(0.01)

    running = ahead(range(1000), prepare, 2, 40)
    next(running)
    if end == "close":
        running.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            running.throw(KeyboardInterrupt)
    assert len(begun) < 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def threads_left():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("together", [1, 2, 3, 7, 30])
def test_items_that_share_a_thread_come_in_order_and_fail_alone(together):
    assert list(ahead(range(20), str, 3, 6, together)) == [str(number) for number in range(20)]
    got = []
    with pytest.raises(ZeroDivisionError):
        got.extend(ahead(range(20), lambda number: 1 // (number - 5), 3, 6, together))
    assert got == [1 // (number - 5) for number in range(5)]
    taken = []
    items = (taken.append(number) or number for number in range(100))
    for place, _ in enumerate(ahead(items, str, 2, 6, together)):
        assert len(taken) - place <= 6 + together


def levels(images):
    return torch.tensor(images, dtype=torch.uint8).view(-1, 1, 1, 1)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [[], [1], [TOGETHER], [3, 20, 0, 9], [5 * WAITING, 1, 64]])
def test_batches_come_whole_and_in_order(sizes, threads):
    batches = [[place] * size for place, size in enumerate(sizes)]
    found = list(batches_ahead(iter(batches), levels, joined, threads))
    assert [batch.flatten().tolist() for batch in found] == batches
    assert not threads_left()


def test_a_thread_of_torch_prepares_nothing_ahead():
    asked = []

    def prepare(images):
        asked.append((images, threading.current_thread()))
        return levels(images)

    running = batches_ahead([[1], [2]], prepare, joined, 1)
    next(running)
    assert asked == [([1], threading.main_thread())]


def test_while_a_batch_is_worked_on_the_next_are_prepared_and_no_more():
    prepared, taken = [], []

    def batches():
        for place in range(100):
            taken.append(place)
            yield [place] * 32

    running = batches_ahead(
        batches(), lambda images: prepared.append(0) or levels(images), joined, 2
    )
    next(running)
    deadline = time.monotonic() + 20
    while len(prepared) < (WAITING + 32) // TOGETHER - 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(prepared) >= (WAITING + 32) // TOGETHER - 1
    assert len(taken) <= 1 + WAITING // 32
    running.close()
    assert not threads_left()


def test_a_batch_that_fails_ends_it_in_its_turn():
    def prepare(images):
        if 2 in images:
            raise OSError("no image")
        return levels(images)

    got = []
    with pytest.raises(OSError, match="no image"):
        got.extend(batches_ahead([[0] * 9, [1], [2] * 20, [3]], prepare, joined, 2))
    assert len(got) == 2
    assert not threads_left()


def test_parts_of_different_sizes_are_an_error_that_names_them():
    def prepare(images):
        return torch.zeros(len(images), 3, images[0], 4)

    with pytest.raises(ValueError, match="different sizes"):
        list(batches_ahead([[5] * TOGETHER + [6]], prepare, joined, 2))


def test_only_a_pass_that_asks_prepares_anything_and_in_any_order():
    asked = []

    def images(batch):
        asked.append(batch)
        return [batch] * 10

    in_turn = InTurn(range(5), images, levels)
    assert not asked
    for place in (1, 2, 4, 0, 1):
        assert in_turn(place).flatten().tolist() == [place] * 10
    in_turn.close()
    assert not threads_left()
    assert in_turn(3).flatten().tolist() == [3] * 10
    InTurn(range(5), images, levels).close()
