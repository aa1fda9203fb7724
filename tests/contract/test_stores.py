"""What every store promises, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from pytest_mlbench.errors import RunFileError
from pytest_mlbench.record import Comparison, Metric, Record
from pytest_mlbench.stores.api import CaseKey
from pytest_mlbench.stores.runfile import Run
from pytest_mlbench.stores.url import open_store

BEGIN = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)
FP32, INT8 = "digits/classify[cnn-ort-fp32-cpu]", "digits/classify[cnn-ort-int8-cpu]"
REGRESSED = Comparison("latency.p50", "ns", "lower", "rounds", "regressed", change=0.1)


def metric(value=2000.0, name="latency.p50", **more):
    return Metric(name, value, "ns", "lower", **{"n": 64, "interval": (1900.0, 2100.0), "confidence": 0.95, **more})


def record(case=FP32, *metrics, outcome="pass", fingerprint="0123456789abcdef", **more):
    return Record(case, f"node::{case}", {}, outcome, metrics=metrics or (metric(),), fingerprint=fingerprint, **more)


def run(number, *records, **header):
    """Return the run of hour `number`; its records began at the same time unless they say another."""
    whole = {
        "kind": "header",
        "schema": 1,
        "id": f"20260131T{number:06d}-00000000",
        "started": (BEGIN + timedelta(hours=number)).isoformat(),
        "source": {"commit": f"{number:040x}", "dirty": number % 2 == 1, "branch": "main"},
        "host": {"node": "lab-1"},
        **header,
    }
    return Run(whole, records or (record(),))


def key(case=FP32, fingerprint="0123456789abcdef"):
    return CaseKey(case, fingerprint)


@pytest.fixture
def store(history_url):
    opened = open_store(history_url, create=True, wait_s=3)
    yield opened
    opened.close()


def values(store, of=None, **more):
    (points,) = store.series([of or key()], "latency.p50", **more).values()
    return [point.metric.value for point in points]


# --- keeping ------------------------------------------------------------------------------------------------


def test_a_run_is_kept_with_everything_that_is_asked_for(store):
    top1 = Metric("accuracy.top1", 0.975, "", "higher", "derived", note="of 360")
    unmeasured = Metric("memory.peak", None, "bytes", "lower", reason="no counter here")
    first = record(FP32, metric(2130.5), top1, unmeasured, started="2026-01-31T13:00:07.250+02:00")
    assert store.add(run(1, first, record(INT8, outcome="fail", reason="too\nslow ü"))).records == 2
    (kept,) = store.runs()
    assert (kept.id, kept.started) == ("20260131T000001-00000000", BEGIN + timedelta(hours=1))
    assert (kept.commit, kept.branch, kept.dirty, kept.host) == (f"{1:040x}", "main", True, "lab-1")
    found = store.series([key(), key(INT8)], "latency.p50")
    (good,), (bad,) = found[key()], found[key(INT8)]
    assert good.run == bad.run == kept
    assert good.metric == metric(2130.5)
    assert good.started == datetime(2026, 1, 31, 11, 0, 7, 250_000, tzinfo=timezone.utc)
    assert (good.outcome, good.reason, good.promoted) == ("pass", "", True)
    assert (bad.outcome, bad.reason, bad.promoted) == ("fail", "too\nslow ü", False)
    assert bad.started == kept.started, "a record without a time has its run's"
    assert store.latest([key()])[key()].metrics == {m.name: m for m in first.metrics}


def test_what_a_header_does_not_tell_is_unknown_and_not_false(store):
    store.add(run(1, source={}, host={}))
    (kept,) = store.runs()
    assert (kept.commit, kept.branch, kept.dirty, kept.host) == ("", "", None, "")


def test_the_same_run_again_changes_nothing(store):
    once = run(1, record(), record(INT8))
    assert [store.add(once).already for _ in range(3)] == [False, True, True]
    again = replace(once, header=dict(reversed(once.header.items())), footer={"kind": "footer", "exitstatus": 0})
    assert store.add(again, file_sha256="0" * 64).already, "neither the order of keys nor the footer is content"
    assert len(store.runs()) == 1
    assert values(store) == [2000.0]


@pytest.mark.parametrize(
    "other",
    [run(1, record(FP32, metric(1999.0))), run(1, record(), record(INT8)), run(1, host={"node": "lab-2"})],
    ids=["value", "records", "header"],
)
def test_the_same_id_with_other_content_is_refused(store, other):
    store.add(run(1))
    with pytest.raises(RunFileError) as caught:
        store.add(other)
    assert str(caught.value) == (
        f"the history {store.place} has a run 20260131T000001-00000000 with other content: one of the two files was "
        "changed after it was written; import the original"
    )
    assert values(store) == [2000.0]
    assert store.runs()[0].host == "lab-1"


def test_a_run_without_records_is_kept_and_belongs_to_no_case(store):
    assert store.add(Run(run(1).header, ())).records == 0
    assert store.runs() == ()
    assert store.add(Run(run(1).header, ())).already


def test_a_history_outlives_its_store(store, history_url):
    store.add(run(1))
    store.close()
    again = open_store(history_url, create=False, wait_s=3)
    assert values(again) == [2000.0]
    again.close()


# --- asking -------------------------------------------------------------------------------------------------


def test_a_series_has_the_latest_records_oldest_first_whatever_the_order_of_imports(store):
    for number in (3, 1, 5, 2, 4):
        store.add(run(number, record(FP32, metric(float(number)))))
    assert values(store) == [1, 2, 3, 4, 5]
    assert values(store, limit=2) == [4, 5]
    assert [kept.id[9:15] for kept in store.runs(limit=3)] == ["000005", "000004", "000003"]


def test_records_of_other_fingerprints_are_another_series(store):
    store.add(run(1, record(fingerprint="aaaa"), record(INT8, fingerprint="aaaa")))
    store.add(run(2, record(FP32, metric(3.0), fingerprint="bbbb")))
    store.add(run(3, record(FP32, metric(4.0), fingerprint="")))
    assert values(store, key(FP32, "bbbb")) == [3]
    newest_first = (key(FP32, ""), key(FP32, "bbbb"), key(FP32, "aaaa"), key(INT8, "aaaa"))
    assert store.cases(store.runs()) == newest_first
    assert store.cases(store.runs(limit=2)) == newest_first[:2]
    assert store.series([key(INT8, "bbbb")], "latency.p50") == {}


def test_a_metric_that_a_record_lacks_leaves_a_point_without_it(store):
    store.add(run(1, record(FP32, metric(name="latency.p99"))))
    store.add(run(2, record(FP32, outcome="error", reason="crash")))
    (points,) = store.series([key()], "latency.p99").values()
    assert [(point.outcome, point.metric and point.metric.name) for point in points] == [
        ("pass", "latency.p99"),
        ("error", None),
    ]
    newest, oldest = store.runs()
    assert (store.metric_names(oldest), store.metric_names(newest)) == (("latency.p99",), ("latency.p50",))
    assert store.metric_names(newest, INT8) == ()


@pytest.mark.parametrize(
    ("pattern", "cases"),
    [
        ("*", {FP32, INT8, "Digits/classify[cnn-ort-fp32-cpu]", "a_b/x[y%]", "aXb/x[yy]"}),
        (FP32, {FP32}),
        ("digits/*", {FP32, INT8}),
        ("*-int8-*", {INT8}),
        ("digits/classify[cnn-ort-????-cpu]", {FP32, INT8}),
        ("digits/classify[cnn-ort-[if]*", set()),
        ("a_b/*", {"a_b/x[y%]"}),
        ("*y%]", {"a_b/x[y%]"}),
        ("*\\*", set()),
        ("digits", set()),
    ],
)
def test_a_pattern_has_stars_and_question_marks_and_nothing_else(store, pattern, cases):
    names = (FP32, INT8, "Digits/classify[cnn-ort-fp32-cpu]", "a_b/x[y%]", "aXb/x[yy]")
    store.add(run(1, *(record(name) for name in names)))
    assert {key.case for key in store.cases(store.runs(), pattern)} == cases
    assert len(store.runs(pattern)) == (1 if cases else 0)


def test_the_latest_runs_are_those_that_have_such_a_case(store):
    store.add(run(1, record(INT8)))
    for number in (2, 3):
        store.add(run(number))
    assert [kept.id[9:15] for kept in store.runs("*int8*", limit=2)] == ["000001"]


def test_a_resumed_record_counts_once_where_it_was_measured(store):
    taken = record(FP32, metric(5.0), started=(BEGIN + timedelta(hours=1)).isoformat())
    store.add(run(2, replace(taken, resumed=run(1).header["id"])))
    assert values(store) == [5], "the run it was taken from is not kept"
    store.add(run(1, taken))
    (points,) = store.series([key()], "latency.p50").values()
    assert [point.run.id for point in points] == [run(1).header["id"]]
    assert store.latest([key()])[key()].run.id == run(1).header["id"]


# --- baselines ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unfit",
    [
        *(record(FP32, metric(9.0), outcome=word) for word in ("fail", "skip", "invalid", "insufficient", "error")),
        record(FP32, metric(9.0), comparisons=(REGRESSED,), outcome="fail"),
        record(FP32, metric(9.0), comparisons=(replace(REGRESSED, waived="known, see #1"),)),
    ],
    ids=lambda one: f"{one.outcome}{len(one.comparisons)}",
)
def test_what_did_not_pass_or_regressed_is_never_a_baseline(store, unfit):
    store.add(run(1))
    store.add(run(2, unfit))
    assert store.latest([key()])[key()].metrics["latency.p50"].value == 2000.0
    assert values(store) == [2000, 9]


@pytest.mark.parametrize("verdict", ["pass", "improved", "inconclusive"])
def test_what_passed_without_a_regression_is_one(store, verdict):
    store.add(run(1, record(FP32, metric(7.0), comparisons=(replace(REGRESSED, verdict=verdict),))))
    assert store.latest([key()])[key()].metrics["latency.p50"].value == 7


def test_baselines_of_many_cases_at_once_each_of_its_own_fingerprint(store):
    names = [f"s/b[c{number}]" for number in range(50)]
    for hour in (1, 2):
        store.add(run(hour, *(record(name, metric(hour * 100.0 + i)) for i, name in enumerate(names))))
    store.add(run(3, *(record(name, metric(1.0), fingerprint="other") for name in names)))
    found = store.latest([*map(key, names), key("s/b[unknown]"), key(names[0], "unknown")])
    assert {one.case: base.metrics["latency.p50"].value for one, base in found.items()} == {
        name: 200 + i for i, name in enumerate(names)
    }
    many = store.series([*map(key, names), key("s/b[unknown]")], "latency.p50")
    assert [point.metric.value for point in many[key(names[7])]] == [107, 207]
    assert len(many) == 50
    assert store.latest([]) == store.series([], "latency.p50") == {}


# --- what cannot be kept ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (run(1, id=None), "the header of the run: id: expected a string, found NoneType"),
        (run(1, id="x" * 201), "the header of the run: id: expected 1 to 200 characters, found 201"),
        (run(1, id="a\x1b[31m"), "the header of the run: id: 'a\\x1b[31m' holds characters that cannot be printed"),
        (run(1, started=5), "the header of the run: started: expected a time like 2026-01-31T12:00:00+00:00, found 5"),
        (run(1, started="2026-01-31T12:00:00"), "started: expected a time like"),
        (run(1, started="0001-01-01T00:00:00+05:00"), "started: expected a time like"),
        (run(1, source=[1]), "the header of the run: source: expected an object, found list"),
        (run(1, source={"commit": 5}), "source.commit: expected a string, found int"),
        (run(1, source={"dirty": "no"}), "source.dirty: expected true or false, found str"),
        (run(1, host={"node": {}}), "host.node: expected a string, found dict"),
        (run(1, schema=10**30), "the header of the run: schema: expected a whole number from 0 to"),
        (run(1, record("")), "run 20260131T000001-00000000: record 1: case: expected 1 to 400 characters, found 0"),
        (run(1, record(), record("x" * 401)), "record 2: case: expected 1 to 400 characters, found 401"),
        (run(1, record("a\ud800")), "record 1: case: 'a\\ud800' holds characters that cannot be printed"),
        (run(1, record(fingerprint="f" * 65)), "fingerprint: expected 0 to 64 characters, found 65"),
        (run(1, record(started="yesterday")), "record 1: started: expected a time like"),
        (run(1, record(reason="a\0b")), "record 1: reason: holds a NUL character"),
        (run(1, record(reason="\udfff")), "record 1: reason: holds half of a character (a lone surrogate)"),
        (run(1, record(FP32, metric(), metric())), "record 1: metric 'latency.p50' is there twice"),
        (run(1, record(FP32, metric(float("nan")))), "metric 'latency.p50': value: expected a finite number"),
        (run(1, record(FP32, metric(10**400))), "metric 'latency.p50': value: expected a finite number"),
        (run(1, record(FP32, metric(interval=(0.0, float("inf"))))), "interval: expected a finite number"),
        (run(1, record(FP32, metric(n=2**63))), "n: expected a whole number from 0 to 9223372036854775807, found 9223"),
        (run(1, record(FP32, metric(n=1.5))), "n: expected a whole number from 0 to 9223372036854775807, found 1.5"),
        (run(1, record(FP32, metric(note="\0"))), "metric 'latency.p50': note: holds a NUL character"),
        (run(1, record(FP32, metric(name=""))), "metric '': name: expected 1 to 200 characters, found 0"),
    ],
)
def test_what_no_database_keeps_is_refused_before_anything_is_written(store, given, message):
    store.add(run(7))
    with pytest.raises(RunFileError) as caught:
        store.add(given)
    assert message in str(caught.value)
    assert [kept.id for kept in store.runs()] == [run(7).header["id"]]


def test_the_largest_that_can_be_kept_is(store):
    largest = metric(1.7976931348623157e308, n=2**63 - 1, interval=(-1.7e308, 5e-324))
    name = "s/b[" + "é" * 395 + "]"
    store.add(run(1, record(name, largest, reason="é" * 100_000, fingerprint="f" * 64)))
    (points,) = store.series([key(name, "f" * 64)], "latency.p50").values()
    assert points[0].metric == largest
    assert len(points[0].reason) == 100_000
