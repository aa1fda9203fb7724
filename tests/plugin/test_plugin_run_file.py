"""The run file: every line holds the published schema, and a record explains itself."""

from __future__ import annotations

import copy
import json
import platform
import subprocess

import jsonschema
import numpy as np
import pytest

from pytest_mlbench.schemas import load_schema
from pytest_mlbench.stores import runfile

VALIDATOR = jsonschema.Draft202012Validator(load_schema())


def problems(line: dict) -> list[str]:
    """Return what is wrong with a line; one that is none of the three kinds is told as its own kind sees it."""
    kind = line.get("kind")
    if kind not in ("header", "record", "footer"):
        return [f"kind {kind!r}"]
    schema = load_schema()
    own = jsonschema.Draft202012Validator({**schema["$defs"][kind], "$defs": schema["$defs"]})
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in own.iter_errors(line)]


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def hold_schema(found: list[dict]) -> None:
    for line in found:
        assert problems(line) == []
        VALIDATOR.validate(line)


def test_the_schema_is_one_itself_and_describes_units():
    jsonschema.Draft202012Validator.check_schema(load_schema())
    assert load_schema()["$defs"]["record"]["additionalProperties"] is False


@pytest.mark.parametrize("name", ["plain_run", "parallel_run"])
def test_every_line_of_a_run_file_holds_the_schema(name, request):
    found = request.getfixturevalue(name).lines
    assert [line["kind"] for line in found] == ["header", *["record"] * 4, "footer"]
    hold_schema(found)


# One suite whose cases come out in every way a case can without a fault of the machine.
EVERY_OUTCOME = """\
@pytest.mark.mlbench(**AXES)
def bench_passes(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES, expect={"latency": {"p50": "<= 1 ns"}})
def bench_fails(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES, exclude=[{"framework": "litert", "reason": "not here"}])
def bench_skipped(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**{**AXES, "framework": ["tflite_runtime"]})
def bench_unavailable(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES)
def bench_invalid(mlbench):
    pass

@pytest.mark.mlbench(**{**AXES, "dataset": None}, expect={"latency": {"p99.upper99": "<= 1 s"}}, batch=[4])
def bench_generated(mlbench):
    mlbench.run()

mlbench_suite["model"].append({"name": "gone", "files": {"tflite": {"fp32": "models/gone.tflite"}}})
@pytest.mark.mlbench(**{**AXES, "model": ["gone"]})
def bench_error(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**{**AXES, "scenario": {**QUICK, "kind": "offline"}}, batch=[1, 8])
def bench_offline(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**{**AXES, "scenario": {**QUICK, "boundary": "end_to_end"}}, threads=[1, 2])
def bench_threads(mlbench):
    mlbench.run()
"""


def test_every_outcome_holds_the_schema_and_so_does_a_resumed_run(project):
    project.python_suite(EVERY_OUTCOME)
    project.run("--mlbench", "--mlbench-output", "one.jsonl")
    first = lines(project.root / "one.jsonl")
    hold_schema(first)
    outcomes = {line["case"].split("[")[0]: line["outcome"] for line in first if line["kind"] == "record"}
    assert outcomes == {
        "py/passes": "pass",
        "py/fails": "fail",
        "py/skipped": "skip",
        "py/unavailable": "skip",
        "py/invalid": "invalid",
        "py/generated": outcomes["py/generated"],  # insufficient or pass, as many readings as the time allowed
        "py/error": "error",
        "py/offline": "pass",
        "py/threads": "pass",
    }
    project.run("--mlbench", "--mlbench-resume", "one.jsonl", "--mlbench-output", "two.jsonl", "-k", "passes or fails")
    second = lines(project.root / "two.jsonl")
    hold_schema(second)
    assert [bool(line["resumed"]) for line in second[1:-1]] == [True, False]


def changed(line: dict, *path: str | int, to: object = ...) -> dict:
    """Return the line with the value at `path` changed, or taken out."""
    line = copy.deepcopy(line)
    at = line
    for step in path[:-1]:
        at = at[step]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return line


