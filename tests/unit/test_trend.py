"""The trend of a case: which records make it, where it steps, and what is said of what is not there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.record import Metric, Record
from pytest_mlbench.stores.api import CaseKey, KeptRun, Point
from pytest_mlbench.stores.runfile import Run
from pytest_mlbench.stores.url import open_store
from pytest_mlbench.trend import Trends, look_up, steps_of, value_of

BEGIN = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)
FP32, INT8 = "digits/classify[cnn-ort-fp32-cpu]", "digits/classify[cnn-ort-int8-cpu]"
# Two levels with a spread of about 1 %, 8 % apart.
LOW = (2100.0, 2113.0, 2091.0, 2107.0, 2122.0, 2085.0, 2110.0, 2098.0)
HIGH = (2270.0, 2281.0, 2255.0, 2262.0, 2290.0, 2268.0, 2277.0, 2259.0)


def point(number, value, outcome="pass", **more):
    run = KeptRun(f"run-{number}", BEGIN + timedelta(hours=number), "abc", "main", False, "lab")
    metric = None if value is None else Metric("latency.p50", value, "ns", "lower")
    return Point(run, run.started, outcome, "", outcome == "pass", metric, **more)


def points(*values):
    return [point(number, value) for number, value in enumerate(values)]


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path / 'h.db'}", create=True, wait_s=3)
    yield opened
    opened.close()


def add(store, number, *records):
    started = (BEGIN + timedelta(hours=number)).isoformat()
    store.add(Run({"id": f"run-{number:03}", "started": started}, records))


def record(value, case=FP32, outcome="pass", fingerprint="f", name="latency.p50"):
    metrics = () if value is None else (Metric(name, value, "ns", "lower"),)
    return Record(case, "node", {}, outcome, metrics=metrics, fingerprint=fingerprint)


# --- steps --------------------------------------------------------------------------------------------------


def test_a_step_is_at_the_first_record_of_the_new_level():
    (step,) = steps_of(points(*LOW, *HIGH))
    assert step.point.run.id == f"run-{len(LOW)}"
    assert LOW[0] * 0.98 < step.found.before < 2120 < 2250 < step.found.after < 2290
    assert step.found.p <= 0.05


@pytest.mark.parametrize(
    "values", [(), LOW[:1], LOW, (*LOW, 2500.0, *LOW), (*LOW, *HIGH[:1])], ids=["none", "one", "level", "spike", "last"]
)
def test_noise_spikes_and_the_newest_record_alone_are_no_step(values):
    assert steps_of(points(*values)) == ()


@pytest.mark.parametrize("outcome", ["invalid", "insufficient", "error", "skip"])
def test_records_that_are_not_to_be_believed_have_no_part_in_a_step(outcome):
    odd = [replace(one, outcome=outcome) for one in points(*HIGH)]
    assert steps_of([*points(*LOW), *odd]) == ()
    among = [one for pair in zip(points(*LOW, *HIGH), [*odd, *odd], strict=True) for one in pair]
    assert [step.point.metric.value for step in steps_of(among)] == [HIGH[0]]


def test_a_failed_record_was_measured_and_an_unmeasured_one_was_not():
    failed = [replace(one, outcome="fail") for one in points(*HIGH)]
    unmeasured = [
        point(50, None),
        replace(point(51, 1.0), metric=Metric("latency.p50", None, "ns", "lower", reason="-")),
    ]
    assert [value_of(one) for one in unmeasured] == [None, None]
    assert len(steps_of([*points(*LOW), *unmeasured, *failed])) == 1


# --- looking up ---------------------------------------------------------------------------------------------


def test_one_case_has_its_steps_and_its_baseline(store):
    for number, value in enumerate((*LOW, *HIGH)):
        add(store, number, record(value), record(value, INT8))
    add(store, 99, record(9999.0, outcome="fail"), record(1.0, INT8))
    found = look_up(store, "*fp32*", "latency.p50", 30)
    assert found.case == FP32
    (trend,) = found.trends
    assert [value_of(one) for one in trend.points] == [*LOW, *HIGH, 9999.0]
    assert [step.point.metric.value for step in trend.steps] == [HIGH[0]]
    assert trend.baseline == "run-015"
    short = look_up(store, FP32, "latency.p50", 3)
    assert [value_of(one) for one in short.trends[0].points] == [*HIGH[-2:], 9999.0]
    assert [run.id for run in short.runs] == ["run-099", "run-015", "run-014"]


def test_among_many_cases_no_steps_are_looked_for(store):
    for number, value in enumerate((*LOW, *HIGH)):
        add(store, number, record(value), record(value, INT8))
    found = look_up(store, "*", "latency.p50", 30)
    assert found.case is None
    assert [(trend.key.case, trend.steps, trend.baseline) for trend in found.trends] == [(FP32, (), ""), (INT8, (), "")]


def test_each_fingerprint_is_a_trend_of_its_own(store):
    for number, value in enumerate((*LOW, *HIGH)):
        add(store, number, record(value, fingerprint="old" if number < len(LOW) else "new"))
    found = look_up(store, FP32, "latency.p50", 30)
    assert [trend.key.fingerprint for trend in found.trends] == ["new", "old"]
    assert [len(trend.points) for trend in found.trends] == [len(HIGH), len(LOW)]
    assert [trend.steps for trend in found.trends] == [(), ()], "another machine is no step"
    assert found.case == FP32


def test_records_without_a_fingerprint_stand_in_the_newest_trend(store):
    add(store, 1, record(1.0, fingerprint="old"))
    add(store, 2, record(None, outcome="skip", fingerprint=""))
    add(store, 3, record(3.0, fingerprint="new"))
    add(store, 4, record(None, outcome="error", fingerprint=""), record(None, INT8, "skip", ""))
    found = {trend.key: trend for trend in look_up(store, "*", "latency.p50", 30).trends}
    assert list(found) == [CaseKey(FP32, "new"), CaseKey(FP32, "old"), CaseKey(INT8, "")]
    assert [one.outcome for one in found[CaseKey(FP32, "new")].points] == ["skip", "pass", "error"]
    assert [one.outcome for one in found[CaseKey(FP32, "old")].points] == ["pass"]
    newest = look_up(store, FP32, "latency.p50", 2).trends[0]
    assert [one.outcome for one in newest.points] == ["pass", "error"], "no more than were asked for"


def test_a_metric_nobody_could_measure_is_shown_as_such(store):
    unmeasured = Metric("memory.peak", None, "bytes", "lower", reason="no counter")
    add(store, 1, replace(record(1.0), metrics=(unmeasured,)))
    (trend,) = look_up(store, "*", "memory.peak", 30).trends
    assert trend.points[0].metric == unmeasured


# --- what is not there --------------------------------------------------------------------------------------


def refused(store, cases="*", metric="latency.p50"):
    with pytest.raises(MlbenchError) as caught:
        look_up(store, cases, metric, 30)
    return str(caught.value)


def test_an_empty_history_says_how_to_fill_it(store):
    assert refused(store) == f"the history {store.place} has no record yet: mlbench import RUN_FILE"


def test_an_unknown_case_has_a_near_match(store):
    add(store, 1, record(1.0), record(2.0, INT8))
    wrong = FP32.replace("fp32", "fp23")
    told = refused(store, wrong)
    assert told.startswith(f'the history {store.place}: unknown case "{wrong}"; did you mean "{FP32}"? Known cases: ')
    told = refused(store, "int8")
    assert f"unknown case \"int8\". Known cases: {FP32}, {INT8}; a part of a case id takes stars: '*int8*'" in told
    assert refused(store, "*fp64*").endswith(f'unknown case "*fp64*". Known cases: {FP32}, {INT8}')


def test_an_unknown_metric_has_a_near_match(store):
    add(store, 1, record(1.0), record(2.0, INT8, name="latency.p99"))
    told = refused(store, metric="latency.p9")
    assert told.startswith(f'the history {store.place}: unknown metric "latency.p9"; did you mean "latency.p')
    assert told.endswith("Known metrics: latency.p50, latency.p99")
    assert refused(store, INT8).endswith('did you mean "latency.p99"? Known metrics: latency.p99')


def test_more_than_one_case_is_no_case():
    assert Trends("m", (), ()).case is None
