from __future__ import annotations

import json

import pytest

from pytest_mlbench.checks.placement import (
    check_precision,
    check_shares,
    executed,
    executed_label,
    shown_precision,
    summarise,
)
from pytest_mlbench.spec import Limit


def nodes(*kinds: tuple[int, str, str], moving: int = 0):
    """Return nodes from (count, precision, where), and `moving` casts that do not compute."""
    found = [
        {
            "name": f"conv{i}_{precision}",
            "op": "Conv",
            "where": where,
            "precision": precision,
            "compute": True,
        }
        for count, precision, where in kinds
        for i in range(count)
    ]
    cast = {"name": "cast", "op": "Cast", "where": "cpu", "precision": "fp32", "compute": False}
    return found + [cast] * moving


INT8 = summarise(nodes((5, "int8", "cpu"), moving=3), "onnxruntime profiler")
FP32 = summarise(nodes((7, "fp32", "cpu")), "onnxruntime profiler")
MIXED = summarise(nodes((8, "int8", "npu"), (2, "fp32", "cpu")))
SILENT = summarise([], reason="the delegate hides its nodes")
UNTOLD = summarise(nodes((4, "unknown", "cpu")))
HALF = summarise(nodes((8, "int8", "cpu"), (2, "unknown", "unknown")))


def test_shares_are_of_the_nodes_that_compute() -> None:
    summary = summarise(nodes((8, "int8", "npu"), (2, "fp32", "cpu"), moving=90), "profiler")
    assert summary["where"] == {"npu": 0.8, "cpu": 0.2}
    assert summary["precision"] == {"int8": 0.8, "fp32": 0.2}
    assert (summary["nodes"], summary["compute_nodes"]) == (100, 10)
    assert (summary["source"], summary["reason"]) == ("profiler", "")
    assert len(summary["examples"]["precision"]["int8"]) == 5
    json.dumps(summary)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (([],), "reported no nodes"),
        (([], "profiler", "hidden by the delegate"), "hidden by the delegate"),
        ((nodes(moving=3),), "none of 3 nodes computes"),
    ],
)
def test_nothing_that_computes_is_unknown_with_a_reason(given, reason) -> None:
    summary = summarise(*given)
    assert summary["precision"] == summary["where"] == {}
    assert reason in summary["reason"]
    assert executed(summary) == "unknown"
    assert reason in executed_label(summary)


@pytest.mark.parametrize(
    ("summary", "name", "label", "shown"),
    [
        (INT8, "int8", "int8", "int8"),
        (FP32, "fp32", "fp32", "int8 (runs fp32)"),
        (MIXED, "mixed", "mixed (int8 80 %, fp32 20 %)", "int8 (runs int8 80 %, fp32 20 %)"),
        (SILENT, "unknown", "unknown (the delegate hides its nodes)", "int8 (runs unknown)"),
        (UNTOLD, "unknown", "unknown (the framework does not tell)", "int8 (runs unknown)"),
    ],
)
def test_a_label_says_what_ran(summary, name, label, shown) -> None:
    assert executed(summary) == name
    assert executed_label(summary) == label
    assert shown_precision(summary, "int8") == shown


def test_a_single_foreign_node_among_thousands_is_never_rounded_away() -> None:
    summary = summarise(nodes((9999, "int8", "cpu"), (1, "fp32", "cpu")))
    assert executed_label(summary) == "mixed (int8 99.99 %, fp32 0.01 %)"
    assert check_precision(summary, "int8", None).outcome == "fail"