@pytest.mark.parametrize(
    ("index", "path", "to"),
    [
        (0, ("schema",), 2),
        (0, ("host", "flags"), ...),
        (0, ("extra",), 1),
        (0, ("source", "dirty"), "no"),
        (0, ("harness_sha256",), "abc"),
        (1, ("outcome",), "passed"),
        (1, ("case",), "no/brackets"),
        (1, ("unknown",), 1),
        (1, ("wall_s",), -1),
        (1, ("axes", "batch"), 0),
        (1, ("metrics", 0, "direction"), "down"),
        (1, ("metrics", 0, "origin"), "guessed"),
        (1, ("metrics", 0, "value"), None),  # without a reason
        (1, ("metrics", 0, "interval"), [1]),
        (1, ("checks", 0, "outcome"), "skip"),
        (1, ("samples", "sample_ns", "kept"), 10_001),
        (1, ("samples", "clock_ns"), 0),
        (1, ("samples",), {}),  # of a case that passed
        (1, ("metrics",), []),
        (1, ("scenario", "boundary"), "inside"),
        (1, ("scenario", "happened", "main", "bounds_ns", 0), [1]),
        (1, ("scenario", "happened", "seeds"), ...),
        (1, ("placement", "precision", "fp32"), 1.5),
        (1, ("hashes", "model"), "abc"),
        (1, ("hashes", "identity"), ...),
        (1, ("environment", "after"), ...),
        (1, ("environment", "before", "load"), "high"),
        (1, ("target", "clock"), ...),
        (1, ("fingerprint",), ""),
        (1, ("started",), "yesterday"),
        (-1, ("exitstatus",), 14),
        (-1, ("deviations",), [{"what": "lost", "name": "a/b[c]", "detail": ""}]),
        (-1, ("deviations",), [{"what": "new", "name": "", "detail": ""}]),
        (-1, ("kind",), "end"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_changed_line_does_not_hold_the_schema(plain_run, index, path, to):
    line = changed(plain_run.lines[index], *path, to=to)
    assert problems(line)
    assert not VALIDATOR.is_valid(line)


def test_an_outcome_other_than_pass_needs_a_reason(plain_run):
    for outcome in ("fail", "skip", "invalid", "insufficient"):
        assert problems(changed(plain_run.lines[1], "outcome", to=outcome))
        assert not problems(changed(changed(plain_run.lines[1], "outcome", to=outcome), "reason", to="why"))


def test_a_footer_may_tell_deviations_from_the_expected_set(plain_run):
    assert not problems(changed(plain_run.lines[-1], "deviations", to=[]))
    told = [{"what": "vanished", "name": "a/b[c]", "detail": "renamed to a/b[d]?"}]
    assert not problems(changed(plain_run.lines[-1], "deviations", to=told))


# --- the facts -----------------------------------------------------------------------------------------


def test_the_header_tells_the_host_the_source_and_the_command(plain_run):
    header = plain_run.run.header
    git = ["git", "-C", str(plain_run.root), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert header["source"]["commit"] == commit
    assert header["source"]["dirty"] is False
    assert header["host"]["node"] == platform.node()
    assert header["host"]["cores_allowed"] >= 1
    if platform.machine() in ("x86_64", "AMD64"):
        assert "sse2" in header["host"]["flags"]
    assert header["arguments"][0] == "--mlbench"
    assert len(header["harness_sha256"]) == 64


def test_uncommitted_changes_are_told(plain_run, project):
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@x.org", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", *command], cwd=project.root, check=True)
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
    project.run("--mlbench", "-k", "nothing", "--mlbench-output", "one.jsonl")
    assert project.read("one.jsonl").header["source"]["dirty"] is True


def test_a_record_tells_target_hashes_environment_and_seeds(plain_run):
    suite = plain_run.root / "suites" / "digits"
    for record in plain_run.run.records:
        target = record.target
        assert target["node"] == platform.node()
        assert target["flags"] == plain_run.run.header["host"]["flags"]
        assert target["clock_resolution_ns"] > 0
        package = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}[record.axes["framework"]]
        assert target["versions"][package]
        for name in ("suite", "model", "loaded", "inputs", "dataset", "agent", "identity"):
            assert record.hashes[name], name
        assert record.hashes["suite"] == digest(suite / "bench_digits.toml")
        assert record.hashes["dataset"] == digest(suite / "data" / "test.npz")
        for moment in ("before", "after"):
            state = record.environment[moment]
            assert {"load", "governor", "frequency_khz", "no_turbo", "temperature_mc"} == set(state)
            assert len(state["load"]) == 3
        assert record.scenario["happened"]["seeds"] == {"order": 0}
        assert record.fingerprint
    onnx = plain_run.run.records[0]
    assert onnx.hashes["model"] == digest(suite / "models" / "digits.onnx")


def digest(path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_metrics_follow_from_the_raw_samples(plain_run):
    for record in plain_run.run.records:
        samples = record.samples
        readings = runfile.decode_samples(samples["sample_ns"])
        assert samples["sample_ns"]["kept"] == samples["sample_ns"]["total"] == len(readings)
        calls = readings / samples["calls"]
        # MLPerf's percentile, L[floor(n p)]: a reading that was taken, never one in between.
        assert record.metric("latency.p50").value == pytest.approx(np.sort(calls)[len(calls) // 2])
        assert record.metric("latency.min").value == pytest.approx(calls.min())
        assert record.metric("latency.mean").value == pytest.approx(calls.mean())
        assert record.metric("throughput").value == pytest.approx(1e9 / calls.mean())
        singles = np.sort(runfile.decode_samples(samples.get("single_ns", samples["sample_ns"])))
        assert record.metric("latency.p99").value == singles[len(singles) * 99 // 100]
        assert record.metric("latency.p99").n == len(singles)


def test_what_happened_is_told(plain_run):
    for record in plain_run.run.records:
        happened, samples = record.scenario["happened"], record.samples
        warm = happened["warm_up"]
        assert warm["samples"] >= 5
        assert warm["duration_ns"] >= 0.01e9
        assert warm["clock_ns"] == samples["clock_ns"] > 0
        assert warm["calls"] == samples["calls"]
        main = happened["main"]
        assert main["blocks"] == len(samples["block_starts"]) == len(main["bounds_ns"])
        assert samples["block_starts"][0] == 0
        assert main["samples"] == samples["sample_ns"]["total"]
        assert main["duration_ns"] == sum(end - begin for begin, end in main["bounds_ns"])
        assert main["timed_ns"] == runfile.decode_samples(samples["sample_ns"]).sum() <= main["duration_ns"]
        assert main["gc"] == {"on_in_block": False, "on_outside": True}
        assert main["used"]["user_ns"] >= 0
        assert record.stages_ns["start"] > 0
        assert record.placement["precision"]
