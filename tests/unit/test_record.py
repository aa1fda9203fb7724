"""Records as JSON values, there and back; what is no record is refused with its place."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from pytest_mlbench.record import CheckResult, Comparison, Metric, Record
from pytest_mlbench.schemas import load_schema
from pytest_mlbench.stores import runfile

SLOWER = Comparison(
    "latency.p50",
    "ns",
    "lower",
    "rounds",
    "regressed",
    "latency.p50 is 24 % slower",
    base=6650.0,
    candidate=8260.0,
    change=0.242,
    interval=(0.231, 0.253),
    confidence=0.95,
    n=12,
    p=2.0**-12,
    alpha=0.00625,
    margin=0.03,
    ignore_below=200.0,
    detectable=0.034,
    waived="portable kernels, see #123",
    base_values=(6650.0, 6652.5),
    candidate_values=(8260.0, 8259.5),
)
UNMEASURED = Comparison("memory.peak", "bytes", "lower", "rounds", "invalid", "the base did not measure memory.peak")

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
    comparisons=(SLOWER, UNMEASURED),
    base={"commit": "8c96", "ref": "main", "how": "merge base", "rounds": [{"first": "base", "troubles": []}]},
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
    line["comparisons"][0]["future"] = [1]
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
        (["base"], [], "base: expected dict, found list"),
        (["comparisons"], {}, "comparisons: expected list, found dict"),
        (["comparisons", 0], 5, r"comparisons\[0\]: expected an object, found int"),
        *[
            (["comparisons", 1, key], KeyError, rf"comparisons\[1\].{key} is missing")
            for key in ("metric", "unit", "direction", "method", "verdict")
        ],
        (["comparisons", 0, "metric"], 5, r"comparisons\[0\].metric: expected str, found int"),
        (["comparisons", 0, "direction"], "up", r"comparisons\[0\].direction: expected one of lower, higher, none"),
        (
            ["comparisons", 0, "verdict"],
            "red",
            r"comparisons\[0\].verdict: expected one of pass, regressed, improved, inconclusive, invalid, found 'red'",
        ),
        (["comparisons", 0, "method"], None, r"comparisons\[0\].method: expected one of rounds, exact, mcnemar, runs"),
        *[
            (["comparisons", 0, key], "1", rf"comparisons\[0\].{key}: expected a number, found str")
            for key in ("base", "candidate", "change", "confidence", "p", "alpha", "detectable")
        ],
        (["comparisons", 0, "p"], float("nan"), r"comparisons\[0\].p: expected a finite number"),
        (["comparisons", 0, "base"], 10**400, r"comparisons\[0\].base: expected a finite number"),
        (["comparisons", 0, "margin"], None, r"comparisons\[0\].margin: expected a number, found NoneType"),
        (["comparisons", 0, "ignore_below"], "200 ns", r"comparisons\[0\].ignore_below: expected a number, found str"),
        (["comparisons", 0, "n"], True, r"comparisons\[0\].n: expected a whole number of at least 0, found True"),
        (["comparisons", 0, "n"], 1.5, r"comparisons\[0\].n: expected a whole number of at least 0, found 1.5"),
        (["comparisons", 0, "n"], -1, r"comparisons\[0\].n: expected a whole number of at least 0, found -1"),
        (["comparisons", 0, "n"], None, r"comparisons\[0\].n: expected a whole number of at least 0, found None"),
        (["comparisons", 0, "interval"], [1.0], r"comparisons\[0\].interval: expected two numbers"),
        (["comparisons", 0, "interval"], "ab", r"comparisons\[0\].interval: expected two numbers"),
        (["comparisons", 0, "interval"], [0.1, None], r"comparisons\[0\].interval: expected a number, found NoneType"),
        (["comparisons", 0, "base_values"], 5, r"comparisons\[0\].base_values: expected numbers"),
        (["comparisons", 0, "base_values"], [None], r"comparisons\[0\].base_values: expected a number, found NoneType"),
        (
            ["comparisons", 0, "candidate_values"],
            [1.0, float("inf")],
            r"comparisons\[0\].candidate_values: expected a finite number",
        ),
        (["comparisons", 0, "waived"], ["a"], r"comparisons\[0\].waived: expected str, found list"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(path, value, message):
    with pytest.raises(ValueError, match=message):
        Record.from_json(changed(path, value))


def test_a_comparison_of_what_is_required_alone():
    given = {"metric": "x", "unit": "", "direction": "none", "method": "exact", "verdict": "pass"}
    line = {"case": "s/b[c]", "node": "n", "axes": {}, "outcome": "pass", "comparisons": [given]}
    assert Record.from_json(line).comparisons == (Comparison("x", "", "none", "exact", "pass"),)


def test_the_published_schema_describes_comparisons():
    schema = load_schema()
    own = jsonschema.Draft202012Validator({**schema["$defs"]["comparison"], "$defs": schema["$defs"]})
    for comparison in json.loads(runfile.dumps(FULL.to_json()))["comparisons"]:
        own.validate(comparison)
        for key in comparison:
            fewer = {name: value for name, value in comparison.items() if name != key}
            assert not own.is_valid(fewer), key
    for key, value in (("n", -1), ("verdict", "red"), ("interval", [1]), ("base_values", [None]), ("future", 1)):
        assert not own.is_valid({**comparison, key: value}), key
