"""How scenarios arrange calls in time, on a target whose time is made up."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from pytest_mlbench.scenarios import blocks
from pytest_mlbench.scenarios.api import BLOCK_NS, Block, WarmUp
from pytest_mlbench.scenarios.offline import SCENARIO as OFFLINE
from pytest_mlbench.scenarios.single_stream import SCENARIO as SINGLE
from pytest_mlbench.spec import ScenarioSpec


@dataclass
class FakeTarget:
    """A model whose calls take `call_ns`; the block is filled as the agent would fill it."""

    call_ns: int = 1_000_000
    calls: int = 1
    asked: list[dict] = field(default_factory=list)
    warm: tuple | None = None
    now: int = 0

    def warm_up(self, min_s, min_samples):
        self.warm = (min_s, min_samples)
        return WarmUp(min_samples, 10, 40.0, self.call_ns, self.calls)

    def block(self, calls, *, max_samples, min_ns=BLOCK_NS, min_samples=5):
        self.asked.append({"calls": calls, "max_samples": max_samples, "min_ns": min_ns})
        each = self.call_ns * calls
        count = min(max_samples, max(min(min_samples, max_samples), -(-min_ns // each)))
        begin, self.now = self.now, self.now + count * each
        return Block(np.full(count, each), begin, self.now, {"user_ns": 3}, True)


def run(scenario, target, batch=1, **bounds):
    told = []
    passes = scenario.run(target, ScenarioSpec(scenario.name, **bounds), batch, told.append)
    return passes, told


@pytest.mark.parametrize("scenario", [SINGLE, OFFLINE], ids=lambda one: one.name)
class TestBounds:
    def test_both_minima_are_reached(self, scenario):
        passes, _ = run(scenario, FakeTarget(), min_duration_s=0.3, min_samples=20)
        assert passes.facts["main"]["duration_ns"] >= 300_000_000
        assert len(passes.samples.sample_ns) >= 300
        passes, _ = run(scenario, FakeTarget(), min_duration_s=0.01, min_samples=200)
        assert len(passes.samples.sample_ns) >= 200

    def test_not_much_more_than_the_minima_is_taken(self, scenario):
        passes, _ = run(scenario, FakeTarget(), min_duration_s=1.0, min_samples=5)
        assert passes.facts["main"]["duration_ns"] < 1_000_000_000 + BLOCK_NS
        passes, _ = run(scenario, FakeTarget(), min_duration_s=0.0, min_samples=8)
        assert len(passes.samples.sample_ns) < 8 + 5

    def test_the_longest_duration_ends_it_without_the_samples(self, scenario):
        passes, _ = run(scenario, FakeTarget(10_000_000), min_duration_s=0.1, max_duration_s=0.2, min_samples=1000)
        assert 0.2e9 <= passes.facts["main"]["duration_ns"] < 0.2e9 + 5 * 10_000_000 + BLOCK_NS
        assert len(passes.samples.sample_ns) < 1000

    def test_the_most_samples_end_it_without_the_duration(self, scenario):
        target = FakeTarget()
        passes, _ = run(scenario, target, min_duration_s=10.0, min_samples=3, max_samples=7)
        assert len(passes.samples.sample_ns) == 7
        target = FakeTarget(20_000_000)  # blocks of five
        passes, _ = run(scenario, target, min_duration_s=10.0, min_samples=3, max_samples=7)
        assert [asked["max_samples"] for asked in target.asked] == [7, 2]
        assert len(passes.samples.sample_ns) == 7

    def test_the_warm_up_is_as_declared_and_recorded(self, scenario):
        target = FakeTarget()
        passes, _ = run(scenario, target, warmup_s=0.4, warmup_samples=9, min_duration_s=0.01)
        assert target.warm == (0.4, 9)
        assert passes.facts["warm_up"]["samples"] == 9
        assert passes.samples.clock_ns == 40.0

    def test_progress_grows_to_the_whole(self, scenario):
        for calls in (1, 40):
            _, told = run(scenario, FakeTarget(1_000_000 // calls, calls), min_duration_s=0.5)
            assert told == sorted(told)
            assert 0 < told[0] < 0.5
            assert told[-1] == pytest.approx(1.0)

    def test_blocks_are_shorter_in_a_short_run(self, scenario):
        target = FakeTarget()
        run(scenario, target, min_duration_s=0.05, min_samples=1)
        assert {asked["min_ns"] for asked in target.asked} == {10_000_000}
        target = FakeTarget()
        run(scenario, target, min_duration_s=5.0, min_samples=1)
        assert {asked["min_ns"] for asked in target.asked} == {BLOCK_NS}

    def test_the_batch_is_recorded(self, scenario):
        assert run(scenario, FakeTarget(), batch=8, min_duration_s=0.01)[0].samples.batch == 8


def test_a_slow_model_has_one_pass_whose_readings_give_the_tail():
    passes, _ = run(SINGLE, FakeTarget(), min_duration_s=0.1)
    np.testing.assert_array_equal(passes.samples.single_ns, passes.samples.sample_ns)
    assert "single" not in passes.facts


def test_a_fast_model_has_a_pass_of_single_calls_for_the_tail():
    target = FakeTarget(call_ns=2_000, calls=20)
    passes, _ = run(SINGLE, target, min_duration_s=1.0, min_samples=500)
    samples = passes.samples
    assert samples.calls == 20
    assert set(samples.sample_ns) == {40_000}
    assert set(samples.single_ns) == {2_000}
    assert len(samples.single_ns) >= 500
    assert passes.facts["main"]["duration_ns"] == pytest.approx(0.75e9, rel=0.11)
    assert passes.facts["single"]["duration_ns"] == pytest.approx(0.25e9, rel=0.31)


def test_offline_has_no_pass_of_single_calls():
    passes, _ = run(OFFLINE, FakeTarget(call_ns=2_000, calls=20), min_duration_s=0.1, min_samples=500)
    assert passes.samples.single_ns.size == 0
    assert "single" not in passes.facts


def block(samples, begin=0, end=10, gc=True, **used):
    return Block(np.array(samples), begin, end, used, gc)


def test_blocks_are_joined_with_their_starts():
    samples, starts = blocks.joined([block([1, 2]), block([3]), block([4, 5, 6])])
    assert samples.tolist() == [1, 2, 3, 4, 5, 6]
    assert starts.tolist() == [0, 2, 3]


def test_what_happened_is_the_sum_over_the_blocks():
    taken = [block([1, 2], 0, 10, user_ns=3, faults=1), block([3], 20, 35, user_ns=4, faults=0)]
    assert blocks.facts(taken) == {
        "blocks": 2,
        "samples": 3,
        "duration_ns": 25,
        "timed_ns": 6,
        "bounds_ns": [[0, 10], [20, 35]],
        "gc": {"on_in_block": False, "on_outside": True},
        "used": {"user_ns": 7, "faults": 1},
    }
    assert blocks.facts([block([1]), block([1], gc=False)])["gc"]["on_outside"] is False
