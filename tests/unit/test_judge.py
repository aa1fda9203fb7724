"""Each expectation of a suite against what a case yielded, both made up."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench.checks import placement
from pytest_mlbench.execute import Executed
from pytest_mlbench.judge import OTHER_BATCH, aligned, judge
from pytest_mlbench.matrix import Case
from pytest_mlbench.measure import ComplianceData
from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.record import Metric
from pytest_mlbench.spec import (
    BenchmarkSpec,
    DatasetSpec,
    Expect,
    FrameworkSpec,
    Limit,
    MaxDrop,
    ModelSpec,
    ScenarioSpec,
    SuiteSpec,
    Tolerance,
)

Y = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
LABELS = np.array([1, 0, 1, 0])
NODES = [{"name": "m", "op": "MatMul", "where": "cpu", "precision": "fp32", "compute": True}]


def case(expect=None, *, precision="fp32", batch=1, dataset=None, executed_precision=None):
    model, framework = ModelSpec("net", task="classification"), FrameworkSpec("ort", "ort")
    data = dataset or DatasetSpec("d")
    benchmark = BenchmarkSpec(
        "b",
        ("net",),
        (framework,),
        ("fp32", "int8"),
        ("cpu",),
        dataset="d",
        expect=expect or Expect(),
        executed_precision=executed_precision,
    )
    suite = SuiteSpec("s", Path("bench_s.toml"), {"net": model}, {"d": data}, (benchmark,))
    return Case(
        suite, benchmark, model, framework, precision, "cpu", batch, None, ScenarioSpec(), f"net-ort-{precision}-cpu"
    )


def executed(of, outputs=None, labels=None, nodes=NODES, compliance=None, inputs="ab" * 32):
    facts = {"format": "onnx"}
    measurement = Measurement(of, None, {}, {}, None, {"y": Y} if outputs is None else outputs, labels, facts)
    summary = placement.summarise(nodes)
    return Executed(measurement, compliance or ComplianceData(), summary, {}, {}, {"inputs": inputs}, {}, "")


def never(*_):
    raise AssertionError("nothing asks for it")


def results(of, found, metrics=(), reference=never, outputs_of=never):
    judged = judge(of, found, list(metrics), reference, outputs_of)
    return {result.name: result for result in judged}


def outcomes(*args, **kwargs):
    return {name: result.outcome for name, result in results(*args, **kwargs).items()}


def limit(text, op, value):
    return Limit(op, value, "", text)


# --- what ran -----------------------------------------------------------------------------------------------


def test_without_expectations_only_the_executed_precision_is_judged():
    of = case()
    assert outcomes(of, executed(of)) == {"executed_precision": "pass"}


def test_another_executed_precision_fails_unless_it_is_acknowledged():
    of = case(precision="int8")
    assert outcomes(of, executed(of)) == {"executed_precision": "fail"}
    of = case(precision="int8", executed_precision="fp32")
    assert outcomes(of, executed(of)) == {"executed_precision": "pass"}
    of = case()
    assert outcomes(of, executed(of, nodes=[])) == {"executed_precision": "invalid"}


def test_required_shares_of_nodes():
    of = case(Expect(placement={"cpu": limit(">= 100 %", ">=", 1.0), "fp32": limit("< 50 %", "<", 0.5)}))
    found = outcomes(of, executed(of))
    assert (found["placement.cpu"], found["placement.fp32"]) == ("pass", "fail")


# --- what went in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "outcome"),
    [
        ({"onnx": "ab" * 32}, "pass"),
        ({"*": "ab" * 32}, "pass"),
        ({"onnx": "ab" * 32, "*": "cd" * 32}, "pass"),
        ({"onnx": "cd" * 32}, "fail"),
        ({"tflite": "cd" * 32}, "pass"),
        ({"*": "cd" * 32}, "fail"),
    ],
)
def test_declared_inputs_are_those_of_the_frameworks_format(declared, outcome):
    of = case(dataset=DatasetSpec("d", inputs_sha256=declared))
    assert outcomes(of, executed(of))["inputs_sha256"] == outcome


def test_generated_default_inputs_have_no_declared_digest():
    of = case(dataset=DatasetSpec("d", inputs_sha256={"*": "cd" * 32}))
    of = replace(of, benchmark=replace(of.benchmark, dataset=None))
    assert "inputs_sha256" not in outcomes(of, executed(of))


# --- limits -------------------------------------------------------------------------------------------------


def test_limits_are_held_against_the_metrics():
    of = case(Expect(limits={"latency.p50": (limit("<= 5 ns", "<=", 5),)}))
    for value, outcome in ((4.0, "pass"), (6.0, "fail")):
        assert outcomes(of, executed(of), [Metric("latency.p50", value, "ns", "lower")])["latency.p50"] == outcome
    missing = Metric("latency.p50", None, "ns", "lower", reason="an offline run has no latency")
    assert outcomes(of, executed(of), [missing])["latency.p50"] not in ("pass", "fail")


# --- equivalence --------------------------------------------------------------------------------------------


def test_outputs_are_compared_with_the_reference():
    of = case(Expect(equivalence={"fp32": Tolerance(rtol=1e-3, atol=0.0)}))
    for reference, outcome in ((Y * np.float32(1.0005), "pass"), (Y * np.float32(1.1), "fail")):
        found = outcomes(of, executed(of), reference=lambda given=reference: {"y": given})
        assert set(found.values()) == {"pass", outcome}
        assert len(found) > 1


def test_the_tolerance_is_that_of_the_precision_or_of_all():
    close, far = Tolerance(max_abs=limit("<= 1e-6", "<=", 1e-6)), Tolerance(max_abs=limit("<= 1", "<=", 1))
    reference = {"y": Y + np.float32(0.01)}
    for rules, outcome in (({"fp32": close, "*": far}, "fail"), ({"int8": close, "*": far}, "pass")):
        of = case(Expect(equivalence=rules))
        assert outcomes(of, executed(of), reference=lambda: reference)["equivalence.max_abs"] == outcome
    of = case(Expect(equivalence={"int8": close}))
    assert set(outcomes(of, executed(of))) == {"executed_precision"}  # and the reference is not even asked for


def test_the_reference_itself_is_compared_with_nothing():
    of = case(Expect(equivalence={"*": Tolerance(bit_exact=True)}))
    assert set(outcomes(of, executed(of), reference=lambda: None)) == {"executed_precision"}


def test_a_single_output_is_compared_under_the_references_name():
    of = case(Expect(equivalence={"*": Tolerance(bit_exact=True)}))
    found = outcomes(of, executed(of, outputs={"StatefulPartitionedCall:0": Y}), reference=lambda: {"y": Y})
    assert found["equivalence.bit_exact"] == "pass"
    assert set(found.values()) == {"pass"}
    two = {"a": Y, "b": Y}
    assert aligned(two, {"y": Y, "z": Y}) is two
    assert aligned({"y": Y}, {"y": Y}) == {"y": Y}


def test_a_missing_output_fails():
    of = case(Expect(equivalence={"*": Tolerance(rtol=1e-3)}))
    assert "fail" in outcomes(of, executed(of), reference=lambda: {"y": Y, "z": Y}).values()
    assert "fail" in outcomes(of, executed(of, outputs={}), reference=lambda: {"y": Y}).values()


# --- accuracy drop ------------------------------------------------------------------------------------------


def drop(points=1.0, precision="int8"):
    return case(Expect(max_drop=MaxDrop("fp32", points)), precision=precision, executed_precision="fp32")


def test_a_drop_is_against_the_same_case_in_the_other_precision():
    asked = []

    def outputs_of(other):
        asked.append(other)
        return {"y": Y}

    of = drop()
    labels = np.tile(LABELS, 100)
    many = {"y": np.tile(Y, (100, 1))}
    worse = {"y": np.concatenate([many["y"][:300], 1 - many["y"][300:]])}
    assert (
        outcomes(of, executed(of, many, labels), outputs_of=lambda other: outputs_of(other) and many)[
            "accuracy.max_drop"
        ]
        == "pass"
    )
    assert [(each.precision, each.param) for each in asked] == [("fp32", "net-ort-fp32-cpu")]
    assert outcomes(of, executed(of, worse, labels), outputs_of=lambda _: many)["accuracy.max_drop"] == "fail"


def test_the_precision_a_drop_is_from_has_none():
    of = drop(precision="fp32")
    of = replace(of, benchmark=replace(of.benchmark, executed_precision=None))
    assert "accuracy.max_drop" not in outcomes(of, executed(of, labels=LABELS))


def test_a_drop_without_labels_is_insufficient_and_with_wrong_ones_invalid():
    of = drop()
    found = results(of, executed(of), outputs_of=lambda _: {"y": Y})["accuracy.max_drop"]
    assert (found.outcome, found.message) == ("insufficient", "the data set has no labels, so no accuracy is known")
    found = results(of, executed(of, labels=LABELS + 5), outputs_of=lambda _: {"y": Y})["accuracy.max_drop"]
    assert found.outcome == "invalid"
    assert "label 6 of sample 0 is outside the 2 classes" in found.message


# --- NaN ----------------------------------------------------------------------------------------------------


def test_nan_outputs_fail_without_any_declared_expectation():
    bad = Y.copy()
    bad[2, 1] = bad[3, 0] = np.nan
    of = case()
    found = results(of, executed(of, {"ok": Y, "y": bad}))["outputs.nan"]
    assert found.outcome == "fail"
    assert found.message.startswith("output 'y' has NaN for 2 of 4 samples, first for sample 2: ")
    assert found.facts == {"samples": 2, "first": 2}


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": np.array([1, 2, 3])},
        {"y": np.full((4, 2), np.inf, np.float16)},
        {"y": np.zeros((3, 0), np.float32)},
        {"y": np.array([0.5, 1.5])},
        {},
    ],
    ids=["integers", "infinite", "empty", "one-dimension", "none"],
)
def test_outputs_without_nan_pass(outputs):
    of = case()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "outputs.nan" not in outcomes(of, executed(of, outputs))


# --- compliance ---------------------------------------------------------------------------------------------


def test_compliance_is_judged_where_it_is_wanted():
    of = case(Expect(compliance=("repeat_sample", "timed_outputs", "batch_invariance")))
    data = ComplianceData((0, 2), {"y": Y[[0, 2]]}, (10.0,) * 9, (10.1,) * 9)
    found = outcomes(of, executed(of, compliance=data), outputs_of=lambda _: {"y": Y})
    assert set(found.values()) == {"pass"}
    assert len(found) >= 4
    assert set(outcomes(case(), executed(of, compliance=data))) == {"executed_precision"}


def test_a_cached_answer_is_found():
    of = case(Expect(compliance=("repeat_sample",)))
    cached = ComplianceData(repeated_ns=(1.0,) * 9, varied_ns=(10.0,) * 9)
    assert "fail" in outcomes(of, executed(of, compliance=cached)).values()


def test_other_outputs_in_the_timed_pass_are_found():
    of = case(Expect(compliance=("timed_outputs",)))
    other = ComplianceData((0, 2), {"y": Y[[0, 1]]})
    assert "fail" in outcomes(of, executed(of, compliance=other)).values()


@pytest.mark.parametrize(("batch", "other"), [(1, OTHER_BATCH), (8, 1)])
def test_batch_invariance_is_against_another_batch(batch, other):
    asked = []
    of = case(Expect(compliance=("batch_invariance",)), batch=batch)

    def outputs_of(given):
        asked.append(given.batch)
        return {"y": Y}

    assert set(outcomes(of, executed(of), outputs_of=outputs_of).values()) == {"pass"}
    assert asked == [other]
    assert "fail" in outcomes(of, executed(of), outputs_of=lambda _: {"y": Y + 1}).values()


def test_batch_invariance_uses_the_suites_tolerance():
    rule = {"fp32": Tolerance(max_abs=limit("<= 2", "<=", 2))}
    of = case(Expect(compliance=("batch_invariance",), equivalence=rule))
    assert set(outcomes(of, executed(of), reference=lambda: None, outputs_of=lambda _: {"y": Y + 1}).values()) == {
        "pass"
    }
