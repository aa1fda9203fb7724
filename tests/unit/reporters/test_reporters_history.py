"""The history as text: cases by runs, the trend of one case; and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pytest_mlbench.record import Metric
from pytest_mlbench.reporters.history import document, overview, trends
from pytest_mlbench.stats.edivisive import ChangePoint
from pytest_mlbench.stores.api import CaseKey, KeptRun, Point
from pytest_mlbench.trend import Step, Trend, Trends

BEGIN = datetime(2026, 1, 31, 22, 15, tzinfo=timezone.utc)
FP32, INT8 = CaseKey("s/b[fp32]", "0123456789abcdef"), CaseKey("s/b[int8]", "0123456789abcdef")


def run(number, **more):
    known = {"commit": f"{number:x}" * 40, "branch": "main", "dirty": False, "host": "lab", **more}
    return KeptRun(f"run-{number}", BEGIN + timedelta(hours=number), **known)


def point(number, value, outcome="pass", promoted=None, metric=("latency.p50", "ns", "lower"), **more):
    name, unit, direction = metric
    found = None if value is None else Metric(name, value, unit, direction)
    kept = run(number, **more)
    return Point(kept, kept.started, outcome, "", outcome == "pass" if promoted is None else promoted, found)


def found(*made, metric="latency.p50"):
    runs = {one.run.id: one.run for trend in made for one in trend.points}
    return Trends(metric, tuple(sorted(runs.values(), key=lambda one: one.started, reverse=True)), made)


def test_cases_by_runs_stand_with_the_newest_to_the_right():
    one = Trend(FP32, (point(1, 2130.0), point(2, 2310.0)))
    two = Trend(INT8, (point(1, 4_100_000.0), point(2, 4_700_000.0, "fail")))
    assert overview(found(one, two), 80) == [
        "latency.p50, run begun (UTC)  01-31 23:15   02-01 00:15",
        "----------------------------  -----------  ------------",
        "commit                            1111111       2222222",
        "s/b[fp32]                         2.13 us       2.31 us",
        "s/b[int8]                         4.10 ms  4.70 ms fail",
    ]


def test_a_run_without_the_case_leaves_a_gap_and_an_outcome_without_a_value_stands_alone():
    one = Trend(FP32, (point(1, 2130.0), point(3, None, "skip"), point(4, None)))
    two = Trend(INT8, (point(2, 1.0),))
    assert overview(found(one, two), 100)[3:] == [
        "s/b[fp32]                         2.13 us                      skip            -",
        "s/b[int8]                                         1 ns",
    ]


def test_what_does_not_fit_is_left_out_from_the_oldest_and_counted():
    one = Trend(FP32, tuple(point(number, 1000.0 + number) for number in range(6)))
    two = Trend(INT8, (point(5, 7.0),))
    lines = overview(found(one, two), 70)
    assert lines[0].split("  ")[1:] == ["02-01 01:15", "02-01 02:15", "02-01 03:15"]
    assert max(map(len, lines[:-1])) <= 70
    assert lines[-1] == "3 earlier runs left out: wider with COLUMNS=140, all of them with --format json"
    assert len(overview(found(one, two), 200)[0]) > 70
    narrow = overview(found(one, two), 10)
    assert narrow[3].endswith("1.00 us"), "the newest is shown however narrow it is"
    assert narrow[-1].startswith("5 earlier runs left out")


def test_fingerprints_are_shown_where_a_case_has_two_and_rows_that_would_be_empty_are_not():
    old, new = (
        Trend(replace(FP32, fingerprint="aaaaaaaaaaaa"), (point(1, 1.0),)),
        Trend(replace(FP32, fingerprint="bbbbbbbbbbbb"), (point(2, 2.0),)),
    )
    both = overview(found(new, old), 100)
    assert both[0].split()[-5:] == ["fingerprint", "01-31", "23:15", "02-01", "00:15"]
    assert [line.split() for line in both[3:]] == [
        ["s/b[fp32]", "bbbbbbbb", "2", "ns"],
        ["s/b[fp32]", "aaaaaaaa", "1", "ns"],
    ]
    assert [line.split()[1] for line in overview(found(new, old), 50)[3:4]] == ["bbbbbbbb"]
    assert not any("aaaaaaaa" in line for line in overview(found(new, old), 50))


def test_changed_files_are_marked_and_an_unknown_commit_is_a_dash():
    one = Trend(FP32, (point(1, 1.0, commit="", dirty=None), point(2, 2.0, dirty=True)))
    lines = overview(found(one, Trend(INT8, ())), 100)
    assert lines[2].split() == ["commit", "-", "2222222+"]
    assert lines[-1] == "+ behind a commit: tracked files were changed"
    assert trends(found(one))[-1] == lines[-1]


def test_the_trend_of_a_case_tells_steps_and_the_newest_baseline():
    values = [point(1, 2100.0), point(2, 2310.0, "fail"), point(3, 2310.0, promoted=False), point(4, 2310.0)]
    step = Step(values[1], ChangePoint(1, 2100.0, 2310.0, 0.005))
    assert trends(found(Trend(FP32, tuple(values), (step,), "run-4"))) == [
        "s/b[fp32]",
        "fingerprint 0123456789abcdef on lab, 4 records",
        "begun (UTC)          commit   branch  outcome        latency.p50",
        f"-------------------  -------  ------  -------------  -----------  {'-' * 50}",
        "2026-01-31 23:15:00  1111111  main    pass               2.10 us",
        "2026-02-01 00:15:00  2222222  main    fail               2.31 us  "
        "step: +10 %: 2.10 us -> 2.31 us, worse (p = 0.005)",
        "2026-02-01 01:15:00  3333333  main    pass (waived)      2.31 us",
        "2026-02-01 02:15:00  4444444  main    pass               2.31 us  newest baseline",
        "",
        "a step is found once runs of the new level are there: read it, do not gate on it",
    ]


@pytest.mark.parametrize(
    ("metric", "before", "after", "told"),
    [
        (("latency.p50", "ns", "lower"), 200.0, 100.0, "step: -50 %: 200 ns -> 100 ns, better (p = 0.01)"),
        (("throughput", "1/s", "higher"), 200.0, 100.0, "step: -50 %: 200 /s -> 100 /s, worse (p = 0.01)"),
        (("throughput", "1/s", "higher"), 100.0, 200.0, "step: +100 %: 100 /s -> 200 /s, better (p = 0.01)"),
        (("own.metric", "apples", "none"), 4.0, 5.0, "step: +25 %: 4 apples -> 5 apples (p = 0.01)"),
        (("memory.peak", "bytes", "lower"), 0.0, 5.0, "step: 0 B -> 5 B, worse (p = 0.01)"),
    ],
)
def test_a_step_is_better_or_worse_by_the_metrics_direction(metric, before, after, told):
    one = point(1, after, metric=metric)
    trend = Trend(FP32, (one,), (Step(one, ChangePoint(0, before, after, 0.01)),))
    assert trends(found(trend, metric=metric[0]))[4].endswith(told)


def test_trends_of_different_fingerprints_are_told_apart():
    lines = trends(found(Trend(FP32, (point(2, 1.0),)), Trend(CaseKey("s/b[fp32]", ""), (point(1, 2.0, host=""),))))
    assert "fingerprint 0123456789abcdef on lab, 1 record" in lines
    assert "fingerprint unknown, 1 record" in lines
    assert lines[-1] == "values of different fingerprints (machine, versions, options) cannot be compared"


def test_nothing_more_to_tell_leaves_no_blank_line_at_the_end():
    assert trends(found(Trend(FP32, (point(1, 1.0),))))[-1].endswith("1 ns")


def test_the_json_holds_everything_as_values():
    values = (point(1, 2100.0, dirty=None, commit="", branch="", host=""), point(2, None, "skip"), point(3, 2310.0))
    step = Step(values[2], ChangePoint(2, 2100.0, 2310.0, 0.005))
    told = json.loads(
        json.dumps(document("sqlite:///h.db", found(Trend(FP32, values, (step,), "run-3"), Trend(INT8, ()))))
    )
    assert (told["history"], told["metric"]) == ("sqlite:///h.db", "latency.p50")
    one, two = told["series"]
    assert two == {"case": "s/b[int8]", "fingerprint": FP32.fingerprint, "baseline": None, "points": [], "steps": []}
    assert (one["case"], one["baseline"]) == ("s/b[fp32]", "run-3")
    assert one["steps"] == [{"run": "run-3", "before": 2100.0, "after": 2310.0, "p": 0.005}]
    first, second, third = one["points"]
    assert {name: first[name] for name in ("commit", "branch", "dirty", "host")} == dict.fromkeys(
        ("commit", "branch", "dirty", "host")
    )
    assert (second["outcome"], second["metric"]) == ("skip", None)
    assert (third["run"], third["started"], third["commit"]) == ("run-3", "2026-02-01T01:15:00+00:00", "3" * 40)
    page = (Path(__file__).parents[3] / "docs" / "reference" / "history.md").read_text(encoding="utf-8")
    keys = [line.split("|")[1:3] for line in page.partition("## JSON")[2].splitlines() if line.startswith("| `")]
    assert {word for names, _ in keys for word in names.split("`")[1::2]} == set(one)
    for name, inside in (("points", third), ("steps", one["steps"][0])):
        (meaning,) = [text for names, text in keys if f"`{name}`" in names]
        assert set(meaning.split("`")[1::2]) == set(inside)
    assert (third["promoted"], third["metric"]["value"], third["metric"]["unit"]) == (True, 2310.0, "ns")
