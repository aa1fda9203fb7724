"""The `expect` table: limits by metric name, accuracy, equivalence, placement, compliance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import expand
from pytest_mlbench.registry import Registry
from pytest_mlbench.spec import Limit, MaxDrop, Regression, Tolerance
from pytest_mlbench.suitefile import Known, load_suite, suite_from_tables

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
        "stage.compile": "ns",
        "model.size": "bytes",
        "cost_usd.per_inference": "usd",
        "noise_db": "",
        "odd": None,
    },
)


def suite(expect, known=KNOWN, **keys):
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
    return suite_from_tables(tables, Path("/s/bench_x.toml"), known)


def read(expect, known=KNOWN, **keys):
    return suite(expect, known, **keys).benchmarks[0].expect


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
            {"latency": {"p50": {"spread": "3 %"}}},
            '.latency.p50.spread: unknown key: the metric "latency.p50" takes a limit, for example '
            'latency.p50 = "<= ...", or a table of limit, max_regression, ignore_below',
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
        message = refusal({"latency": {"p50": {"spread": "<= 3"}}}, known, **keys)
        assert ".latency.p50.spread: unknown key" in message

    @OWN
    def test_a_known_metric_keeps_its_unit(self, known, keys):
        assert "has no unit" in refusal({"latency": {"p99": "<= 5"}}, known, **keys)

    @OWN
    def test_a_new_name_takes_a_regression_in_its_own_unit(self, known, keys):
        expect = read({"words": {"rate": {"max_regression": "2.5 %", "ignore_below": "0.5"}}}, known, **keys)
        assert expect.regressions == {"words.rate": Regression(0.025, 0.5)}
        message = refusal({"words": {"rate": {"max_regression": "2 %", "ignore_below": "5 ms"}}}, known, **keys)
        assert '.words.rate.ignore_below: "5 ms": the unit of this metric is not known' in message

    @OWN
    def test_a_new_name_may_be_one_that_falls(self, known, keys):
        message = refusal({"bleu": {"max_regression": "100 %"}}, known, **keys)
        assert '.bleu.max_regression: "100 %" must be below 100 %' in message

    @OWN
    def test_a_part_of_a_new_name_beside_the_keys_of_a_limit_is_refused(self, known, keys):
        message = refusal({"words": {"max_regression": "3 %", "rate": "<= 3"}}, known, **keys)
        assert '.words: mixes the keys of a limit (max_regression) with "rate"' in message


class TestAgainstBase:
    """How much worse than the base revision a metric may be, and whose outputs must not change."""

    @pytest.mark.parametrize(
        ("expect", "name", "regression"),
        [
            ({"latency": {"p50": {"max_regression": "3 %"}}}, "latency.p50", Regression(0.03)),
            ({"latency": {"p50": {"max_regression": " 2.5% "}}}, "latency.p50", Regression(0.025)),
            ({"latency": {"p50": {"max_regression": "0 %"}}}, "latency.p50", Regression(0.0)),
            ({"latency": {"p50": {"max_regression": "250 %"}}}, "latency.p50", Regression(2.5)),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "200 ns"}}},
                "latency.p50",
                Regression(0.03, 200.0),
            ),
            (
                {"latency": {"p99.upper99": {"max_regression": "3 %", "ignore_below": "1.1 us"}}},
                "latency.p99.upper99",
                Regression(0.03, 1100.0),
            ),
            ({"latency.p50": {"max_regression": "3 %"}}, "latency.p50", Regression(0.03)),
            (
                {"throughput": {"max_regression": "99.9 %", "ignore_below": "5 /s"}},
                "throughput",
                Regression(0.999, 5.0),
            ),
            (
                {"memory": {"peak": {"max_regression": "1 %", "ignore_below": "4 KiB"}}},
                "memory.peak",
                Regression(0.01, 4096.0),
            ),
            (
                {"model": {"size": {"max_regression": "0 %", "ignore_below": "0 B"}}},
                "model.size",
                Regression(0.0, 0.0),
            ),
            ({"accuracy": {"top1": {"max_regression": "0.5 points"}}}, "accuracy.top1", Regression(0.005)),
            (
                {"accuracy": {"top5": {"max_regression": "0 points", "ignore_below": "0.2 %"}}},
                "accuracy.top5",
                Regression(0.0, 0.002),
            ),
            ({"odd": {"max_regression": "3 %", "ignore_below": "7"}}, "odd", Regression(0.03, 7.0)),
        ],
    )
    def test_a_table_stands_where_a_limit_may(self, expect, name, regression):
        found = read(expect)
        assert found.regressions == {name: regression}
        assert found.limits == {}

    def test_the_limit_stands_beside_it_as_before(self):
        found = read(
            {
                "latency": {
                    "p99": {"limit": ["<= 5 ms", ">= 1 us"], "max_regression": "10 %"},
                    "p50": {"limit": "<= 4 ms"},
                    "p99.upper99": "<= 9 ms",
                }
            }
        )
        assert {name: [one.text for one in bounds] for name, bounds in found.limits.items()} == {
            "latency.p99": ["<= 5 ms", ">= 1 us"],
            "latency.p50": ["<= 4 ms"],
            "latency.p99.upper99": ["<= 9 ms"],
        }
        assert found.regressions == {"latency.p99": Regression(0.1)}

    @pytest.mark.parametrize(
        ("expect", "message"),
        [
            (
                {"latency": {"p50": {"ignore_below": "200 ns"}}},
                '.latency.p50: "ignore_below" needs max_regression beside it, for example "3 %"',
            ),
            (
                {"stage": {"compile": {"limit": "<= 9 s", "max_regression": "5 %"}}},
                ".stage.compile: is measured once, when the cache has no such file yet, and not in every round, so a "
                'gate cannot compare it; set "limit", or compare two runs with `mlbench compare`',
            ),
            (
                {"accuracy": {"top1": {"limit": ">= 0.9", "ignore_below": "0.001"}}},
                '.accuracy.top1: "ignore_below" needs max_regression beside it, for example "0.5 points"',
            ),
            ({"latency": {"p50": {}}}, ".latency.p50: is empty, so nothing would be checked; set one of limit,"),
            (
                {"latency": {"p50": {"max_regresion": "3 %"}}},
                '.latency.p50.max_regresion: unknown key; did you mean "max_regression"? Keys here: limit,',
            ),
            (
                {"latency": {"p50": {"limit": "<= 5 ms", "ignore_bellow": "3 ns"}}},
                '.latency.p50.ignore_bellow: unknown key; did you mean "ignore_below"?',
            ),
            (
                {"latency": {"p50": {"limit": "<= 5 ms", "reason": "slow"}}},
                ".latency.p50.reason: unknown key; Keys here: limit, max_regression, ignore_below",
            ),
            (
                {"latency": {"p99": {"upper99": "<= 5 ms", "max_regression": "3 %"}}},
                '.latency.p99: mixes the keys of a limit (max_regression) with "upper99", a part of another '
                'metric\'s name; write that one beside it, as "latency.p99.upper99" with its whole name',
            ),
            (
                {"latency": {"limit": "<= 5 ms", "p50": "<= 1 ms"}},
                '.latency: mixes the keys of a limit (limit) with "p50"',
            ),
            ({"latency": {"max_regression": "3 %"}}, '.latency: unknown metric "latency"; did you mean'),
            ({"latency": {"p98": {"max_regression": "3 %"}}}, '.latency.p98: unknown metric "latency.p98"'),
            ({"accuracy": {"max_regression": "1 points"}}, ".accuracy.max_regression: unknown metric"),
            (
                {"latency": {"p50": {"max_regression": 3}}},
                ".latency.p50.max_regression: expected a percentage, found 3 (a whole number); "
                'write it in quotes, for example "3 %"',
            ),
            ({"latency": {"p50": {"max_regression": 0.03}}}, "expected a percentage, found 0.03 (a number)"),
            ({"latency": {"p50": {"max_regression": ["3 %"]}}}, "expected a percentage, found a list of 1"),
            ({"latency": {"p50": {"max_regression": "3"}}}, '"3" has not the unit "%"; write for example "3 %"'),
            ({"latency": {"p50": {"max_regression": "0.03"}}}, '"0.03" has not the unit "%"'),
            ({"latency": {"p50": {"max_regression": "3 ns"}}}, '"3 ns" has not the unit "%"'),
            (
                {"latency": {"p50": {"max_regression": "<= 3 %"}}},
                '.latency.p50.max_regression: "<= 3 %" does not begin with a number; write for example "3 %"',
            ),
            ({"latency": {"p50": {"max_regression": ""}}}, '"" does not begin with a number'),
            ({"latency": {"p50": {"max_regression": "nan %"}}}, '"nan %" does not begin with a number'),
            ({"latency": {"p50": {"max_regression": "1e999 %"}}}, '"1e999 %": the number must be finite'),
            ({"latency": {"p50": {"max_regression": "-1 %"}}}, '"-1 %" must be at least 0 %'),
            (
                {"latency": {"p50": {"max_regression": "1 points"}}},
                '"1 points": only accuracies are compared in points; write for example "3 %"',
            ),
            (
                {"throughput": {"max_regression": "100 %"}},
                '.throughput.max_regression: "100 %" must be below 100 %: no value is so much worse',
            ),
            (
                {"accuracy": {"top1": {"max_regression": "1 %"}}},
                '.accuracy.top1.max_regression: "1 %": an accuracy is compared in percentage points; '
                'write for example "0.5 points"',
            ),
            (
                {"accuracy": {"top1": {"max_regression": 0.005}}},
                "expected percentage points of accuracy, found 0.005 (a number)",
            ),
            ({"accuracy": {"top1": {"max_regression": "0.5"}}}, '"0.5" has not the unit "points"'),
            ({"accuracy": {"top1": {"max_regression": "100 points"}}}, '"100 points" must be below 100 points'),
            ({"accuracy": {"top1": {"max_regression": "-1 points"}}}, '"-1 points" must be at least 0 points'),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": 200}}},
                ".latency.p50.ignore_below: expected an amount, found 200 (a whole number); "
                'write it in quotes, for example "200 ns"',
            ),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "200"}}},
                '"200" has no unit; this metric is a time: write for example "200 ns"',
            ),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "4 kB"}}},
                '"4 kB" is a size, but this metric is a time: write for example "200 ns"',
            ),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "1 %"}}},
                'ignore_below: "1 %": unknown unit "%". This metric is a time',
            ),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "-5 ns"}}},
                '"-5 ns" must be at least 0',
            ),
            (
                {"latency": {"p50": {"max_regression": "3 %", "ignore_below": "< 5 ns"}}},
                '"< 5 ns" does not begin with a number',
            ),
            ({"latency": {"p50": {"limit": {"limit": "<= 5 ms"}}}}, ".latency.p50.limit: expected a limit, found a"),
            ({"unchanged": {"fp99": {"rtol": 1}}}, '.unchanged.fp99: unknown precision "fp99"'),
            ({"unchanged": {"fp16": {"rtol": 1}}}, '.unchanged.fp16: unknown precision of this benchmark "fp16"'),
            ({"unchanged": {"*": {}}}, '.unchanged."*": no rule is set, so nothing would be checked'),
            ({"unchanged": {"rtol": 1e-4}}, '.unchanged.rtol: unknown precision "rtol"'),
            ({"unchanged": True}, ".unchanged: expected a table, found true (a boolean)"),
            ({"unchangd": {"int8": {"rtol": 1}}}, 'did you mean "unchanged" instead of "unchangd"?'),
        ],
    )
    def test_what_would_check_nothing_or_something_else_is_refused(self, expect, message):
        assert message in refusal(expect)

    def test_accuracy_against_the_base_needs_labels(self):
        message = refusal({"accuracy": {"top1": {"max_regression": "1 points"}}}, dataset="g")
        assert message.startswith(".accuracy: accuracy.top1 needs labels from a stored data set")

    def test_unchanged_has_the_rules_of_equivalence_and_needs_no_reference(self):
        found = read(
            {"unchanged": {"*": {"rtol": 1e-4, "atol": 1e-5}, "int8": {"top1_agreement": ">= 99 %"}}}, reference=None
        )
        assert found.unchanged == {
            "*": Tolerance(rtol=1e-4, atol=1e-5),
            "int8": Tolerance(top1_agreement=Limit(">=", 0.99, "%", ">= 99 %")),
        }
        assert found.equivalence == {}


EXPECT = {
    "latency": {"p50": {"limit": "<= 5 ms", "max_regression": "3 %", "ignore_below": "200 ns"}, "p99": "<= 9 ms"},
    "unchanged": {"*": {"rtol": 1e-4}, "int8": {"cosine": ">= 0.9"}},
}


@pytest.mark.parametrize(
    ("changed", "limit", "regression"),
    [
        ({"p50": {"max_regression": "10 %"}}, "<= 5 ms", Regression(0.1, 200.0)),
        ({"p50": {"ignore_below": "1 us"}}, "<= 5 ms", Regression(0.03, 1000.0)),
        ({"p50": {"ignore_below": "0 ns"}}, "<= 5 ms", Regression(0.03, 0.0)),
        ({"p50": {"limit": "<= 7 ms"}}, "<= 7 ms", Regression(0.03, 200.0)),
        ({"p50": "<= 8 ms"}, "<= 8 ms", Regression(0.03, 200.0)),
        ({"p99": {"max_regression": "9 %"}}, "<= 5 ms", Regression(0.03, 200.0)),
    ],
)
def test_an_override_keeps_what_it_does_not_name(changed, limit, regression):
    spec = suite(EXPECT, override=[{"when": {"precision": "int8"}, "set": {"expect": {"latency": changed}}}])
    fp32, int8 = expand(spec, spec.benchmarks[0], KNOWN)
    assert fp32.benchmark.expect == read(EXPECT)
    found = int8.benchmark.expect
    assert [one.text for one in found.limits["latency.p50"]] == [limit]
    assert [one.text for one in found.limits["latency.p99"]] == ["<= 9 ms"]
    assert found.regressions["latency.p50"] == regression
    assert set(found.regressions) == {"latency.p50", *(f"latency.{name}" for name in changed if name == "p99")}
    assert found.unchanged == fp32.benchmark.expect.unchanged


def test_an_override_merges_the_rules_against_the_base():
    settings = {"expect": {"unchanged": {"int8": {"atol": 0.5}}}}
    spec = suite(EXPECT, override=[{"when": {"precision": "int8"}, "set": settings}])
    fp32, int8 = (case.benchmark.expect.unchanged for case in expand(spec, spec.benchmarks[0], KNOWN))
    assert fp32["int8"] == Tolerance(cosine=Limit(">=", 0.9, "", ">= 0.9"))
    assert int8 == {**fp32, "int8": replace(fp32["int8"], atol=0.5)}


def test_an_override_cannot_ignore_what_nothing_limits():
    settings = {"expect": {"latency": {"p99": {"ignore_below": "1 us"}}}}
    with pytest.raises(SuiteError, match=r"override\[0\].set.expect.latency.p99: \"ignore_below\" needs max_reg"):
        suite(EXPECT, override=[{"when": {"precision": "int8"}, "set": settings}])


def test_a_metric_whose_name_ends_like_a_key_is_still_bounded():
    known = replace(KNOWN, metrics={**KNOWN.metrics, "memory.limit": "bytes"})
    found = read({"memory": {"limit": "<= 5 MB", "peak": {"max_regression": "1 %"}}}, known)
    assert list(found.limits) == ["memory.limit"]
    assert found.regressions == {"memory.peak": Regression(0.01)}


def test_a_python_suite_takes_the_same_tables():
    expect = read({"latency": {"p50": {"limit": ("<= 5 ms",), "max_regression": "3 %", "ignore_below": None}}})
    assert [one.text for one in expect.limits["latency.p50"]] == ["<= 5 ms"]
    assert expect.regressions == {"latency.p50": Regression(0.03)}


SAMPLE = """
mlbench = 1

