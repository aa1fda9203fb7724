"""The timed region: how many calls, how many readings, and nothing else in between."""

from __future__ import annotations

import gc
from array import array

import pytest

from pytest_mlbench.agent import timing


class Tape:
    """Writes down clock readings and calls in the order they happen; the clock is a counter."""

    def __init__(self, step_ns: int = 10) -> None:
        self.events: list[str] = []
        self.now = 0
        self.step_ns = step_ns

    def clock(self) -> int:
        self.events.append("clock")
        self.now += self.step_ns
        return self.now

    def call(self, ns: int = 0):
        def called() -> None:
            self.events.append("call")
            self.now += ns

        return called

    def note(self, word: str):
        return lambda: self.events.append(word)


@pytest.fixture
def tape(monkeypatch):
    made = Tape()
    monkeypatch.setattr(timing, "clock", made.clock)
    return made


def readings(block):
    return array("q", block["samples"]).tolist()


def block(tape, *, ns=1000, calls=1, min_ns=0, min_samples=1, max_samples=100):
    return timing.run_block(lambda _: (tape.call(ns), tape.note("after")), 0, calls, min_ns, min_samples, max_samples)


# --- one reading --------------------------------------------------------------------------------------------


def test_nothing_but_the_call_stands_between_two_readings_of_the_clock(tape):
    assert timing.time_call(tape.call(500)) == 510  # one reading of the clock is included
    assert tape.events == ["clock", "call", "clock"]


@pytest.mark.parametrize("calls", [1, 2, 57])
def test_time_calls_makes_exactly_as_many(tape, calls):
    assert timing.time_calls(tape.call(100), calls) == 100 * calls + 10
    assert tape.events == ["clock", *["call"] * calls, "clock"]


def test_the_clock_is_the_monotonic_one_in_nanoseconds():
    import time

    assert timing.clock is time.perf_counter_ns


# --- calibration --------------------------------------------------------------------------------------------


def test_the_clock_cost_is_that_of_one_reading(tape):
    assert timing.clock_cost_ns() == pytest.approx(10)
    assert tape.events == ["clock"] * (51 * 202)


def test_the_clock_cost_is_not_moved_by_an_interruption(monkeypatch):
    slow = Tape()
    count = 0

    def clock() -> int:
        nonlocal count
        count += 1
        slow.now += 5_000_000 if count % 900 == 0 else 0
        return slow.clock()

    monkeypatch.setattr(timing, "clock", clock)
    assert timing.clock_cost_ns() == pytest.approx(10)


@pytest.mark.parametrize(
    ("call_ns", "clock_ns", "calls"),
    [(100, 40, 400), (2100, 40, 20), (39_999, 40, 2), (40_000, 40, 1), (1e9, 40, 1), (0, 40, 40_000), (-5, 40, 40_000)],
)
def test_a_sample_is_a_thousand_clock_readings_long(call_ns, clock_ns, calls):
    assert timing.calls_per_sample(call_ns, clock_ns) == calls
    assert calls * max(call_ns, 1) >= 1000 * clock_ns


# --- blocks -------------------------------------------------------------------------------------------------


def test_a_block_goes_on_until_it_is_long_enough(tape):
    found = block(tape, ns=1000, min_ns=10_000, min_samples=2)
    assert found["end_ns"] - found["begin_ns"] >= 10_000
    assert len(readings(found)) == 10  # 1000 of the call and 30 of three readings of the clock each


def test_a_block_goes_on_until_it_has_enough_samples(tape):
    assert len(readings(block(tape, ns=1000, min_ns=1500, min_samples=7))) == 7


def test_a_block_stops_at_the_most_samples_however_short(tape):
    assert len(readings(block(tape, ns=1, min_ns=10**9, min_samples=3, max_samples=3))) == 3


def test_readings_are_of_the_calls_alone(tape):
    def sample(number):
        tape.events.append(f"bind {number}")
        return tape.call(100 * (number + 1)), tape.note(f"after {number}")

    found = timing.run_block(sample, 5, 1, 0, 2, 2)
    assert readings(found) == [610, 710]
    assert tape.events[1:-1] == [
        "bind 5", "clock", "call", "clock", "after 5", "clock", "bind 6", "clock", "call", "clock", "after 6",
    ]  # fmt: skip
    assert found["next"] == 7


def test_several_calls_make_one_sample(tape):
    found = block(tape, ns=100, calls=4, min_samples=3, max_samples=3)
    assert readings(found) == [410, 410, 410]
    assert found["calls"] == 4
    assert tape.events.count("call") == 12
    assert tape.events.count("after") == 3


def test_a_block_of_no_samples_is_empty(tape):
    assert readings(block(tape, max_samples=0)) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_inside_and_as_before_afterwards(enabled):
    seen = []
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        call = (lambda: seen.append(gc.isenabled()), lambda: None)
        found = timing.run_block(lambda _: call, 0, 1, 0, 3, 3)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()
    assert seen == [False] * 3
    assert found["gc_was_enabled"] is enabled


def test_garbage_is_collected_before_the_block():
    class Cycle:
        pass

    import weakref

    cycle = Cycle()
    cycle.itself = cycle
    gone = weakref.ref(cycle)
    del cycle
    alive = []
    timing.run_block(lambda _: (lambda: alive.append(gone()), lambda: None), 0, 1, 0, 1, 1)
    assert alive == [None]


def test_garbage_collection_comes_back_when_a_call_raises():
    def fail():
        raise RuntimeError("the framework's")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="the framework's"):
        timing.run_block(lambda _: (fail, lambda: None), 0, 1, 0, 1, 1)
    assert gc.isenabled()


# --- a target with a clock of its own -----------------------------------------------------------------------


@pytest.mark.parametrize(("call_ns", "calls"), [(2_000_000, 1), (999_000, 2), (100_000, 10), (2_000, 500), (300, 3334)])
def test_a_sample_lasts_a_thousand_ticks_of_the_targets_clock(tape, call_ns, calls):
    def take(number):
        tape.now += number * call_ns
        return number * call_ns // 1000 * 1000  # whole ticks

    found, one = timing.calibrated(take, 1000, 200e6)
    assert found >= calls
    assert found <= 1.3 * calls + 1
    assert one == pytest.approx(call_ns, rel=0.01)


def test_a_target_whose_clock_runs_slowly_gets_no_longer_than_it_may_take_here(tape):
    def take(number):
        tape.now += number * 30_000_000  # 30 ms here are one tick there
        return number * 1000

    found, _ = timing.calibrated(take, 1000, 200e6)
    assert found * 30_000_000 <= 2 * 200e6


def test_a_clock_that_stands_still_ends_the_calibration(tape):
    def take(number):
        tape.now += number * 1_000_000
        return 0

    found, one = timing.calibrated(take, 1000, 200e6)
    assert found <= 400
    assert one == 0


def test_a_block_of_such_a_target_takes_its_readings_as_they_are(tape):
    bound = []

    def sample(number):
        return (lambda: pytest.fail("this process times nothing")), (lambda: bound.append(number))

    found = timing.run_block(sample, 4, 7, 0, 3, 3, lambda calls: 1000 * calls)
    assert readings(found) == [7000, 7000, 7000]
    assert bound == [4, 5, 6]
    assert found["next"] == 7
