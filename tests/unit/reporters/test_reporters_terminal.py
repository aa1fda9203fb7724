"""The table at the end of a session, word for word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench.record import CheckResult, Metric, Record
from pytest_mlbench.reporters import terminal
from pytest_mlbench.reporters.table import Table
from pytest_mlbench.stores.runfile import Run


def ran(**shares):
    return {"precision": shares, "reason": ""}


def record(word, outcome="pass", *, suite="digits", precision="fp32", metrics=None, **changes):
    metrics = {} if metrics is None else metrics
    units = {
        "latency.p50": "ns",
        "latency.p99": "ns",
        "throughput": "1/s",
        "memory.peak": "bytes",
        "model.size": "bytes",
    }
    made = tuple(
        value if isinstance(value, Metric) else Metric(name, value, units.get(name, ""), "lower")
        for name, value in metrics.items()
    )
    case = f"{suite}/classify[net-{word}-{precision}-cpu]"
    return Record(case, f"node::{word}", {"precision": precision}, outcome, metrics=made, **changes)


P50 = Metric("latency.p50", 2130.0, "ns", "lower", interval=(2100.0, 2160.0), confidence=0.95)
ALL = {
    "latency.p50": P50,
    "latency.p99": 3500.0,
    "throughput": 469484.0,
    "accuracy.top1": 0.9806,
    "memory.peak": 12_400_000.0,
    "model.size": 9876.0,
}
REFERENCE = "digits/classify[net-ort-fp32-cpu]"
RECORDS = [
    record(
        "ort", metrics=ALL, placement=ran(fp32=1.0), reference=REFERENCE, stages_ns={"load": 12_000_000, "total": 9e12}
    ),
    record("lite", "fail", metrics={**ALL, "latency.p50": 1065.0}, placement=ran(fp32=1.0), reference=REFERENCE),
    record("tvm", precision="int8", metrics=ALL, placement=ran(fp32=1.0), stages_ns={"prepare": 3_000_000_000}),
    record(
        "ov", precision="int8", metrics={"latency.p50": 4260.0}, placement=ran(int8=0.8, fp32=0.2), reference=REFERENCE
    ),
    record("bad", "error", stage="load", reason="load: no"),
    record("odd", "invalid", metrics={"latency.p50": Metric("latency.p50", None, "ns", "lower", reason="no readings")}),
    record("no1", "skip", reason="tvm is not installed: pip install x"),
    record("no2", "skip", reason="excluded: no file"),
    record("no3", "skip", reason="tvm is not installed: pip install x"),
]

# The width is that of what the table is about: it is not folded.
TABLE = """
digits
case                        precision                         outcome          p50    +-      p99  throughput   top-1   memory     size  vs ref
--------------------------  --------------------------------  -----------  -------  ----  -------  ----------  ------  -------  -------  ------
classify[net-ort-fp32-cpu]  fp32                              pass         2.13 us  1.4%  3.50 us     469 k/s  98.06%  12.4 MB  9.88 kB     ref
classify[net-ov-int8-cpu]   int8 (runs int8 80 %, fp32 20 %)  pass         4.26 us     -        -           -       -        -        -   0.50x
classify[net-bad-fp32-cpu]  fp32                              error(load)        -     -        -           -       -        -        -       -

slowest stages: load 12.0 ms digits/classify[net-ort-fp32-cpu]
"""  # noqa: E501


def table_rows(lines):
    """Return the cells of each row, by the case's framework."""
    rule = next(line for line in lines if line.startswith("---"))
    edges, start = [], 0
    for part in rule.split("  "):
        edges.append((start, start + len(part)))
        start += len(part) + 2
    begin = lines.index(rule)
    heading = [lines[begin - 1][a:b].strip() for a, b in edges]
    rows = {}
    for line in lines[begin + 1 :]:
        if not line:
            break
        cells = [line[a:b].strip() for a, b in edges]
        rows[cells[0].split("-")[1]] = dict(zip(heading, cells, strict=True))
    return rows


@pytest.fixture(scope="module")
def rows():
    return table_rows(terminal.lines(RECORDS))


def test_a_table_word_for_word():
    lines = terminal.lines([RECORDS[0], RECORDS[3], RECORDS[4]])
    assert "\n".join(lines) == TABLE.strip("\n")


def test_every_case_that_was_not_skipped_has_a_row(rows):
    assert list(rows) == ["ort", "lite", "tvm", "ov", "bad", "odd"]


def test_outcomes(rows):
    assert [row["outcome"] for row in rows.values()] == ["pass", "fail", "pass", "pass", "error(load)", "invalid"]
    resumed = table_rows(terminal.lines([replace(RECORDS[0], resumed="earlier")]))["ort"]
    assert resumed["outcome"] == "pass (resumed)"


def test_the_precision_says_what_ran_when_it_is_another(rows):
    assert rows["ort"]["precision"] == "fp32"
    assert rows["tvm"]["precision"] == "int8 (runs fp32)"
    assert rows["bad"]["precision"] == "fp32"  # nothing ran
    silent = record("x", metrics=ALL, placement={"precision": {}, "reason": "the profile lists no kernel"})
    assert table_rows(terminal.lines([silent]))["x"]["precision"] == "fp32 (runs unknown)"


