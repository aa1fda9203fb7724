"""The timed region. Nothing but the call under test stands between two readings of the clock."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable
from itertools import repeat
from statistics import median
from time import perf_counter_ns
from typing import Any

clock = perf_counter_ns

# A sample lasts at least this many clock readings, so that the clock's own cost stays at 0.1 % of it.
CLOCK_READINGS_PER_SAMPLE = 1000


def time_call(call: Callable[[], Any]) -> int:
    """Return the nanoseconds of one call, the cost of one clock reading included."""
    begin = clock()
    call()
    return clock() - begin


def time_calls(call: Callable[[], Any], calls: int) -> int:
    """Return the nanoseconds of `calls` calls in a row, the cost of one clock reading included."""
    loop = repeat(None, calls)
    begin = clock()
    for _ in loop:
        call()
    return clock() - begin


def clock_cost_ns() -> float:
    """Return the cost of one reading of the clock: the median over 51 groups of 200 readings."""
    costs = []
    for _ in range(51):
        begin = clock()
        for _ in repeat(None, 200):
            clock()
        costs.append((clock() - begin) / 201)
    return float(median(costs))


def calls_per_sample(call_ns: float, clock_ns: float) -> int:
    """Return how many calls make one sample long enough for the clock's cost not to matter."""
    wanted_ns = CLOCK_READINGS_PER_SAMPLE * clock_ns
    return max(1, int(-(-wanted_ns // max(call_ns, 1.0))))


def calibrated(take: Callable[[int], int], tick_ns: int, most_ns: float) -> tuple[int, float]:
    """Return how many calls make a sample of a target's own clock, and the nanoseconds of one call by it.

    `take(calls)` makes so many and returns their time. A sample lasts at least CLOCK_READINGS_PER_SAMPLE ticks,
    or as many calls as take `most_ns` of our own time: what one call of an emulated target costs here, its clock
    does not tell.
    """
    calls = 1
    while True:
        begin = clock()
        taken = take(calls)
        ours = max(clock() - begin, 1)
        wanted = CLOCK_READINGS_PER_SAMPLE * tick_ns
        if taken >= wanted or 2 * ours > most_ns:
            return calls, taken / calls
        # At most tenfold a step: a reading of few ticks says little of how many calls fill a thousand.
        by_clock = -(-wanted * calls // max(taken, 1))
        calls = max(calls + 1, min(int(by_clock * 1.1) + 1, calls * 10, int(calls * most_ns / ours)))


def run_block(
    sample: Callable[[int], tuple[Callable[[], Any], Callable[[], Any]]],
    first: int,
    calls: int,
    min_ns: int,
    min_samples: int,
    max_samples: int,
    own_clock: Callable[[int], int] | None = None,
) -> dict[str, Any]:
    """Take samples until the block is long enough, by this process's clock.

    `sample(i)` binds input i and returns (the call to time, what to do after the clock has stopped). A target with a
    clock of its own makes and times the calls itself: `own_clock(calls)`.
    Garbage collection is done before the block and off inside it; what happened is returned.
    """
    readings = array("q")
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        end = begin
        index = first
        while (end - begin < min_ns or len(readings) < min_samples) and len(readings) < max_samples:
            call, after = sample(index)
            if own_clock is not None:
                readings.append(own_clock(calls))
            else:
                readings.append(time_call(call) if calls == 1 else time_calls(call, calls))
            after()
            index += 1
            end = clock()
    finally:
        if was_enabled:
            gc.enable()
    return {
        "samples": readings.tobytes(),
        "begin_ns": begin,
        "end_ns": end,
        "calls": calls,
        "next": index,
        "gc_was_enabled": was_enabled,
    }
