from __future__ import annotations

import json
import math

import pytest

from pytest_mlbench.checks import limits
from pytest_mlbench.record import Metric
from pytest_mlbench.spec import Limit


def bound(op: str, value: float, text: str, unit: str = "") -> Limit:
    return Limit(op, value, unit, text)


MS5 = bound("<=", 5e6, "<= 5 ms", "ms")


def only(limit: Limit, metric: Metric):
    (result,) = limits.check({metric.name: (limit,)}, [metric])
    return result


@pytest.mark.parametrize(
    ("metric", "limit", "outcome", "message"),
    [
        (
            Metric("latency.p99", 6.2e6, "ns", "lower"),
            MS5,
            "fail",
            "latency.p99 is 6.20 ms, limit <= 5 ms (24 % over)",
        ),
        (Metric("latency.p99", 4.2e6, "ns", "lower"), MS5, "pass", "latency.p99 is 4.20 ms, limit <= 5 ms"),
        (Metric("latency.p99", 5e6, "ns", "lower"), MS5, "pass", "latency.p99 is 5.00 ms, limit <= 5 ms"),
        (
            Metric("latency.p99", 5e6, "ns", "lower"),
            bound("<", 5e6, "< 5 ms"),
            "fail",
            "latency.p99 is 5.00 ms, limit < 5 ms (the bound itself is excluded)",
        ),
        (
            Metric("latency.p99", 5_000_100, "ns", "lower"),
            MS5,
            "fail",
            "latency.p99 is 5.0001 ms, limit <= 5 ms (0.002 % over)",
        ),
        (
            Metric("accuracy.top1", 0.94, "", "higher"),
            bound(">=", 0.97, ">= 0.97"),
            "fail",
            "accuracy.top1 is 0.94, limit >= 0.97 (3.1 % under)",
        ),
        (
            Metric("model.size", 3e6, "bytes", "lower"),
            bound("<", 1e6, "< 1 MB"),
            "fail",
            "model.size is 3.00 MB, limit < 1 MB (200 % over)",
        ),
        (
            Metric("throughput", 1.2e6, "1/s", "higher"),
            bound(">=", 1e6, ">= 1 M/s"),
            "pass",
            "throughput is 1.20 M/s, limit >= 1 M/s",
        ),
        (
            Metric("memory.peak", 10, "bytes", "lower"),
            bound("<=", 0, "<= 0 B"),
            "fail",
            "memory.peak is 10 B, limit <= 0 B",
        ),
        (
            Metric("latency.p99", math.nan, "ns", "lower"),
            MS5,
            "fail",
            "latency.p99 is nan ns, limit <= 5 ms",
        ),
        (
            Metric("accuracy.top1", 1.0, "", "higher"),
            bound("==", 1.0, "== 1"),
            "pass",
            "accuracy.top1 is 1, limit == 1",
        ),
    ],
)
def test_a_bound_is_told_in_plain_units(metric, limit, outcome, message) -> None:
    result = only(limit, metric)
    assert (result.name, result.outcome, result.message) == (metric.name, outcome, message)
    json.dumps(result.facts, allow_nan=False)


def test_a_metric_that_was_not_measured_decides_nothing() -> None:
    reason = "the p99 upper bound needs 662 one-call readings and there are 64: raise the scenario's min_samples"
    result = only(MS5, Metric("latency.p99.upper99", None, "ns", "lower", reason=reason))
    assert result.outcome == "insufficient"
    assert reason in result.message
    assert "limit <= 5 ms is undecided" in result.message
    assert result.facts["found"] is None


def test_a_metric_without_value_and_reason_still_says_something() -> None:
    result = only(MS5, Metric("vendor.heat", None, "K", "lower"))
    assert result.outcome == "insufficient"
    assert "gave no reason" in result.message


def test_a_misspelt_limit_fails_and_lists_what_there_is() -> None:
    metrics = [Metric("latency.p99", 1, "ns", "lower"), Metric("throughput", 1, "1/s", "higher")]
    (result,) = limits.check({"latency.p9": (MS5,)}, metrics)
    assert result.outcome == "fail"
    assert "no metric 'latency.p9'" in result.message
    assert "did you mean latency.p99?" in result.message
    assert "latency.p99, throughput" in result.message


def test_without_any_metric_a_limit_fails() -> None:
    (result,) = limits.check({"latency.p99": (MS5,)}, [])
    assert result.outcome == "fail"
    assert "(there are: none)" in result.message


def test_each_bound_has_its_own_result_in_order() -> None:
    metrics = [Metric("a", 5, "", "none"), Metric("b", 1, "", "none")]
    found = limits.check({"b": (bound(">", 0, "> 0"),), "a": (bound(">=", 4, ">= 4"), bound("<=", 4, "<= 4"))}, metrics)
    assert [(r.name, r.outcome) for r in found] == [("b", "pass"), ("a", "pass"), ("a", "fail")]
    assert limits.check({}, metrics) == []


def test_the_number_shown_never_reads_like_the_bound_it_breaks() -> None:
    for value in (5e6 + 1, 5e6 * (1 + 1e-9), math.nextafter(5e6, math.inf)):
        result = only(MS5, Metric("latency.p99", value, "ns", "lower"))
        assert result.outcome == "fail"
        assert "is 5.00 ms" not in result.message
        assert not result.message.startswith("latency.p99 is 5 ms")
