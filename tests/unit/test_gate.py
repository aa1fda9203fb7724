"""Which metrics of a case the gate compares when its suite says nothing, and what it knows of the two sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench.gate import compared_metrics, differs
from pytest_mlbench.matrix import Case
from pytest_mlbench.record import Comparison
from pytest_mlbench.spec import (
    BenchmarkSpec,
    DatasetSpec,
    Expect,
    FrameworkSpec,
    ModelSpec,
    Regression,
    ScenarioSpec,
    SuiteSpec,
)


def case(*, task=None, dataset=None, kind="single_stream", **regressions):
    model, framework = ModelSpec("net", task=task), FrameworkSpec("ort", "ort")
    expect = Expect(regressions={name.replace("__", "."): found for name, found in regressions.items()})
    benchmark = BenchmarkSpec("b", ("net",), (framework,), ("fp32",), ("cpu",), dataset=dataset, expect=expect)
    data = {dataset: DatasetSpec(dataset)} if dataset else {}
    suite = SuiteSpec("s", Path("bench_s.toml"), {"net": model}, data, (benchmark,))
    return Case(suite, benchmark, model, framework, "fp32", "cpu", 1, None, ScenarioSpec(kind=kind), "net-ort-fp32-cpu")


@pytest.mark.parametrize(("kind", "figure"), [("single_stream", "latency.p50"), ("offline", "throughput")])
def test_the_scenarios_figure_has_the_sessions_margin(kind, figure):
    assert compared_metrics(case(kind=kind), 0.03) == {figure: Regression(0.03)}


@pytest.mark.parametrize("task", ["classification", "image_classification"])
def test_a_classifiers_answers_may_not_become_worse(task):
    assert compared_metrics(case(task=task, dataset="data"), 0.03)["accuracy.top1"] == Regression(0.0)
    assert "accuracy.top1" not in compared_metrics(case(task=task), 0.03), "without samples there is no answer"


@pytest.mark.parametrize("task", [None, "regression"])
def test_a_model_that_is_no_classifier_has_no_accuracy_to_compare(task):
    assert list(compared_metrics(case(task=task, dataset="data"), 0.03)) == ["latency.p50"]


def test_what_the_suite_says_comes_first():
    own = {"latency__p50": Regression(0.5, 200.0), "accuracy__top1": Regression(0.01), "model__size": Regression(0.1)}
    found = compared_metrics(case(task="classification", dataset="data", **own), 0.03)
    assert found == {name.replace("__", "."): one for name, one in own.items()}
    assert replace(found["latency.p50"], margin=0.0) == Regression(0.0, 200.0)


@pytest.mark.parametrize(
    ("verdict", "direction", "change", "margin", "expected"),
    [
        ("regressed", "lower", 0.05, 0.03, True),
        ("improved", "lower", -0.05, 0.03, True),
        ("improved", "lower", -0.001, 0.03, False),  # as +0.1 % would be no regression
        ("improved", "lower", -0.03, 0.03, True),  # exchanged, 3.1 % slower
        ("improved", "higher", 0.05, 0.03, True),
        ("improved", "higher", 0.001, 0.03, False),
        ("improved", "higher", 0.03, 0.03, False),  # exchanged, 2.9 % lower
        ("improved", "lower", -0.001, 0.0, True),
        ("pass", "lower", 0.01, 0.03, False),
        ("inconclusive", "lower", 0.05, 0.03, False),
        ("invalid", "lower", None, 0.03, False),
    ],
)
def test_a_revision_that_differs_from_itself_does_so_in_either_role(verdict, direction, change, margin, expected):
    control = Comparison("m", "ns", direction, "rounds", verdict, change=change, margin=margin)
    assert differs(control) is expected


def test_an_emulated_board_is_compared_by_its_instructions_exactly():
    emulated = replace(case(task="classification", dataset="data"), emulated=True)
    assert compared_metrics(emulated, 0.03) == {"emulated.time": Regression(0.0), "accuracy.top1": Regression(0.0)}
