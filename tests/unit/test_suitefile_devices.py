"""A suite's `device` tables: devices that a package adds, without which their cases are skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import expand
from pytest_mlbench.suitefile import Known, benchmark_from_table, suite_from_tables

KNOWN = Known(
    frameworks={"litert": Framework("litert", "tflite", "a", "ai_edge_litert", "")},
    devices=["cpu"],
    scenarios=["single_stream"],
    metrics={},
)
INSTALL = "pip install acme-boards"
BASE = {
    "mlbench": 1,
    "model": [{"name": "m", "files": {"tflite": {"fp32": "m.tflite"}}}],
    "device": {"acme_m0": {"install": INSTALL}},
}
BENCHMARK = {"name": "b", "model": ["m"], "framework": ["litert"], "precision": ["fp32"]}


def suite_of(known=KNOWN, benchmark=None, **tables):
    content = {**BASE, "benchmark": [{**BENCHMARK, **(benchmark or {})}], **tables}
    return suite_from_tables(content, Path("/s/bench_own.toml"), known)


def skips(known=KNOWN, **benchmark):
    suite = suite_of(known, benchmark)
    return {case.param: case.skip for case in expand(suite, suite.benchmarks[0], known)}


REASON = f"the device acme_m0 comes with a package that is not installed: {INSTALL}"


def test_cases_of_a_missing_package_are_skipped_and_say_what_installs_it():
    assert skips(device=["cpu", "acme_m0"]) == {"m-litert-fp32-cpu": None, "m-litert-fp32-acme_m0": REASON}


def test_installed_device_is_used():
    known = replace(KNOWN, devices=["cpu", "acme_m0"])
    assert skips(known, device=["acme_m0"]) == {"m-litert-fp32-acme_m0": None}


def test_reason_of_an_exclude_comes_first():
    exclude = [{"device": "acme_m0", "reason": "too slow"}]
    assert skips(device=["acme_m0", "cpu"], exclude=exclude)["m-litert-fp32-acme_m0"] == "too slow"


def test_included_and_overridden_cases():
    found = skips(
        include=[{"device": "acme_m0"}],
        override=[{"when": {"device": "acme_m0"}, "set": {"timeout_s": 5}}],
    )
    assert found == {"m-litert-fp32-cpu": None, "m-litert-fp32-acme_m0": REASON}


def test_benchmark_of_a_python_suite():
    suite = suite_of()
    table = {key: value for key, value in BENCHMARK.items() if key != "name"} | {"device": ["acme_m0"]}
    benchmark = benchmark_from_table(table, "own", suite, KNOWN)
    assert [case.skip for case in expand(suite, benchmark, KNOWN)] == [REASON]


def test_device_that_is_neither_registered_nor_offered_stays_an_error():
    with pytest.raises(SuiteError, match=r'benchmark\[0\]\.device\[0\]: unknown device "acme_m1"'):
        suite_of(benchmark={"device": ["acme_m1"]})


def test_offer_of_one_suite_does_not_reach_another():
    suite_of(benchmark={"device": ["acme_m0"]})
    with pytest.raises(SuiteError, match='unknown device "acme_m0"'):
        suite_of(benchmark={"device": ["acme_m0"]}, device={})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"acme_m0": {}}, r"device\.acme_m0.*install"),
        ({"acme_m0": {"install": 3}}, r"device\.acme_m0\.install: expected a string"),
        ({"acme_m0": {"install": "x", "url": "y"}}, r"device\.acme_m0\.url: unknown key"),
        ({"acme m0": {"install": "x"}}, r"acme m0"),
        ({"acme_m0": "pip install x"}, r"device\.acme_m0: expected a table"),
    ],
)
def test_wrong_tables_are_refused_with_their_place(table, message):
    with pytest.raises(SuiteError, match=message) as caught:
        suite_of(device=table)
    assert str(caught.value).startswith("/s/bench_own.toml: device")
