"""Whole runs compared: which cases are paired, which are refused, and what the verb prints and ends with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_mlbench import compare_runs
from pytest_mlbench.compare_command import lines
from pytest_mlbench.compare_runs import Limits
from pytest_mlbench.errors import MlbenchError, RunFileError
from pytest_mlbench.record import Metric, Record
from pytest_mlbench.stores.runfile import Run

A, B, C = "s/b[a]", "s/b[b]", "s/b[c]"
OLD, NEW = "a" * 40, "b" * 40
JITTER = (0.0, 3.1, -2.2, 4.7, 1.3)  # of p50, in ns, one a run: no two are the same
TARGET = {"device": "cpu", "node": "lab", "processor": "A CPU", "python": "3.12.1", "versions": {"ort": "1.30.0"}}
HASHES = {"suite": "1", "identity": "2", "loaded": "3", "agent": "4", "dataset": "5"}
LIMITS = Limits(0.03)


def metrics(p50=1000.0, top1=None, size=1000, **others):
    found = [Metric("latency.p50", p50, "ns", "lower", reason="" if p50 else "offline has none")]
    found.append(Metric("throughput", 1e9 / (p50 or 500.0), "1/s", "higher"))
    found.append(Metric("model.size", size, "bytes", "lower"))
    if top1 is not None:
        found.append(Metric("accuracy.top1", top1 / 360, "", "higher", n=360))
    return (*found, *others.values())


def record(case=A, p50=1000.0, outcome="pass", *, found=None, **more):
    given = {"metrics": metrics(p50) if found is None else found, "fingerprint": "f", "target": TARGET, **more}
    given.setdefault("hashes", {**HASHES, "loaded": str(given["metrics"])})  # another model gives other values
    return Record(case, f"bench.toml::{case[2:]}", {"model": "m"}, outcome, **given)


def skip(case=A, reason="not installed"):
    return Record(case, "node", {}, "skip", reason)


def broken(case=A, reason="no such file\nmore", stage="load"):
    return Record(case, "node", {}, "error", reason, stage=stage)


def run(name, *records, hour=1, commit=OLD, **source):
    header = {
        "kind": "header",
        "schema": 1,
        "id": name,
        "started": f"2026-01-31T{hour:02d}:00:00+00:00",
        "source": {"commit": commit, "branch": "main", "dirty": False, **source},
    }
    return Run(header, records, {"kind": "footer", "exitstatus": 0})


def several(name, p50=1000.0, hours=(1, 3, 5, 7, 9), commit=OLD, **more):
    """Return runs of case A, a bit different each."""
    return [
        run(f"{name}{hour}", record(A, p50 + jitter, **more), hour=hour, commit=commit)
        for hour, jitter in zip(hours, JITTER, strict=False)
    ]


def candidates(p50=1000.6, hours=(2, 4, 6, 8, 10), **more):
    return several("new", p50, hours, NEW, **more)


def compared(base, candidate, limits=LIMITS):
    return compare_runs.compare(base, candidate, limits)


def only(found):
    ((_, comparison),) = found.comparisons
    return comparison


# --- what is compared -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p50", "verdict", "outcome"),
    [(1100.6, "regressed", "fail"), (1000.6, "pass", "pass"), (900.6, "improved", "pass")],
)
def test_several_runs_of_each_side_give_a_verdict(p50, verdict, outcome):
    found = compared(several("old"), candidates(p50))
    assert (only(found).verdict, only(found).method, only(found).n) == (verdict, "runs", 10)
    assert [one.outcome for one in found.records] == [outcome]
    assert found.notes == ()
    assert found.records[0].base == {"commit": OLD, "how": "5 runs", "ref": "main"}
    assert found.revision == {"commit": NEW, "how": "5 runs", "ref": "main"}


def test_one_run_of_each_side_is_shown_and_decides_nothing():
    found = compared([run("old", record(A))], [run("new", record(A, 2000.0))])
    assert only(found).verdict == "inconclusive"
    assert only(found).change == pytest.approx(1.0)
    assert found.records[0].outcome == "pass"
    strict = compared([run("old", record(A))], [run("new", record(A, 2000.0))], Limits(0.03, strict=True))
    assert strict.records[0].outcome == "fail"


def test_the_margin_is_the_one_given():
    assert only(compared(several("old"), candidates(1100.6), Limits(0.2))).verdict == "pass"
    assert only(compared(several("old"), candidates(1020.6), Limits(0.0))).verdict == "regressed"


def test_the_error_rate_is_divided_by_the_comparisons_made():
    base = [replace(one, records=(record(A, 1000.0 + i), record(B, 50.0 + i))) for i, one in enumerate(several("old"))]
    new = [replace(one, records=(record(A, 1000.5 + i), record(B, 50.5 + i))) for i, one in enumerate(candidates())]
    limits = Limits(0.03, ("memory.peak", "model.size"))
    with_peak = [
        [replace(one, records=tuple(replace(r, metrics=(*r.metrics, PEAK)) for r in one.records)) for one in side]
        for side in (base, new)
    ]
    found = compared(*with_peak, limits)
    assert [(case, one.metric) for case, one in found.comparisons] == [
        (case, metric) for case in (A, B) for metric in ("latency.p50", "memory.peak", "model.size")
    ]
    assert {one.alpha for _, one in found.comparisons if one.method == "runs"} == {0.05 / 4}, "sizes have no noise"
    one, other = run("old", record(A), record(B)), run("new", record(A, 1001.0), record(B, fingerprint="g"))
    assert [made.alpha for _, made in compared([one], [other]).comparisons] == [0.05, None], "one could be made"


PEAK = Metric("memory.peak", 5e6, "bytes", "lower")


def test_without_a_p50_the_throughput_is_compared():
    offline = [
        [replace(one, records=(record(found=metrics(None)),)) for one in side]
        for side in ([run("old", record())], [run("new", record())])
    ]
    assert only(compared(*offline)).metric == "throughput"


def test_top_1_is_compared_by_counts_whatever_the_margin():
    base, new = record(found=metrics(1000.0, top1=350)), record(found=metrics(1001.0, top1=330))
    found = compared([run("old", base)], [run("new", new)], Limits(0.5))
    accuracy = dict((one.metric, one) for _, one in found.comparisons)["accuracy.top1"]
    assert (accuracy.verdict, accuracy.margin, accuracy.n) == ("regressed", 0.0, 360)
    assert found.records[0].outcome == "fail", "faster but wrong is red"


def test_answers_to_other_data_are_not_compared():
    base = record(found=metrics(top1=350), hashes={**HASHES, "dataset": "other"})
    found = compared([run("old", base)], [run("new", record(found=metrics(1.5, top1=350)))])
    assert (
        found.comparisons[1][1].reason == "the data sets differ (hashes.dataset), so right answers cannot be compared"
    )


def test_sizes_are_compared_exactly_and_must_be_the_same_in_every_run():
    limits = Limits(0.0, ("model.size",))
    larger = run("new", record(found=metrics(1001.0, size=1200)))
    size = compared([run("old", record())], [larger], limits).comparisons[1][1]
    assert (size.method, size.verdict, size.n) == ("exact", "regressed", 1)
    assert size.reason == "model.size is 20 % larger (1.00 kB to 1.20 kB)"
    base = [run("old1", record()), run("old2", record(found=metrics(1.5, size=999)))]
    size = compared(base, [run("new", record())], limits).comparisons[1][1]
    assert (size.verdict, size.reason) == (
        "invalid",
        "model.size is not the same in all runs of the base, from 999 to 1000",
    )


def test_a_waiver_accepts_a_regression_of_its_case_and_metric(tmp_path):
    from pytest_mlbench import waivers

    file = tmp_path / "mlbench-waivers.toml"
    file.write_text(
        f'[[waiver]]\ncase = "{A}"\nmetric = "latency.p50"\nmax_ratio = 1.2\nreason = "known"\nexpires = 9999-12-31\n'
    )
    limits = Limits(0.03, (), waivers.load(file))
    found = compared(several("old"), candidates(1100.6), limits)
    assert (only(found).verdict, only(found).waived, found.records[0].outcome) == ("regressed", "known", "pass")
    worse = compared(several("old"), candidates(1300.6), limits)
    assert worse.records[0].outcome == "fail"
    assert only(worse).reason.endswith("; its waiver accepts only up to 1.2 times worse, this is 1.3002 times")


def test_two_sides_that_are_the_same_thing_differ_by_the_machine():
    found = compared(
        several("old", hashes=HASHES), candidates(1100.6, hashes={**HASHES, "suite": "x", "identity": "y"})
    )
    assert only(found).verdict == "invalid"
    assert only(found).reason.endswith(
        "although both sides are the same model, data, options, framework and code: what differs is the machine, or "
        "something that the records do not hold"
    )
    assert only(compared(several("old", hashes=HASHES), candidates(hashes=HASHES))).verdict == "pass"
    assert only(compared(several("old", hashes={}), candidates(1100.6, hashes={}))).verdict == "regressed"


def test_a_metric_of_the_user_may_change_by_code_that_no_hash_is_of():
    def runs(side, value):
        own = [Metric("own.work", value + jitter, "", "lower") for jitter in JITTER]
        return [
            replace(one, records=(replace(one.records[0], metrics=(*one.records[0].metrics, metric)),))
            for one, metric in zip(side, own, strict=True)
        ]

    limits = Limits(0.03, ("own.work",))
    found = compared(runs(several("old", hashes=HASHES), 100.0), runs(candidates(hashes=HASHES), 200.0), limits)
    assert [one.verdict for _, one in found.comparisons] == ["pass", "regressed"]


# --- what is not comparable -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target": {**TARGET, "node": "field"}}, "target.node is lab and field."),
        ({"target": {**TARGET, "versions": {"ort": "1.31.0"}}}, "versions.ort is 1.30.0 and 1.31.0."),
        ({"target": {**TARGET, "versions": ["odd"]}}, "versions.ort is 1.30.0 and unknown."),
        ({"scenario": {"seed": 3, "happened": {"blocks": 4}}}, "scenario.seed is unknown and 3."),
        ({}, "in what the records do not hold, such as the framework's options."),
        (
            {"scenario": dict.fromkeys("abcdef", 1)},
            "scenario.a is unknown and 1; scenario.b is unknown and 1; scenario.c is unknown and 1; scenario.d is "
            "unknown and 1; and 2 more.",
        ),
        ({"target": {**TARGET, "node": "x" * 100}}, f"target.node is lab and {'x' * 57}...."),
    ],
)
def test_unlike_fingerprints_are_invalid_and_say_what_differs(changes, told):
    found = compared([run("old", record())], [run("new", record(p50=900.0, fingerprint="g", **changes))])
    assert (only(found).verdict, found.records[0].outcome) == ("invalid", "invalid")
    assert only(found).reason == (
        f"base and candidate are not alike: {told} What was measured on two machines or with two settings cannot be "
        "compared; to compare two versions or options on purpose, measure both in one session: pytest --mlbench "
        "--mlbench-base REF, with --mlbench-base-python for another version"
    )
    assert (only(found).base, only(found).change) == (None, None)


def test_facts_of_another_tool_s_file_are_named_as_it_names_them():
    ours = record(fingerprint="g", target={"imported": "pyperf", "cpu_model_name": "A", "versions": {"pyperf": "2.9"}})
    theirs = record(target={"imported": "pyperf", "cpu_model_name": "B", "versions": {"pyperf": "2.9"}})
    reason = only(compared([run("old", theirs)], [run("new", ours)])).reason
    assert reason.startswith("base and candidate are not alike: target.cpu_model_name is B and A. ")


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        ({"clock_resolution_ns": 1}, "target.clock_resolution_ns is 1000 and 1"),
        ({"board": "nucleo-h7a3zi"}, "target.board is nucleo-l4r5zi and nucleo-h7a3zi"),
        ({"usb_serial": "B2"}, "target.usb_serial is A1 and B2"),
        ({"icount_shift": 5}, "target.icount_shift is unknown and 5"),
    ],
)
def test_boards_that_differ_are_told_by_what_identifies_them_and_not_by_their_port(fact, told):
    board = {
        **{"device": "m4", "board": "nucleo-l4r5zi", "usb_serial": "A1", "clock": "m-lap of the board"},
        **{"clock_resolution_ns": 1000, "emulated": False, "versions": {}, "recovered": [], "agent": {"pid": 7}},
    }
    theirs = record(target={**board, "firmware": {"port": "/dev/ttyACM0"}})
    ours = record(
        fingerprint="g",
        target={**board, "firmware": {"port": "/dev/ttyACM9"}, "agent": {"pid": 8}, "recovered": [{}], **fact},
    )
    reason = only(compared([run("old", theirs)], [run("new", ours)])).reason
    assert reason.startswith(f"base and candidate are not alike: {told}. ")


def test_gpus_that_differ_are_told():
    gpu = {**TARGET, "gpu_name": "A100", "gpu_driver": "570"}
    ours = record(fingerprint="g", target={**gpu, "gpu_name": "H200"})
    reason = only(compared([run("old", record(target=gpu))], [run("new", ours)])).reason
    assert reason.startswith("base and candidate are not alike: target.gpu_name is A100 and H200. ")


def test_runs_of_one_side_must_be_alike():
    new = [run("new1", record()), run("new2", record(fingerprint="g", target={**TARGET, "node": "field"}), hour=2)]
    found = compared([run("old", record())], new)
    assert only(found).reason == "the candidate's runs are not runs of one thing: target.node is lab and field"
    assert only(compared(new, [run("old", record())])).reason.startswith("the base's runs are not runs of one thing: ")


def test_without_a_fingerprint_nothing_is_compared():
    found = compared([run("old", record(fingerprint=""))], [run("new", record(fingerprint=""))])
    assert only(found).reason == "a record has no fingerprint, so nothing tells whether it may be compared"


def test_a_base_that_failed_gives_nothing_to_compare_with():
    found = compared([run("old", broken())], [run("new", record())])
    assert (only(found).verdict, only(found).reason) == (
        "invalid",
        "the base has no values to compare with: it came out as error(load): no such file",
    )
    assert found.notes == (f"not passed in the base: {A}: error(load): no such file",)


def test_a_candidate_that_failed_is_told_and_not_compared():
    found = compared([run("old", record())], [run("new", broken(stage="suite"))])
    assert found.comparisons == []
    assert found.notes == (f"not passed in the candidate: {A}: error(suite): no such file",)
    assert found.records[0].outcome == "error"


@pytest.mark.parametrize("outcome", ["fail", "insufficient"])
def test_what_failed_an_expectation_is_measured_all_the_same(outcome):
    found = compared([run("old", record(outcome=outcome))], [run("new", record(A, 1100.0, outcome, reason="too slow"))])
    assert only(found).verdict == "inconclusive"
    assert found.records[0].outcome == outcome
    assert f"not passed in the candidate: {A}: {outcome}: too slow" in found.notes


def test_values_of_an_invalid_record_are_not_believed():
    found = compared([run("old", record())], [run("new", record(outcome="invalid", reason="ran elsewhere"))])
    assert found.comparisons == []
    assert found.records[0].outcome == "invalid"


def test_a_side_without_a_value_is_invalid():
    lacking = record(found=(Metric("latency.p50", None, "ns", "lower", reason="the clock is too coarse"),))
    found = compared([run("old", record())], [run("new", lacking)])
    assert only(found).reason == "the candidate did not measure latency.p50: the clock is too coarse"
    found = compared([run("old1", lacking), run("old2", record())], [run("new", record())])
    assert only(found).reason == "the base did not measure latency.p50 in 1 of 2 runs: the clock is too coarse"
    assert only(compared([run("old", record(found=()))], [run("new", record())])).reason == (
        "the base did not measure latency.p50"
    )


def test_what_neither_side_measured_is_told():
    none = Metric("latency.p99", None, "ns", "lower", reason="too few")
    base, new = (run(name, *(record(case, found=metrics(p99=none)) for case in (A, B))) for name in ("old", "new"))
    found = compared([base], [new], Limits(0.03, ("latency.p99",)))
    assert {one.metric for _, one in found.comparisons} == {"latency.p50"}
    assert found.notes == (f"latency.p99 was measured on neither side, so it is not compared: {A}, {B}",)


def test_a_case_without_any_figure_is_told():
    found = compared([run("old", record(found=()))], [run("new", record(found=()))])
    assert found.notes == (f"latency.p50 was measured on neither side, so it is not compared: {A}",)
    assert found.comparisons == []


def test_a_metric_in_another_unit_or_without_a_better_direction_is_invalid():
    in_ms = record(found=(Metric("latency.p50", 1.0, "ms", "lower"),))
    assert only(compared([run("old", record())], [run("new", in_ms)])).reason == (
        "latency.p50 is not one metric: it is in ns, lower is better and in ms, lower is better"
    )
    shape = [run(name, record(found=metrics(own=Metric("own.shape", 3.0, "", "none")))) for name in ("old", "new")]
    found = compared(shape[:1], shape[1:], Limits(0.0, ("own.shape",)))
    assert found.comparisons[1][1].reason == "own.shape has no better direction, so it can be neither better nor worse"


def test_a_metric_that_no_record_has_is_an_error_with_a_near_name():
    with pytest.raises(
        MlbenchError, match=r'^--metric latency\.p5: unknown metric "latency\.p5"; did you mean "latency\.p50"'
    ):
        compared([run("old", record())], [run("new", record())], Limits(0.0, ("latency.p5",)))


# --- cases ----------------------------------------------------------------------------------------------------


def test_new_vanished_and_skipped_cases_are_told_by_name():
    skipped = (skip("s/b[out]", "no file"), skip("s/b[no]"), skip("s/b[never-was]"))
    base = run("old", record(A), record("s/b[gone]"), record("s/b[off]"), *skipped)
    new = run("new", record(A, 900.0), record("t/other[x]"), record("s/b[out]"), skip("s/b[off]"), skip("s/b[no]"))
    found = compared([base], [new])
    assert found.shared == 4
    assert {str(one) for one in found.lost} == {"vanished: s/b[gone]", "newly skipped: s/b[off]: not installed"}
    facts = {one.case: one.base for one in found.records}
    assert facts["t/other[x]"]["new"]
    assert facts["s/b[out]"]["excluded"] == "no file"
    assert [case for case, _ in found.comparisons] == [A]
    assert found.notes == ("skipped: s/b[no]: not installed",)
    assert [one.outcome for one in found.records] == ["pass", "pass", "pass", "skip", "skip"]


def test_a_renamed_case_is_recognised():
    found = compared([run("old", record("s/b[m-ort-fp32-cpu]"))], [run("new", record("s/b[m-ort2-fp32-cpu]"))])
    assert [str(one) for one in found.lost] == ["vanished: s/b[m-ort-fp32-cpu]: renamed to s/b[m-ort2-fp32-cpu]?"]
    assert found.shared == 0


def test_a_case_that_not_all_runs_have_is_compared_by_those_that_do():
    base = [*several("old"), run("old11", record(B), hour=11)]
    found = compared(base, candidates())
    assert only(found).n == 10
    assert f"only 5 of 6 runs in the base have values: {A}" in found.notes
    assert "vanished: s/b[b]" in map(str, found.lost)


def test_the_worst_of_several_runs_is_the_case_s_outcome():
    for order in ((0, 1), (1, 0)):
        both = [run("new1", record()), run("new2", broken(), hour=2)]
        found = compared([run("old", record())], [both[i] for i in order])
        assert (found.records[0].outcome, found.records[0].stage) == ("error", "load")
        assert len(found.comparisons) == 1


# --- which runs -----------------------------------------------------------------------------------------------


def test_resumed_records_are_one_measurement_however_many_files_hold_them():
    copied = record(A, 1000.0, resumed="old1")
    base = [run("old1", record()), run("old2", copied, hour=2), run("old3", copied, hour=3)]
    found = compared(base, [run("new", record(p50=1001.0))])
    assert only(found).base_values == (1000.0,)
    assert found.notes.count(f"counted once: {A}, which the base's runs share (--mlbench-resume)") == 2
    found = compared(base[:1], [run("new", record(resumed="old1"))])
    assert only(found).reason == "both sides hold the same measurement, that of the run old1 (--mlbench-resume)"


def test_a_run_that_holds_a_case_twice_is_refused():
    with pytest.raises(
        MlbenchError, match=r"^the run new holds the case s/b\[a\] twice; give the file as it was made$"
    ):
        compared([run("old", record())], [run("new", record(), record())])


def test_runs_that_were_not_taken_in_turn_are_told():
    note = (
        "the runs of one side were all taken before the other's: whatever else changed on the machine meanwhile counts "
        "too. Take them in turn, or compare with --mlbench-base"
    )
    later = candidates(hours=(11, 12, 13))
    assert compared(several("old"), later).notes == (note,)
    assert compared(later, several("old")).notes == (note,)
    assert compared([run("old", record())], [run("new", record(p50=1.0), hour=2)]).notes == ()


def test_other_revisions_harnesses_and_killed_runs_are_told():
    base = [run("old1", record(), commit=OLD), run("old2", record(p50=1001.0), hour=3, commit="")]
    killed = replace(run("new", record(p50=1002.0, hashes={**HASHES, "agent": "9"}), hour=2), footer={})
    notes = compared(base, [killed]).notes
    assert notes == (
        f"the base's runs are of several revisions: {OLD[:12]}, unknown",
        "the candidate's run new was killed: it has the cases that it had finished",
        f"measured by two versions of pytest-mlbench (hashes.agent): {A}",
    )


def test_what_a_revision_is_called():
    found = compared([run("old", record(), dirty=True)], [run("new", record(p50=1.0), commit="", branch=None)])
    assert found.records[0].base == {"commit": OLD, "how": "1 run", "ref": "main, with changed files"}
    assert lines(found, ())[:2] == ["the candidate", f"against base {OLD[:12]} (1 run of main, with changed files)"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"id": 5}, "the header of the run: id: expected a string, found int"),
        ({"id": "a\x1b[2J"}, "the header of the run: id: 'a\\x1b[2J' holds characters that cannot be printed"),
        (
            {"started": "soon"},
            "the header of the run: started: expected a time like 2026-01-31T12:00:00+00:00, found 'soon'",
        ),
        ({"source": [1]}, "the header of the run: source: expected an object, found list"),
    ],
)
def test_a_header_that_cannot_be_is_refused(header, message):
    one = run("new", record())
    with pytest.raises(RunFileError) as raised:
        compared([run("old", record())], [replace(one, header={**one.header, **header})])
    assert str(raised.value) == message
