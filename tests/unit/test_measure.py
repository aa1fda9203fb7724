"""What the host asks of an agent, and what it makes of the answers."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_mlbench import measure
from pytest_mlbench.measure import AgentTarget, memory_of


class FakeAgent:
    """Answers blocks whose calls take 1000 ns, 900 ns when the sample is repeated."""

    def __init__(self):
        self.asked = []

    def call(self, stage, verb, deadline_s, **given):
        self.asked.append((stage, verb, deadline_s, given))
        if verb == "warm_up":
            return {"samples": given["min_samples"], "duration_ns": 5, "clock_ns": 40.0, "call_ns": 9.0, "calls": 3}
        if verb == "block":
            ns = (900 if given["repeat_sample"] else 1000) * given["calls"]
            samples = np.array([ns + 5, ns], dtype=np.int64).tobytes()
            used = {"user_ns": 1}
            begin, end = 10, 20
            return {
                "samples": samples,
                "begin_ns": begin,
                "end_ns": end,
                "next": given["first"] + 2,
                "used": used,
                "gc_was_enabled": True,
            }
        if verb == "timed_outputs":
            return {"ids": [1, 4], "outputs": {"y": {}}}
        return {"y": {}}

    def fetch_arrays(self, described, deadline_s):
        return {name: np.zeros(2) for name in described}


@pytest.fixture
def target():
    return AgentTarget(FakeAgent(), 7.0)


def test_blocks_go_on_where_the_last_one_ended(target):
    found = [target.block(3, max_samples=10) for _ in range(2)]
    assert [asked[3]["first"] for asked in target.agent.asked] == [0, 2]
    assert found[0].sample_ns.tolist() == [3005, 3000]
    assert found[0].sample_ns.dtype == np.int64
    assert {asked[:3] for asked in target.agent.asked} == {("measure", "block", 7.0)}


def test_a_block_asks_for_no_more_samples_than_it_may_take(target):
    target.block(1, max_samples=2, min_samples=5)
    target.block(1, max_samples=1 << 40)
    assert [asked[3]["min_samples"] for asked in target.agent.asked] == [2, 5]
    assert target.agent.asked[1][3]["max_samples"] == 1 << 31  # execnet sends no larger int


def test_the_warm_up(target):
    found = target.warm_up(0.5, 6)
    assert (found.samples, found.calls, found.clock_ns) == (6, 3, 40.0)


def test_compliance_data_are_taken_where_wanted(target):
    found = measure.compliance(target.agent, target, (), 3)
    assert target.agent.asked == []
    assert found == measure.ComplianceData()
    found = measure.compliance(target.agent, target, ("timed_outputs", "repeat_sample"), 3)
    assert found.timed_ids == (1, 4)
    assert set(found.timed) == {"y"}
    assert found.repeated_ns == (900.0,) * measure.REPEAT_PAIRS
    assert found.varied_ns == (1000.0,) * measure.REPEAT_PAIRS


def test_repeated_and_varied_blocks_alternate_so_that_drift_falls_on_both(target):
    measure.compliance(target.agent, target, ("repeat_sample",), 1)
    order = "".join("R" if asked[3]["repeat_sample"] else "V" for asked in target.agent.asked)
    assert order.startswith("VRRVVRRV")


def memory(baseline=100, before_peak=100, peak=300, reset=True, generated=0, loaded=200):
    before = {"rss_bytes": baseline, "peak_bytes": before_peak, "reset": reset}
    return memory_of(before, {"memory": {"peak_bytes": peak}, "generated_bytes": generated}, {"rss_bytes": loaded})


def test_memory_is_from_the_baseline_to_the_peak_without_generated_samples():
    assert memory() == {"baseline_bytes": 100, "loaded_bytes": 200, "peak_bytes": 300}
    assert memory(generated=50)["peak_bytes"] == 250


def test_a_peak_that_was_not_reset_counts_only_when_it_rose():
    assert memory(before_peak=300, reset=False) == {}
    assert memory(before_peak=299, reset=False)["peak_bytes"] == 300
    assert memory(before_peak=300, reset=True)["peak_bytes"] == 300


def test_memory_that_the_platform_does_not_tell_is_empty():
    counters = {"memory": {}, "generated_bytes": 0}
    assert memory_of({"rss_bytes": 1, "peak_bytes": 1, "reset": True}, counters, {}) == {}
    assert memory_of({"peak_bytes": 1, "reset": False}, {"memory": {"peak_bytes": 5}, "generated_bytes": 0}, {}) == {}