def test_what_was_not_measured_is_a_dash_and_never_0(rows):
    columns = ("p50", "+-", "p99", "throughput", "top-1", "memory", "size", "vs ref")
    assert [rows["bad"][name] for name in columns] == ["-"] * 8
    assert [rows["odd"][name] for name in columns] == ["-"] * 8
    assert (rows["ov"]["p50"], rows["ov"]["+-"], rows["ov"]["p99"]) == ("4.26 us", "-", "-")


def test_a_case_is_compared_with_its_reference(rows):
    assert rows["ort"]["vs ref"] == "ref"
    assert rows["lite"]["vs ref"] == "2.00x"  # twice as fast
    assert rows["ov"]["vs ref"] == "0.50x"
    assert rows["tvm"]["vs ref"] == "-"  # names none
    alone = record("lite", metrics=ALL, reference="digits/classify[not-run-fp32-cpu]")
    assert table_rows(terminal.lines([alone]))["lite"]["vs ref"] == "-"


def test_skips_with_one_reason_are_one_line():
    lines = terminal.lines(RECORDS)
    assert [line for line in lines if line.startswith("skipped")] == [
        "skipped 2: tvm is not installed: pip install x (classify[net-no1-fp32-cpu], classify[net-no3-fp32-cpu])",
        "skipped 1: excluded: no file (classify[net-no2-fp32-cpu])",
    ]


def test_a_suite_that_was_skipped_whole_has_no_table():
    lines = terminal.lines([record("a", "skip", reason="no")])
    assert lines == ["skipped 1: no (classify[net-a-fp32-cpu])", ""]


def test_suites_are_grouped_in_the_order_they_came():
    records = [record("a", suite="two"), record("b", suite="one"), record("c", suite="two")]
    lines = terminal.lines(records)
    assert [line for line in lines if line in ("one", "two")] == ["two", "one"]
    assert lines.index("one") > next(i for i, line in enumerate(lines) if "net-c-" in line)


def test_the_three_slowest_stages_of_those_that_users_wait_for():
    stages = [{"load": 5_000_000, "measure": 10**12}, {"prepare": 2_000_000_000, "first": 1_000}, {"start": 7_000_000}]
    records = [record(str(i), stages_ns=each) for i, each in enumerate(stages)]
    assert terminal.lines(records)[-1] == (
        "slowest stages: prepare 2.00 s digits/classify[net-1-fp32-cpu]; "
        "start 7.00 ms digits/classify[net-2-fp32-cpu]; load 5.00 ms digits/classify[net-0-fp32-cpu]"
    )
    assert not any("slowest" in line for line in terminal.lines([record("a")]))


def test_verbose_lists_every_metric_with_its_reason_and_every_check():
    metrics = {"latency.p50": P50, "accuracy.top1": Metric("accuracy.top1", None, "", "higher", reason="no labels")}
    checks = (CheckResult("latency.p50", "fail", "2.13 us, limit <= 1 us"),)
    lines = terminal.lines([record("a", "fail", metrics=metrics, checks=checks)], verbosity=1)
    assert "  latency.p50                 2.13 us  measured" in lines
    assert "  accuracy.top1                     -  measured  no labels" in lines
    assert "  fail latency.p50: 2.13 us, limit <= 1 us" in lines
    assert not any("limit" in line for line in terminal.lines([record("a", checks=checks)]))


def test_the_summary():
    line = terminal.summary(RECORDS, Path("run.jsonl"))
    assert line == "9 cases: 3 pass, 1 fail, 1 error, 1 invalid, 3 skip. Run file: run.jsonl"
    assert terminal.summary(RECORDS[:1], Path("r")) == "1 case: 1 pass. Run file: r"


class Reporter:
    """What pytest's terminal reporter is asked to write."""

    def __init__(self):
        self.written = []

    def section(self, title):
        self.written.append(f"== {title}")

    def write_line(self, line):
        self.written.append(line)


@pytest.mark.parametrize(("verbosity", "section"), [(-1, False), (0, True), (1, True)])
def test_quiet_is_the_summary_alone(verbosity, section):
    reporter = Reporter()
    terminal.show(reporter, Run({}, tuple(RECORDS)), Path("run.jsonl"), verbosity)
    assert ("== mlbench" in reporter.written) is section
    assert reporter.written[-1].startswith("9 cases:")
    assert (len(reporter.written) == 1) is not section


def test_a_run_of_nothing_writes_nothing():
    reporter = Reporter()
    terminal.show(reporter, Run({}, ()), Path("run.jsonl"), 0)
    assert reporter.written == []


# --- the plain table ----------------------------------------------------------------------------------------


def test_columns_are_as_wide_as_their_content():
    table = Table(("name", "n", "note"), right=("n",))
    table.add("a", "5", "")
    table.add("longer name", "12345", "x")
    assert table.lines() == [
        "name             n  note",
        "-----------  -----  ----",
        "a                5",
        "longer name  12345  x",
    ]


def test_a_table_of_no_rows_is_its_heading():
    assert Table(("a", "bc")).lines() == ["a  bc", "-  --"]


def test_a_row_has_as_many_cells_as_the_heading():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table(("a", "b")).add("x")


def test_a_right_column_that_is_none():
    with pytest.raises(ValueError, match="not in tuple"):
        Table(("a", "b"), right=("c",))