@pytest.mark.parametrize(
    ("summary", "axis", "acknowledged", "outcome", "words"),
    [
        (INT8, "int8", None, "pass", "runs int8 [onnxruntime profiler]"),
        (FP32, "int8", None, "fail", "labelled int8 but runs fp32: conv0_fp32 (Conv) fp32"),
        (FP32, "int8", None, "fail", "executed_precision = 'fp32' to show it as 'int8 (runs fp32)'"),
        (FP32, "int8", "fp32", "pass", "runs fp32, acknowledged for int8"),
        (FP32, "fp32", "fp32", "pass", "runs fp32"),
        (INT8, "int8", "fp32", "fail", "no longer true: it runs int8, as the axis says; remove"),
        (INT8, "int8", "unknown", "fail", "remove executed_precision"),
        (INT8, "fp16", "fp32", "fail", "make it 'int8'"),
        (MIXED, "int8", None, "fail", "runs mixed (int8 80 %, fp32 20 %): conv0_fp32 (Conv) fp32"),
        (MIXED, "int8", "mixed", "pass", "acknowledged for int8"),
        (MIXED, "int8", "fp32", "fail", "is not what ran: mixed"),
        (SILENT, "int8", None, "invalid", "nothing proves that int8 ran"),
        (SILENT, "int8", "unknown", "pass", "runs unknown (the delegate hides its nodes)"),
        (SILENT, "int8", "fp32", "invalid", "not proven"),
        (UNTOLD, "int8", None, "invalid", "the framework does not tell"),
        (HALF, "int8", None, "invalid", "nothing proves that int8 ran"),
        (HALF, "int8", "mixed", "pass", "acknowledged"),
        (HALF, "fp16", None, "fail", "labelled fp16"),
    ],
)
def test_precision_is_proven_acknowledged_or_refused(summary, axis, acknowledged, outcome, words) -> None:
    result = check_precision(summary, axis, acknowledged)
    assert result.name == "executed_precision"
    assert result.outcome == outcome
    assert words in result.message


def test_facts_hold_both_labels() -> None:
    facts = check_precision(FP32, "int8", None).facts
    assert facts == {
        "axis": "int8",
        "executed": "fp32",
        "label": "fp32",
        "shown": "int8 (runs fp32)",
        "acknowledged": None,
    }


def test_at_most_five_offenders_are_listed() -> None:
    message = check_precision(FP32, "int8", None).message
    assert message.count("(Conv)") == 5
    assert "conv4_fp32" in message
    assert "conv5_fp32" not in message


def limit(op: str, value: float) -> Limit:
    return Limit(op, value, "", f"{op} {value}")


@pytest.mark.parametrize(
    ("summary", "name", "bound", "outcome", "words"),
    [
        (INT8, "cpu", limit(">=", 1), "pass", "100 % of 5 computing nodes are cpu"),
        (MIXED, "npu", limit(">=", 0.8), "pass", "80 % of 10"),
        (MIXED, "npu", limit(">=", 1), "fail", "conv0_fp32 (Conv) cpu"),
        (MIXED, "cpu", limit("<=", 0.1), "fail", "(npu 80 %, cpu 20 %), limit <= 0.1: conv0_fp32 (Conv)"),
        (MIXED, "int8", limit(">=", 0.9), "fail", "conv1_fp32 (Conv) fp32"),
        (MIXED, "gpu", limit(">=", 0.5), "fail", "0 % of 10 computing nodes are gpu"),
        (MIXED, "fp16", limit(">=", 0.5), "fail", "are fp16 (int8 80 %, fp32 20 %)"),
        (MIXED, "gpu", limit("<=", 0), "pass", "0 %"),
        (SILENT, "cpu", limit(">=", 0), "invalid", "the delegate hides its nodes"),
        (HALF, "int8", limit(">=", 0.8), "pass", "80 %"),
        (HALF, "int8", limit(">=", 0.9), "invalid", "20 % do not tell"),
        (HALF, "int8", limit("<=", 0.9), "invalid", "20 % do not tell"),
        (HALF, "int8", limit("<=", 0.7), "fail", "80 %"),
        (HALF, "cpu", limit(">=", 0.9), "invalid", "20 % do not tell"),
        (HALF, "fp32", limit("<=", 0), "invalid", "20 % do not tell"),
    ],
)
def test_shares_are_required_by_place_or_precision(summary, name, bound, outcome, words) -> None:
    (result,) = check_shares(summary, {name: bound})
    assert result.name == f"placement.{name}"
    assert result.outcome == outcome
    assert words in result.message
    json.dumps(result.facts, allow_nan=False)


def test_facts_without_examples_are_enough_to_decide() -> None:
    facts = {key: value for key, value in MIXED.items() if key != "examples"}
    assert check_precision(facts, "int8", None).outcome == "fail"
    results = check_shares(facts, {"npu": limit(">=", 1), "cpu": limit("<", 0.2)})
    assert [result.outcome for result in results] == ["fail", "fail"]
