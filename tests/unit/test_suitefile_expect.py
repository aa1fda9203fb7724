"""The `expect` table: limits by metric name, accuracy, equivalence, placement, compliance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.spec import Limit, MaxDrop, Tolerance
from pytest_mlbench.suitefile import Known, suite_from_tables

KNOWN = Known(
    frameworks={"onnxruntime": Framework("onnxruntime", "onnx", "a", "onnxruntime", "")},
    devices=["cpu"],
    scenarios=["single_stream"],
    metrics={
        "latency.p50": "ns",
        "latency.p99": "ns",
        "latency.p99.upper99": "ns",
        "throughput": "1/s",
        "memory.peak": "bytes",
        "model.size": "bytes",
        "cost_usd.per_inference": "usd",
        "noise_db": "",
        "odd": None,
    },
)


def read(expect, known=KNOWN, **keys):
    benchmark = {
        "name": "b",
        "model": ["m"],
        "framework": ["onnxruntime"],
        "precision": ["fp32", "int8"],
        "dataset": "d",
        "reference": {"precision": "fp32"},
        "expect": expect,
        **keys,
    }
    tables = {
        "mlbench": 1,
        "model": [{"name": "m", "files": {"onnx": {"fp32": "m.onnx", "int8": "i.onnx"}}}],
        "dataset": {"d": {"file": "d.npz"}, "g": {"generate": "normal", "count": 4}},
        "benchmark": [benchmark],
    }
    return suite_from_tables(tables, Path("/s/bench_x.toml"), known).benchmarks[0].expect


def refusal(expect, known=KNOWN, **keys):
    with pytest.raises(SuiteError) as caught:
        read(expect, known, **keys)
    prefix = "/s/bench_x.toml: benchmark[0].expect"
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


@pytest.mark.parametrize(
    ("expect", "name", "limits"),
    [
        ({"latency": {"p99": "<= 5 ms"}}, "latency.p99", [("<=", 5e6)]),
        ({"latency": {"p50": ["<= 1 ms", ">= 1 us"]}}, "latency.p50", [("<=", 1e6), (">=", 1e3)]),
        ({"latency": {"p99": {"upper99": "<= 5 ms"}}}, "latency.p99.upper99", [("<=", 5e6)]),
        ({"latency": {"p99.upper99": "<= 5 ms"}}, "latency.p99.upper99", [("<=", 5e6)]),
        ({"throughput": ">= 100 /s"}, "throughput", [(">=", 100.0)]),
        ({"memory": {"peak": "<= 200 MiB"}}, "memory.peak", [("<=", 200 * 2.0**20)]),
        ({"model": {"size": "<= 40 MB"}}, "model.size", [("<=", 4e7)]),
        ({"cost_usd": {"per_inference": "<= 1e-6 usd"}}, "cost_usd.per_inference", [("<=", 1e-6)]),
        ({"accuracy": {"top1": ">= 97 %"}}, "accuracy.top1", [(">=", 0.97)]),
        ({"accuracy": {"top5": ">= 0.99"}}, "accuracy.top5", [(">=", 0.99)]),
        ({"odd": "== 3"}, "odd", [("==", 3.0)]),
    ],
)
def test_tables_are_joined_into_the_name_of_a_metric(expect, name, limits):
    found = read(expect).limits
    assert list(found) == [name]
    assert [(limit.op, limit.value) for limit in found[name]] == limits


def test_everything_at_once():
    expect = read(
        {
            "latency": {"p99": "<= 5 ms", "p50": "<= 4 ms"},
            "throughput": ">= 9 /s",
            "accuracy": {"top1": ">= 0.9", "max_drop": {"from": "fp32", "points": 1.5}},
            "equivalence": {
                "*": {"rtol": 1e-3, "atol": 0},
                "int8": {
                    "max_abs": "<= 0.5",
                    "sqnr_db": ">= 20",
                    "cosine": ">= 0.99",
                    "top1_agreement": ">= 98 %",
                },
                "fp32": {"bit_exact": True},
            },
            "placement": {"cpu": ">= 100 %", "int8": ">= 0.9"},
            "compliance": ["repeat_sample", "batch_invariance"],
        }
    )
    assert list(expect.limits) == ["latency.p99", "latency.p50", "throughput", "accuracy.top1"]
    assert expect.max_drop == MaxDrop("fp32", 1.5)
    assert expect.equivalence == {
        "*": Tolerance(rtol=1e-3, atol=0.0),
        "int8": Tolerance(
            max_abs=Limit("<=", 0.5, "", "<= 0.5"),
            sqnr_db=Limit(">=", 20.0, "", ">= 20"),
            cosine=Limit(">=", 0.99, "", ">= 0.99"),
            top1_agreement=Limit(">=", 0.98, "%", ">= 98 %"),
        ),
        "fp32": Tolerance(bit_exact=True),
    }
    assert {name: limit.value for name, limit in expect.placement.items()} == {"cpu": 1.0, "int8": 0.9}
    assert expect.compliance == ("repeat_sample", "batch_invariance")


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        (
            {"latency": {"p98": "<= 1 ms"}},
            '.latency.p98: unknown metric "latency.p98"; did you mean "latency.p99"?',
        ),
        (
            {"latancy": {"p99": "<= 1 ms"}},
            '.latancy.p99: unknown metric "latancy.p99"; did you mean "latency.p99"?',
        ),
        ({"latency": "<= 1 ms"}, '.latency: unknown metric "latency"; did you mean'),
        (
            {"throughput": {"min": ">= 1 /s"}},
            '.throughput.min: unknown key: the metric "throughput" takes a limit',
        ),
        (
            {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "200 ns"}}},
            '.latency.p50.max_regression: unknown key: the metric "latency.p50" takes a limit',
        ),
        ({"equivalance": {"int8": {"rtol": 1}}}, 'did you mean "equivalence" instead of "equivalance"?'),
        ({"acuracy": {"top1": ">= 0.9"}}, 'did you mean "accuracy.top1"?'),
        ({"latency": {"p99": "<= 5 MB"}}, '.latency.p99: "<= 5 MB" is a size, but this metric is a time'),
        ({"latency": {"p99": 5}}, ".latency.p99: expected a limit, found 5 (a whole number)"),
        ({"latency": {"p99": ["<= 5 ms", 5]}}, ".latency.p99[1]: expected a limit, found 5"),
        ({"odd": "<= 3 ms"}, ".odd: "),
        ({"noise_db": ">= 20 %"}, '.noise_db: ">= 20 %": unknown unit "%"'),
        ({"accuracy": {"top1": ">= 97"}}, '.accuracy.top1: ">= 97" is outside the values'),
        ({"accuracy": {"top2": ">= 0.9"}}, '.accuracy.top2: unknown metric "accuracy.top2"; did you mean'),
        ({"accuracy": ">= 0.9"}, ".accuracy: expected a table"),
        ({"accuracy": {"max_drop": {"from": "fp32"}}}, '.accuracy.max_drop: the key "points" is missing'),
        ({"accuracy": {"max_drop": {"points": 1}}}, '.accuracy.max_drop: the key "from" is missing'),
        (
            {"accuracy": {"max_drop": {"from": "fp99", "points": 1}}},
            ".accuracy.max_drop.from: unknown precision",
        ),
        (
            {"accuracy": {"max_drop": {"from": "fp16", "points": 1}}},
            '.accuracy.max_drop.from: unknown precision of this benchmark "fp16"',
        ),
        (
            {"accuracy": {"max_drop": {"from": "fp32", "points": -1}}},
            ".accuracy.max_drop.points: must be at least 0",
        ),
        ({"equivalence": {"fp99": {"rtol": 1}}}, '.equivalence.fp99: unknown precision "fp99"'),
        (
            {"equivalence": {"fp16": {"rtol": 1}}},
            '.equivalence.fp16: unknown precision of this benchmark "fp16"',
        ),
        ({"equivalence": {"int8": {}}}, ".equivalence.int8: no rule is set, so nothing would be checked"),
        ({"equivalence": {"int8": {"bit_exact": False}}}, ".equivalence.int8: no rule is set"),
        ({"equivalence": {"int8": {"bit_exact": 1}}}, ".equivalence.int8.bit_exact: expected true or false"),
        (
            {"equivalence": {"int8": {"rtoll": 1}}},
            '.equivalence.int8.rtoll: unknown key; did you mean "rtol"?',
        ),
        ({"equivalence": {"int8": {"rtol": "1e-3"}}}, ".equivalence.int8.rtol: expected a number"),
        ({"equivalence": {"int8": {"atol": -1}}}, ".equivalence.int8.atol: must be at least 0"),
        (
            {"equivalence": {"int8": {"sqnr_db": "<= 20"}}},
            '.sqnr_db: "<= 20" bounds the wrong side; use one of >=',
        ),
        (
            {"equivalence": {"int8": {"max_abs": ">= 1"}}},
            '.max_abs: ">= 1" bounds the wrong side; use one of <=',
        ),
        ({"equivalence": {"int8": {"max_abs": "<= -1"}}}, ".max_abs: "),
        ({"equivalence": {"int8": {"cosine": ">= 2"}}}, '.cosine: ">= 2" is outside the values'),
        ({"equivalence": {"int8": {"top1_agreement": ">= 98"}}}, 'for percent write ">= 98 %"'),
        ({"placement": {"cpu": ">= 90"}}, ".placement.cpu: "),
        ({"placement": {"a b": ">= 1"}}, '.placement."a b": '),
        ({"placement": ">= 1"}, ".placement: expected a table"),
        ({"compliance": ["repeat"]}, '.compliance[0]: unknown check "repeat"; did you mean "repeat_sample"?'),
        ({"compliance": ["repeat_sample"] * 2}, '.compliance[1]: check "repeat_sample" is given twice'),
        ({"compliance": "repeat_sample"}, ".compliance: expected a list of strings"),
        ([], ": expected a table, found a list of 0"),
    ],
)
def test_what_can_never_hold_is_refused(expect, message):
    assert message in refusal(expect)


@pytest.mark.parametrize(
    ("expect", "named"),
    [
        ({"accuracy": {"top1": ">= 0.9"}}, "accuracy.top1"),
        ({"accuracy": {"max_drop": {"from": "fp32", "points": 1}}}, "accuracy.max_drop"),
    ],
)
@pytest.mark.parametrize(("dataset", "why"), [("g", "which is generated"), (None, '"dataset" is not set')])
def test_accuracy_needs_labels(expect, named, dataset, why):
    message = refusal(expect, dataset=dataset)
    assert message.startswith(f".accuracy: {named} needs labels from a stored data set")
    assert why in message


def test_equivalence_needs_a_reference():
    message = refusal({"equivalence": {"*": {"rtol": 1e-3}}}, reference=None)
    assert '.equivalence: compares with "reference", which is not set' in message


def test_speed_needs_no_data_set():
    assert "latency.p99" in read({"latency": {"p99": "<= 5 ms"}}, dataset=None, reference=None).limits


class TestFurtherMetrics:
    """A benchmark's own metric functions, and vendors', have names that only running them tells."""

    OWN = pytest.mark.parametrize(
        ("known", "keys"), [(KNOWN, {"metrics": ["mine:f"]}), (replace(KNOWN, vendor_metrics=True), {})]
    )

    @OWN
    def test_a_new_name_takes_a_plain_number(self, known, keys):
        limits = read({"words": {"error": {"rate": "<= 0.1"}}, "bleu": ">= 30"}, known, **keys).limits
        assert {name: found[0].value for name, found in limits.items()} == {
            "words.error.rate": 0.1,
            "bleu": 30.0,
        }

    @OWN
    def test_a_new_name_takes_no_unit_since_its_own_is_not_known(self, known, keys):
        assert "the unit of this metric is not known" in refusal({"latency": {"p98": "<= 1 ms"}}, known, **keys)

    @OWN
    def test_a_key_below_a_known_metric_is_still_refused(self, known, keys):
        message = refusal({"latency": {"p50": {"max_regression": "<= 3"}}}, known, **keys)
        assert ".latency.p50.max_regression: unknown key" in message

    @OWN
    def test_a_known_metric_keeps_its_unit(self, known, keys):
        assert "has no unit" in refusal({"latency": {"p99": "<= 5"}}, known, **keys)
