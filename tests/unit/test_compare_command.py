"""The verb `mlbench compare`: which files make which side, what is printed, exit codes, bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench.cli import main
from pytest_mlbench.record import Comparison, Metric, Record
from pytest_mlbench.stats.rank_sum import values_needed
from pytest_mlbench.stores import runfile

A, B = "s/b[a]", "s/b[b]"
OLD, NEW = "a" * 40, "b" * 40
JITTER = (0.0, 3.1, -2.2, 4.7)
SLOWER = Comparison(
    "latency.p50",
    "ns",
    "lower",
    "rounds",
    "regressed",
    "latency.p50 is 24 % slower (6.65 us to 8.26 us)",
    base=6650.0,
    candidate=8260.0,
    change=0.242,
    interval=(0.231, 0.2533),
    n=12,
    p=2.0**-12,
    alpha=0.05,
    margin=0.03,
)
AGAINST = {"commit": OLD, "how": "merge base", "ref": "main"}
WAIVER = (
    '[[waiver]]\ncase = "s/b[a]"\nmetric = "latency.p50"\nmax_ratio = 1.2\nreason = "known"\nexpires = 9999-12-31\n'
)


def record(case=A, p50=1000.0, outcome="pass", **more):
    found = (Metric("latency.p50", p50, "ns", "lower"), Metric("throughput", 1e9 / p50, "1/s", "higher"))
    return Record(case, "node", {"model": "m"}, outcome, **{"metrics": found, "fingerprint": "f", **more})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder):
    """Write a run file as a session does."""

    def written(name, *records, hour=1, commit=OLD, footer=None, **header):
        path = folder / f"{name}.jsonl"
        started = f"2026-01-31T{hour:02d}:00:00+00:00"
        source = {"commit": commit, "branch": "main", "dirty": False}
        runfile.begin(path, {"id": f"run-{name}", "started": started, "source": source, **header})
        journal = runfile.Journal(path, "main")
        for one in records:
            journal.append(one)
        runfile.finish(path, {"exitstatus": 0} if footer is None else footer)
        return path.name

    return written


@pytest.fixture
def sides(write):
    """Write four runs of each side, taken in turn; return the files of both."""

    def written(p50=1100.0):
        base = [write(f"old{i}", record(A, 1000 + JITTER[i]), hour=2 * i + 1) for i in range(4)]
        new = [write(f"new{i}", record(A, p50 + JITTER[i]), hour=2 * i + 2, commit=NEW) for i in range(4)]
        return base, new

    return written


@pytest.fixture
def compare(capsys):
    """Run the verb; return its exit code and what it printed on both streams."""

    def run(*arguments):
        code = main(["compare", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def refused(compare):
    """Run the verb on what it must refuse; return the message."""

    def run(*arguments):
        code, out, err = compare(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("mlbench: ")
        return err.removeprefix("mlbench: ").rstrip("\n")

    return run


# --- what is printed --------------------------------------------------------------------------------------------


def test_several_runs_of_each_side(sides, compare):
    base, new = sides()
    code, out, err = compare(base[0], new[0], "--base", *base[1:], "--candidate", *new[1:])
    assert (code, err) == (1, "")
    lines = out.splitlines()
    expires = lines.pop(-2)
    assert lines == [
        f"candidate {NEW[:12]} (4 runs of main)",
        f"against base {OLD[:12]} (4 runs of main)",
        "case    metric          base  candidate          change [95 %]  could see  verdict",
        "------  -----------  -------  ---------  ---------------------  ---------  ---------",
        "s/b[a]  latency.p50  1.00 us    1.10 us  +10 % [+9.3 %, +11 %]      3.9 %  regressed",
        "",
        "s/b[a]",
        "  regressed: latency.p50 is 10 % slower (1.00 us to 1.10 us; 95 % interval +9.3 % to +11 %) against base "
        f"{OLD[:12]} (4 runs of main); limit 3 %, p = 0.014, needed 0.05 in 8 runs",
        "    Find the cause and correct it, or accept it in mlbench-waivers.toml:",
        "    [[waiver]]",
        '    case = "s/b[a]"',
        '    metric = "latency.p50"',
        "    max_ratio = 1.11",
        '    reason = "why this is worth it"',
        "1 comparison of 1 case: 1 regressed",
    ]
    assert expires.startswith("    expires = ")


def test_runs_may_all_stand_behind_their_option(sides, compare):
    base, new = sides(1000.6)
    code, out, _ = compare("--base", *base, "--candidate", *new)
    assert code == 0
    assert out.splitlines()[4].split()[-1] == "pass"
    assert out.splitlines()[-1] == "1 comparison of 1 case: 1 pass"


def test_one_run_of_each_side_is_undecided_and_says_what_would_decide(write, compare):
    code, out, _ = compare(write("old", record()), write("new", record(A, 1100.0)))
    assert code == 10
    assert (
        "  inconclusive: 1 run against 1 can never tell (their smallest p-value is 0.5, and a verdict needs 0.05; 3 "
        f"runs a side could): latency.p50 is 10 % slower (1.00 us to 1.10 us) against base {OLD[:12]} (1 run of main): "
        "that it is no worse than 3 % could not be shown, nor that it is worse. Give more runs of both sides, taken in "
        "turn, or a quieter machine\n"
    ) in out
    assert compare("old.jsonl", "new.jsonl", "--strict")[0] == 1


def test_an_accuracy_is_told_in_points(write, compare):
    base, new = (
        replace(record(), metrics=(Metric("accuracy.top1", hits / 360, "", "higher", n=360),)) for hits in (350, 346)
    )
    code, out, _ = compare(write("old", base), write("new", new))
    assert code == 10
    assert "s/b[a]  accuracy.top1  97.22%     96.11%  -1.11 points [-3.94, +1.63]  2.78 points  inconclusive" in out
    assert (
        "no worse than 0 points could not be shown, nor that it is worse; counts of 360 samples tell a drop of 2.78 "
        "points or more. --mlbench-base compares answer by answer, which tells more\n"
    ) in out
    worse = replace(new, metrics=(Metric("accuracy.top1", 300 / 360, "", "higher", n=360),))
    code, out, _ = compare("old.jsonl", write("worse", worse))
    assert code == 1
    assert "; limit 0 points, p = 6e-11, needed 0.05 in 360 samples\n" in out


def test_cases_of_which_the_same_is_told_stand_together(write, compare):
    base = write("old", record(A), record(B), record("s/b[c]"))
    new = write("new", record(A, fingerprint="g"), record(B, fingerprint="g"), record("s/b[c]", 900.0))
    code, out, _ = compare(base, new)
    assert code == 11
    told = out[out.index("\n\n") + 2 :].splitlines()
    assert told[:2] == [A, B]
    assert told[2].startswith(
        "  invalid: latency.p50: base and candidate are not alike: in what the records do not hold"
    )
    assert told[3] == "s/b[c]"


def test_as_json(sides, write, compare):
    base, new = sides()
    gone = write("old9", record(A, 1007.0), record(B), hour=9)
    code, out, _ = compare("--base", *base, gone, "--candidate", *new, "--format", "json")
    document = json.loads(out)
    assert out.count("\n") == 1
    assert (code, document["exit_code"]) == (1, 1)
    assert document["base"] == ["run-old0", "run-old1", "run-old2", "run-old3", "run-old9"]
    assert document["candidate"] == ["run-new0", "run-new1", "run-new2", "run-new3"]
    ((one),) = document["comparisons"]
    assert (one["case"], one["metric"], one["verdict"], one["method"], one["n"]) == (
        A,
        "latency.p50",
        "regressed",
        "runs",
        9,
    )
    assert one["base_values"] == [1000.0, 1003.1, 997.8, 1004.7, 1007.0]
    assert document["cases"] == [{"case": A, "outcome": "fail", "new": False}]
    assert document["lost"] == [{"what": "vanished", "name": B, "detail": ""}]
    assert document["notes"] == []


def test_what_a_stranger_s_file_says_does_not_steer_the_terminal(write, compare):
    evil = "red \x1b[31m\nsecond line"
    code, out, _ = compare(write("old", record()), write("new", record(outcome="fail", reason=evil)))
    assert code == 1
    assert "not passed in the candidate: s/b[a]: fail: red \\x1b[31m\n" in out
    assert "\x1b" not in out
    code, out, _ = compare(write("held", held(replace(SLOWER, reason="half \ud800 of a character"), outcome="fail")))
    assert code == 1
    assert "  regressed: half \\ud800 of a character against base" in out


# --- exit codes -------------------------------------------------------------------------------------------------


def test_a_case_that_vanished_fails_by_name(write, compare):
    code, out, _ = compare(write("old", record(A), record(B)), write("new", record(A, 1001.0)))
    assert code == 1
    assert (
        "the candidate lacks cases that the base measured; look why, or compare runs of the same suites:\n"
        "  vanished: s/b[b]\n1 comparison of 1 case: 1 inconclusive\n"
    ) in out
    skipped = write("skipped", record(A, 1001.0), Record(B, "node", {}, "skip", "no file"))
    code, out, _ = compare("old.jsonl", skipped)
    assert (code, "  newly skipped: s/b[b]: no file\n" in out) == (1, True)


def test_a_new_case_is_told_and_passes_over(write, compare):
    code, out, _ = compare(write("old", record(A)), write("new", record(A, 1001.0), record(B)))
    assert code == 10
    assert "not in the base, so not compared: s/b[b]\n" in out


def test_no_case_in_common_is_nothing_compared(write, compare):
    code, out, _ = compare(write("old", record(A)), write("new", record(B)))
    assert code == 13
    assert out.startswith("no case is in both, so nothing was compared\n")
    assert "  vanished: s/b[a]" in out
    code, out, _ = compare("old.jsonl", write("none"))
    assert code == 13


def test_cases_that_were_skipped_on_both_sides_are_nothing_compared(write, compare):
    skip = Record(A, "node", {}, "skip", "no file")
    code, out, _ = compare(write("old", skip), write("new", skip))
    assert code == 13
    assert "skipped: s/b[a]: no file\n0 comparisons of 1 case: none\n" in out
    assert compare("old.jsonl", write("measured", record()))[0] == 13


@pytest.mark.parametrize(
    ("outcome", "stage", "code"),
    [("fail", "", 1), ("error", "suite", 1), ("error", "load", 12), ("invalid", "", 11), ("insufficient", "", 10)],
)
def test_a_candidate_that_did_not_pass_ends_as_a_session_would(write, compare, outcome, stage, code):
    new = write("new", replace(record(A, 1001.0, outcome), stage=stage), record(B, 1001.0))
    assert compare(write("old", record(A), record(B)), new)[0] == code


def test_the_worst_comes_first(write, compare):
    base = write("old", record(A), record(B))
    assert compare(base, write("one", record(A, 1001.0, fingerprint="g"), record(B, outcome="error")))[0] == 12
    assert compare(base, write("two", record(A, 1001.0, fingerprint="g"), record(B, outcome="insufficient")))[0] == 11
    assert compare(base, write("three", record(A, 1001.0, fingerprint="g")))[0] == 1, "a case is gone"


# --- limits -----------------------------------------------------------------------------------------------------


def test_the_margin_and_further_metrics_are_given(sides, write, compare):
    base, new = sides()
    assert compare("--base", *base, "--candidate", *new, "--max-regression", "20 %")[0] == 0
    code, out, _ = compare("--base", *base, "--candidate", *new, "--max-regression", "20 %", "--metric", "throughput")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[4:6]] == ["latency.p50", "throughput"]


def test_waivers_of_the_folder_or_of_a_file_are_honoured(sides, folder, compare):
    base, new = sides()
    (folder / "accepted.toml").write_text(WAIVER)
    assert compare("--base", *base, "--candidate", *new)[0] == 1
    code, out, _ = compare("--base", *base, "--candidate", *new, "--waivers", "accepted.toml")
    assert code == 0
    assert "waived: s/b[a] latency.p50: known\n" in out
    (folder / "accepted.toml").rename(folder / "mlbench-waivers.toml")
    assert compare("--base", *base, "--candidate", *new)[0] == 0


# --- one run ----------------------------------------------------------------------------------------------------


def held(*comparisons, case=A, outcome="pass", **more):
    return record(case, outcome=outcome, comparisons=comparisons, base=AGAINST, **more)


def test_one_run_shows_what_it_was_compared_with(write, compare):
    passed = replace(SLOWER, verdict="pass", change=0.001, interval=(-0.002, 0.004))
    path = write(
        "new", held(SLOWER, outcome="fail", reason="x"), held(passed, case=B), commit=NEW, footer={"exitstatus": 1}
    )
    code, out, _ = compare(path)
    assert code == 1
    lines = out.splitlines()
    assert lines[:2] == [f"candidate {NEW[:12]} (1 run of main)", f"against base {OLD[:12]} (merge base of main)"]
    assert [line.split()[-1] for line in lines[4:6]] == ["regressed", "pass"]
    assert (
        f"s/b[a]\n  regressed: latency.p50 is 24 % slower (6.65 us to 8.26 us) against base {OLD[:12]} (merge base of "
        "main); limit 3 %, p = 0.00024, needed 0.05 in 12 confirming rounds\n"
    ) in out
    assert "not passed" not in out, "that it regressed is said already"
    assert lines[-1] == "2 comparisons of 2 cases: 1 regressed, 1 pass"
    document = json.loads(compare(path, "--format", "json")[1])
    assert (document["base"], document["candidate"], document["exit_code"]) == ([], ["run-new"], 1)
    assert [one["method"] for one in document["comparisons"]] == ["rounds", "rounds"]


@pytest.mark.parametrize(("verdict", "code", "strict"), [("pass", 0, 0), ("inconclusive", 10, 1), ("invalid", 11, 11)])
def test_one_run_ends_as_its_comparisons_do(write, compare, verdict, code, strict):
    one = replace(SLOWER, verdict=verdict)
    path = write("new", held(one, outcome="invalid" if verdict == "invalid" else "pass"), footer={"exitstatus": code})
    assert compare(path)[0] == code
    assert compare(path, "--strict")[0] == strict


def test_what_the_session_knew_besides_is_not_lost(write, compare):
    one = replace(SLOWER, verdict="pass")
    code, out, _ = compare(write("new", held(one), footer={"exitstatus": 1}))
    assert code == 1
    assert "the session itself ended with exit code 1: it also knew of what its file does not hold\n" in out
    code, out, _ = compare(write("killed", held(one), footer={"exitstatus": None}))
    assert code == 12
    assert "the session was killed: what it had finished is shown\n" in out
    assert compare(write("stopped", held(one), footer={"exitstatus": 2}))[0] == 2
    for odd in ("1", True, 1.5, -1, 10**9, [1]):
        assert compare(write("odd", held(one), footer={"exitstatus": odd}))[0] == 0


def test_cases_that_the_session_lost_are_told_by_name(write, compare, refused):
    one = replace(SLOWER, verdict="pass")
    lost = [{"what": "vanished", "name": B, "detail": "renamed to s/b[c]?"}]
    code, out, _ = compare(write("new", held(one), footer={"exitstatus": 1, "lost": lost}))
    assert code == 1
    assert "compare runs of the same suites:\n  vanished: s/b[b]: renamed to s/b[c]?\n1 comparison" in out
    assert "the session itself" not in out
    for odd in (3, {"what": "vanished"}, [{"what": "eaten", "name": B, "detail": ""}], [[]], [{**lost[0], "name": 5}]):
        message = refused(write("odd", held(one), footer={"exitstatus": 1, "lost": odd}))
        assert message.startswith("odd.jsonl: the footer of the run: lost: ")
        assert message.endswith(" is no case that was lost")


def test_what_failed_besides_is_told(write, compare):
    one = replace(SLOWER, verdict="pass")
    failed = held(one, outcome="fail", reason="latency.p99: 9 ms, limit <= 5 ms")
    code, out, _ = compare(write("new", failed, record(B, outcome="error", stage="load", reason="load: gone")))
    assert code == 1
    assert (
        "not passed: s/b[a]: fail: latency.p99: 9 ms, limit <= 5 ms\nnot passed: s/b[b]: error(load): load: gone\n"
        in out
    )


def test_huge_numbers_in_a_comparison_are_shown(write, compare):
    huge = replace(SLOWER, base=1e308, candidate=1e-308, change=1e308, interval=(-1e308, 1e308), p=1e308, n=10**300)
    code, out, _ = compare(write("new", held(huge, outcome="fail")))
    assert code == 1
    assert "Find the cause and correct it; a waiver accepts no ratio that is not known" in out


# --- bad input --------------------------------------------------------------------------------------------------


def test_a_run_without_a_base_holds_no_comparison(write, refused):
    assert refused(write("new", record())) == (
        "new.jsonl: it was measured without --mlbench-base, so it holds no comparison; give two runs: mlbench compare "
        "BASE CANDIDATE"
    )


def test_options_that_mean_nothing_for_one_run_are_refused(write, refused):
    path = write("new", held(SLOWER, outcome="fail"))
    assert refused(path, "--metric", "throughput", "--max-regression", "1 %", "--waivers", "w.toml") == (
        "--max-regression, --metric, --waivers: one run was judged by the limits of its session; give two runs"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the candidate's run: mlbench compare BASE CANDIDATE"),
        (["--base", "a"], "name the candidate's run: mlbench compare BASE CANDIDATE"),
        (["--candidate", "a", "b"], "name a run of the base too: mlbench compare BASE CANDIDATE, or --base FILE ..."),
        (["a", "--candidate", "b"], "name a run of the base too: mlbench compare BASE CANDIDATE, or --base FILE ..."),
        (
            ["a", "b", "c"],
            "3 runs without a side: name one of each, BASE CANDIDATE, and more with --base FILE ... and "
            "--candidate FILE ...",
        ),
    ],
)
def test_sides_that_cannot_be_told_are_refused(refused, arguments, message):
    assert refused(*arguments) == message


def test_one_positional_run_is_the_candidate_s(sides, compare):
    base, new = sides()
    assert compare(new[0], "--base", *base, "--candidate", *new[1:])[0] == 1


def test_the_same_run_twice_is_refused(write, folder, refused):
    path = write("old", record())
    (folder / "copy.jsonl").write_bytes((folder / path).read_bytes())
    why = "it cannot be compared with itself, and counted twice it would only look more certain; name each run once"
    assert refused(path, "copy.jsonl") == f"copy.jsonl and old.jsonl are the same run, run-old: {why}"
    assert refused(path, path) == f"old.jsonl and old.jsonl are the same run, run-old: {why}"


def nested(depth):
    return '{"kind":"header","schema":1,"id":"x","deep":' + "[" * depth + "]" * depth + "}\n"


HEADER = '{"kind":"header","schema":1,"id":"x","started":"2026-01-31T12:00:00+00:00"}\n'
ONE = '{"kind":"record","case":"s/b[a]","node":"n","axes":{},"outcome":"pass","metrics":[%s]}\n'
METRIC = '{"name":"latency.p50","unit":"ns","direction":"lower","value":%s}'
FOOTER = '{"kind":"footer"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + ONE % "", "bad.jsonl: it has no footer, so it was cut off; copy it again, or measure again"),
        (HEADER + (ONE % "")[:35], "bad.jsonl, line 2: not JSON: Unterminated string"),
        (HEADER.replace(":1,", ":2,"), "bad.jsonl has schema 2, this version reads up to 1; upgrade pytest-mlbench"),
        (nested(60) + FOOTER, "bad.jsonl, line 1: not JSON: nested deeper than 40 levels"),
        (nested(100_000) + FOOTER, "bad.jsonl"),
        (HEADER + ONE % (METRIC % "NaN") + FOOTER, "bad.jsonl, line 2: not JSON: NaN is no number of JSON"),
        (HEADER + ONE % (METRIC % "1e999") + FOOTER, "bad.jsonl, line 2: not JSON: 1e999 is no number of JSON"),
        (
            HEADER + ONE % (METRIC % ("9" * 400)) + FOOTER,
            "bad.jsonl holds a record that is not one: metrics[0].value: expected a finite number",
        ),
        (
            HEADER + ONE % ",".join([METRIC % "1"] * 2) + FOOTER,
            "bad.jsonl: run x: record 1: metric 'latency.p50' is there twice",
        ),
        (
            HEADER.replace('"x"', '"x\\u001b"') + FOOTER,
            "bad.jsonl: the header of the run: id: 'x\\x1b' holds characters that cannot be printed",
        ),
        ("{}", "bad.jsonl is none of the formats that can be read (run, pytest-benchmark, pyperf, google-benchmark): "),
        ("", "bad.jsonl: not JSON: "),
    ],
)
def test_a_file_that_is_no_run_is_refused_with_its_place(write, folder, refused, text, message):
    good = write("good", record())
    (folder / "bad.jsonl").write_text(text)
    for arguments in ((good, "bad.jsonl"), ("bad.jsonl", good), ("bad.jsonl",)):
        assert refused(*arguments).startswith(message)


def test_a_case_that_stands_twice_in_a_run_is_refused(write, refused):
    twice = write("twice", record(), record())
    assert (
        refused(write("good", record()), twice)
        == "the run run-twice holds the case s/b[a] twice; give the file as it was made"
    )


def test_what_cannot_be_opened_is_refused(write, folder, refused):
    good = write("good", record())
    (folder / "empty").mkdir()
    (folder / "secret.bin").write_bytes(b"\xff\xfe")
    folder_told = "empty: it is a folder; name a run file, or the .parts folder that a killed run left"
    assert refused(good, "empty") == folder_told
    assert refused(good, "gone.jsonl").startswith("cannot read gone.jsonl: ")
    assert refused(good, "secret.bin").startswith("secret.bin: not JSON: ")
    assert refused(good, "/dev/zero") == "cannot read /dev/zero: it is no regular file"
    long = "x" * 5000
    assert "File name too long" in refused(good, long)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--max-regression", "3", '--max-regression: "3" has not the unit "%"; write for example "3 %"'),
        ("--max-regression", "120 %", '--max-regression: "120 %" must be below 100 %: no value is so much worse'),
        ("--max-regression", "-1 %", '--max-regression: "-1 %" must be at least 0 %'),
        ("--max-regression", "nan %", '--max-regression: "nan %" does not begin with a number'),
        ("--waivers", "gone.toml", "--waivers: there is no file gone.toml"),
        ("--metric", "latency.p51", '--metric latency.p51: unknown metric "latency.p51"; did you mean "latency.p50"?'),
    ],
)
def test_options_that_cannot_be_meant_are_refused(write, refused, option, value, message):
    assert refused(write("old", record()), write("new", record()), f"{option}={value}").startswith(message)


def test_a_broken_file_of_waivers_is_refused(write, folder, refused):
    (folder / "mlbench-waivers.toml").write_text("[waiver]\n")
    assert refused(write("old", record()), write("new", record())).startswith(
        "mlbench-waivers.toml: waiver: expected a list"
    )


# --- other files ------------------------------------------------------------------------------------------------


def test_a_killed_run_is_compared_by_what_it_had_finished(write, folder, compare):
    path = folder / "killed.jsonl"
    runfile.begin(path, {"id": "killed", "started": "2026-01-31T12:00:00+00:00"})
    runfile.Journal(path, "main").append(record(A, 1001.0))
    for name in ("killed.jsonl", "killed.jsonl.parts"):
        code, out, _ = compare(write("old", record(), record(B)), name)
        assert code == 1, "the case that it had not finished is missing"
        assert "the candidate's run killed was killed: it has the cases that it had finished\n" in out
        assert "  vanished: s/b[b]\n" in out


def test_results_of_another_tool_are_compared(folder, compare):
    def google(name, times):
        runs = [
            {
                "name": "BM_a",
                "run_name": "BM_a",
                "run_type": "iteration",
                "repetitions": len(times),
                "threads": 1,
                "repetition_index": i,
                "iterations": 100,
                "real_time": time,
                "cpu_time": time,
                "time_unit": "ns",
            }
            for i, time in enumerate(times)
        ]
        context = {"date": "2026-01-31T12:00:00+00:00", "host_name": "lab", "num_cpus": 2, "library_version": "1.9"}
        (folder / name).write_text(json.dumps({"context": context, "benchmarks": runs}))
        return name

    code, out, _ = compare(google("old.json", [10.0, 11.0]), google("new.json", [20.0, 21.0]))
    assert code == 10
    assert "imported/BM_a[google-benchmark]  latency.p50" in out
    assert "latency.p50 is 95 % slower (10.5 ns to 20.5 ns) against the base" in out


def test_the_command_s_start_imports_neither_numpy_nor_pytest():
    code = "import sys, pytest_mlbench.compare_command\nprint(sorted({'numpy', 'pytest'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_the_documentation_tells_how_many_runs_it_takes():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "compare-runs.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+)(?:(?:,| to) (\d+))? \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 6
    for first, last, runs in rows:
        assert {values_needed(0.05 / int(many)) for many in (first, last or first)} == {int(runs)}
    assert values_needed(0.05 / (int(rows[-1][1]) + 1)) == int(rows[-1][2]) + 1
