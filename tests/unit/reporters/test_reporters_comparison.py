"""The comparison with a base as it is printed, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_mlbench.record import Comparison, Record
from pytest_mlbench.reporters import terminal
from pytest_mlbench.reporters.comparison import lines

FACTS = {"commit": "8c9626cc2d4e0123456789abcdef0123456789ab", "ref": "origin/main", "how": "merge base"}


def record(word, *comparisons, outcome="pass", **base):
    case = f"digits/classify[net-{word}-fp32-cpu]"
    return Record(case, f"node::{word}", {}, outcome, comparisons=comparisons, base={**FACTS, **base})


def rounds(verdict, base, candidate, change, low, high, *, metric="latency.p50", unit="ns", seen=0.034, **more):
    direction = "higher" if metric == "throughput" else "lower"
    values = {"base": base, "candidate": candidate, "change": change, "interval": (low, high), "detectable": seen}
    return Comparison(metric, unit, direction, "rounds", verdict, "why", confidence=0.95, n=12, **values, **more)


SLOWER = rounds("regressed", 6650.0, 8260.0, 0.242, 0.231, 0.253)
TOP1 = Comparison(
    "accuracy.top1",
    "",
    "higher",
    "mcnemar",
    "pass",
    base=0.9806,
    candidate=0.9778,
    change=-0.0028,
    interval=(-0.0155, 0.0089),
    confidence=0.95,
    n=360,
    detectable=8 / 360,
)
SIZE = Comparison(
    "model.size", "bytes", "lower", "exact", "improved", base=9876.0, candidate=8000.0, change=8000 / 9876 - 1
)
GONE = Comparison("memory.peak", "bytes", "lower", "rounds", "invalid", "the base did not measure memory.peak")

RECORDS = [
    record("ort", SLOWER, TOP1, SIZE, outcome="fail", outputs="identical"),
    record(
        "lite",
        rounds("pass", 1065.0, 1066.0, 0.00094, -0.0021, 0.004),
        rounds("inconclusive", 469_000.0, 480_000.0, 0.023, -0.04, 0.09, metric="throughput", unit="1/s", seen=None),
        outputs="y differs for 12 of 12 samples, by at most 2.5",
    ),
    record("ov", replace(SLOWER, waived="portable kernels, see #123"), GONE, outcome="invalid", outputs="identical"),
    record("tvm", new=True),
    record("tvm2", new=True),
    record("old", new=True, excluded="wrong on our boards"),
    Record("digits/classify[net-gone-fp32-cpu]", "node::gone", {}, "skip", "not installed"),
]

PRINTED = """
against base 8c9626cc2d4e (merge base of origin/main)
case                                metric            base  candidate                change [95 %]    could see  verdict
----------------------------------  -------------  -------  ---------  ---------------------------  -----------  ------------------
digits/classify[net-ort-fp32-cpu]   latency.p50    6.65 us    8.26 us         +24 % [+23 %, +25 %]        3.4 %  regressed
digits/classify[net-ort-fp32-cpu]   accuracy.top1   98.06%     97.78%  -0.28 points [-1.55, +0.89]  2.22 points  pass
digits/classify[net-ort-fp32-cpu]   model.size     9.88 kB    8.00 kB                        -19 %          any  improved
digits/classify[net-lite-fp32-cpu]  latency.p50    1.06 us    1.07 us   +0.094 % [-0.21 %, +0.4 %]        3.4 %  pass
digits/classify[net-lite-fp32-cpu]  throughput     469 k/s    480 k/s          +2.3 % [-4 %, +9 %]            -  inconclusive
digits/classify[net-ov-fp32-cpu]    latency.p50    6.65 us    8.26 us         +24 % [+23 %, +25 %]        3.4 %  regressed (waived)
digits/classify[net-ov-fp32-cpu]    memory.peak          -          -                            -            -  invalid

waived: digits/classify[net-ov-fp32-cpu] latency.p50: portable kernels, see #123
outputs differ from the base's: digits/classify[net-lite-fp32-cpu]: y differs for 12 of 12 samples, by at most 2.5
not in the base, so not compared: digits/classify[net-tvm-fp32-cpu], digits/classify[net-tvm2-fp32-cpu]
not run in the base, so not compared: digits/classify[net-old-fp32-cpu] (wrong on our boards)
"""  # noqa: E501


def test_a_table_word_for_word():
    assert "\n".join(lines(RECORDS)) == PRINTED.lstrip("\n")


def test_without_a_base_there_is_nothing_to_say():
    assert lines([]) == []
    assert lines([RECORDS[-1]]) == []


def test_only_new_cases_have_no_table():
    assert lines([RECORDS[3]]) == [
        "against base 8c9626cc2d4e (merge base of origin/main)",
        "",
        "not in the base, so not compared: digits/classify[net-tvm-fp32-cpu]",
        "",
    ]


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (SLOWER, "3.4 %"),
        (replace(SLOWER, detectable=0.0), "0 %"),
        (replace(SLOWER, detectable=None), "-"),
        (TOP1, "2.22 points"),
        (SIZE, "any"),
        (replace(SIZE, verdict="invalid"), "-"),
    ],
)
def test_what_could_be_seen(comparison, expected):
    heading, rule, row = lines([record("one", comparison)])[1:4]
    start = heading.index("change [95 %]") + len("change [95 %]")  # the cells stand to the right under it
    assert row[start : heading.index("verdict")].strip() == expected
    assert rule.startswith("---")


def test_every_green_comparison_is_shown_too():
    shown = "\n".join(lines([record("one", TOP1, replace(SLOWER, verdict="improved"))]))
    assert shown.count("classify[net-one-fp32-cpu]") == 2


def test_the_table_of_results_is_followed_by_the_comparison():
    printed = terminal.lines(RECORDS)
    assert printed[printed.index("against base 8c9626cc2d4e (merge base of origin/main)") - 1] == ""
    assert lines(RECORDS) == printed[printed.index("against base 8c9626cc2d4e (merge base of origin/main)") :]


@pytest.mark.parametrize(
    "base",
    [
        {"commit": 5, "how": None, "ref": []},
        {"outputs": {"deep": 1}},
        {"new": True, "excluded": ["a"]},
        {"commit": "x" * 10_000},
    ],
)
def test_a_run_file_of_a_stranger_is_printed_and_does_not_break(base):
    assert lines([Record("s/b[c]", "n", {}, "pass", comparisons=(SLOWER, TOP1, GONE), base=base)])