[[model]]
name = "digits_cnn"
task = "image_classification"
files = { onnx = { fp32 = "digits.onnx" }, tflite = { fp32 = "digits.tflite", int8 = "digits_int8.tflite" } }
quantize = { int8 = { from = "fp32", how = "static_qdq", calibration = "data/calibration.npz" } }

[dataset.digits]
file = "data/test.npz"
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]

[[benchmark]]
name = "classify"
model = ["digits_cnn"]
framework = ["onnxruntime", "litert", { name = "tvm", options = { opt_level = 3 } }]
precision = ["fp32", "int8"]
device = ["cpu"]
dataset = "digits"
scenario = { kind = "single_stream", min_duration_s = 1 }
reference = { framework = "onnxruntime", precision = "fp32" }

[benchmark.expect]
accuracy = { top1 = ">= 0.97", max_drop = { from = "fp32", points = 1.0 } }
equivalence = { fp32 = { rtol = 1e-4, atol = 1e-5 }, int8 = { sqnr_db = ">= 20", top1_agreement = ">= 0.98" } }
unchanged = { "*" = { rtol = 1e-4, atol = 1e-5 } }
latency = { p99 = "<= 5 ms", p50 = { max_regression = "3 %", ignore_below = "200 ns" } }
"""


def test_the_whole_of_a_suite_for_several_frameworks_is_read(tmp_path):
    path = tmp_path / "bench_digits.toml"
    path.write_text(SAMPLE, encoding="utf-8")
    known = replace(KNOWN, frameworks=Registry().frameworks)
    spec = load_suite(path, known)
    cases = expand(spec, spec.benchmarks[0], known)
    assert [case.id for case in cases[:2]] == [
        "digits/classify[digits_cnn-onnxruntime-fp32-cpu]",
        "digits/classify[digits_cnn-onnxruntime-int8-cpu]",
    ]
    assert len(cases) == 6
    assert all(case.benchmark.expect.regressions == {"latency.p50": Regression(0.03, 200.0)} for case in cases)
