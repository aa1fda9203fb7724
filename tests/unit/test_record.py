"""Records as JSON values, there and back; what is no record is refused with its place."""

from __future__ import annotations

import copy
import json

import pytest

from pytest_mlbench.record import CheckResult, Metric, Record

FULL = Record(
    case="digits/classify[net-ort-fp32-cpu]",
    node="suites/digits/bench_digits.toml::classify[net-ort-fp32-cpu]",
    axes={"model": "net", "batch": 1, "threads": None},
    outcome="fail",
    reason="latency.p50: too slow",
    stage="measure",
    metrics=(
        Metric("latency.p50", 2130.5, "ns", "lower", n=64, interval=(2100.0, 2200.0), confidence=0.95, note="one call"),
        Metric("accuracy.top5", None, "", "higher", "derived", reason="no labels"),
    ),
    checks=(CheckResult("latency.p50", "fail", "2.13 us, limit <= 2 us", {"found": 2130.5}),),
    samples={"sample_ns": {"kept": 3}},
    scenario={"kind": "single_stream", "happened": {"main": {"bounds_ns": [[1, 2]]}}},
    placement={"precision": {"fp32": 1.0}, "where": {"cpu": 1.0}},
    stages_ns={"load": 12},
    resumed="20260131T120000-00000000",
    reference="digits/classify[net-ort-fp32-cpu]",
    target={"pid": 7},
    hashes={"model": "ab"},
    environment={"before": {"load": [0.1]}},
    fingerprint="0123456789abcdef",
    started="2026-01-31T12:00:00.000+00:00",
    wall_s=1.25,
)


def test_a_record_survives_the_way_through_json():
    assert Record.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    assert FULL.to_json()["kind"] == "record"


def test_a_record_of_what_is_required_alone():
    least = Record("s/b[c]", "node", {}, "skip")
    assert Record.from_json(json.loads(json.dumps(least.to_json()))) == least
    assert Record.from_json({"case": "s/b[c]", "node": "node", "axes": {}, "outcome": "skip"}) == least


def test_what_a_later_version_adds_is_passed_over():
    line = copy.deepcopy(json.loads(json.dumps(FULL.to_json())))
    line["future"] = line["metrics"][0]["future"] = line["checks"][0]["future"] = {"deep": 1}
    assert Record.from_json(line) == FULL


def test_a_metric_is_found_by_name_or_the_names_are_listed():
    assert FULL.metric("latency.p50").value == 2130.5
    with pytest.raises(KeyError, match=r"no metric 'throughput'; this record has latency.p50, accuracy.top5"):
        FULL.metric("throughput")
    with pytest.raises(KeyError, match="this record has none"):
        Record("s/b[c]", "node", {}, "skip").metric("x")


def changed(path, value):
    line = json.loads(json.dumps(FULL.to_json()))
    place = line
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return line


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["case"], 5, "case: expected str, found int"),
        (["case"], KeyError, "case is missing"),
        (["outcome"], KeyError, "outcome is missing"),
        (
            ["outcome"],
            "passed",
            "outcome: expected one of pass, fail, skip, invalid, insufficient, error, found 'passed'",
        ),
        (["outcome"], [], r"outcome: expected one of .*, found '\[\]'"),
        (["axes"], [], "axes: expected dict, found list"),
        (["wall_s"], "1", "wall_s: expected a number, found str"),
        (["wall_s"], True, "wall_s: expected a number, found bool"),
        (["wall_s"], 10**400, "wall_s: expected a finite number"),
        (["metrics"], "abc", "metrics: expected list, found str"),
        (["metrics"], None, "metrics: expected list, found NoneType"),
        (["metrics", 0], "abc", r"metrics\[0\]: expected an object, found str"),
        (["metrics", 0, "name"], KeyError, r"metrics\[0\].name is missing"),
        (["metrics", 0, "value"], "2", r"metrics\[0\].value: expected a number, found str"),
        (["metrics", 0, "value"], float("nan"), r"metrics\[0\].value: expected a finite number"),
        (["metrics", 0, "direction"], "up", r"metrics\[0\].direction: expected one of lower, higher, none"),
        (["metrics", 0, "origin"], None, r"metrics\[0\].origin: expected one of measured, derived, declared"),
        (["metrics", 0, "interval"], [1], r"metrics\[0\].interval: expected two numbers"),
        (["metrics", 0, "interval"], 5, r"metrics\[0\].interval: expected two numbers"),
        (["metrics", 0, "interval"], [1, "2"], r"metrics\[0\].interval: expected a number, found str"),
        (["checks", 0, "outcome"], "skip", r"checks\[0\].outcome: expected one of pass, fail, invalid, insufficient"),
        (["checks", 0, "message"], KeyError, r"checks\[0\].message is missing"),
        (["checks", 0, "facts"], [1], r"checks\[0\].facts: expected dict, found list"),
        (["stages_ns", "load"], "long", "stages_ns.load: expected a number, found str"),
        (["placement", "precision"], [], "placement.precision: expected an object, found list"),
        (["placement", "precision"], {"fp32": "all"}, "placement.precision.fp32: expected a number, found str"),
        (["hashes"], "ab", "hashes: expected dict, found str"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(path, value, message):
    with pytest.raises(ValueError, match=message):
        Record.from_json(changed(path, value))
