"""What is made once, and what each result is charged for it."""

import pytest

from compress.calibrating import cache
from compress.calibrating.cache import Cache


class Clock:
    """A clock that stands still unless work is done."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float, needs=()):
        def make():
            for each in needs:
                each()
            self.now += seconds
            return seconds

        return make


def test_each_result_is_charged_for_all_that_it_needed_and_for_nothing_twice(monkeypatch):
    made, clock = Cache(), Clock()
    monkeypatch.setattr(cache, "time", clock)

    def weights():
        return made.once("weights", clock.work(1))

    def moments():
        return made.once("moments", clock.work(10, [weights]))

    def curves():
        return made.once("curves", clock.work(100, [moments, weights]))

    made.bill.open()
    moments(), curves(), weights(), clock.work(1000)()
    assert made.bill.seconds() == 1111
    made.bill.open()
    curves(), weights(), clock.work(2000)()
    assert made.bill.seconds() == 2111  # as if it had been made alone
    made.bill.open()
    moments(), made.once("order", clock.work(10_000, [moments]))
    assert made.bill.seconds() == 10_011
    made.bill.open()
    clock.work(5)()
    assert made.bill.seconds() == 5


def test_values_are_told_apart_by_all_that_their_keys_name():
    made = Cache()
    assert made.once(("curves", 4), lambda: "few") == "few"
    assert made.once(("curves", 8), lambda: "many") == "many"
    assert made.once(("curves", 4), lambda: "again") == "few"


def test_what_could_not_be_made_is_tried_again():
    made, tries = Cache(), []

    def fail():
        tries.append(1)
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            made.once("broken", fail)
    assert len(tries) == 2
    assert made.once("broken", lambda: 3) == 3


def test_what_is_apart_is_known_there_alone_and_can_be_let_go():
    made = Cache()
    full, thumbnail = made.apart("full"), made.apart("thumbnail")
    assert [cache.once("moments", lambda: 1) for cache in (made, full)] == [1, 1]
    assert thumbnail.once("moments", lambda: 2) == 2
    assert thumbnail.apart("smaller").once("moments", lambda: 3) == 3
    assert thumbnail.apart("smaller").shared.once("moments", lambda: 4) == 1
    thumbnail.forget()
    assert thumbnail.once("moments", lambda: 5) == 5
    assert thumbnail.apart("smaller").once("moments", lambda: 6) == 6
    assert [cache.once("moments", lambda: 7) for cache in (made, full)] == [1, 1]


def test_what_is_let_go_stays_on_the_bill(monkeypatch):
    made, clock = Cache(), Clock()
    monkeypatch.setattr(cache, "time", clock)
    made.bill.open()
    apart = made.apart("full")
    apart.once("moments", clock.work(10))
    apart.forget()
    assert made.bill.seconds() == 10
