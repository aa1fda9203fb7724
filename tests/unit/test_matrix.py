"""Expansion of a benchmark into cases: order, ids, excludes, includes, overrides, files, speed."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.matrix import expand
from pytest_mlbench.spec import ScenarioSpec
from pytest_mlbench.suitefile import Known, benchmark_from_table, suite_from_tables
from pytest_mlbench.tables import Traits

THREADS = {"threads": Option(int, "Threads.", minimum=1)}
KNOWN = Known(
    frameworks={
        "onnxruntime": Framework("onnxruntime", "onnx", "a", "onnxruntime", "", options=THREADS),
        "tvm": Framework("tvm", "onnx", "a", "tvm", "", options=THREADS),
        "litert": Framework("litert", "tflite", "a", "ai_edge_litert", ""),
    },
    devices=["cpu", "pi4"],
    scenarios=["single_stream", "offline"],
    metrics={"latency.p99": "ns"},
)
BASE = {"name": "classify", "model": ["m"], "framework": ["onnxruntime"], "precision": ["fp32"]}
FILES = {"onnx": {"fp32": "m.onnx", "int8": "i.onnx"}, "tflite": {"fp32": "m.tflite"}}


def suite_of(path="/s/bench_digits.toml", models=None, **keys):
    names = models or [{"name": "m", "files": FILES}, {"name": "n", "files": FILES}]
    tables = {
        "mlbench": 1,
        "model": names,
        "dataset": {"d": {"file": "d.npz"}},
        "benchmark": [{**BASE, "name": "other"}, {**BASE, **keys}],
    }
    return suite_from_tables(tables, Path(path), KNOWN)


def cases_of(**keys):
    suite = suite_of(**keys)
    return expand(suite, suite.benchmarks[1], KNOWN)


def params_of(**keys):
    return [case.param for case in cases_of(**keys)]


def refusal(**keys):
    with pytest.raises(SuiteError) as caught:
        cases_of(**keys)
    prefix = "/s/bench_digits.toml: benchmark[1]"
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_the_product_is_in_declared_order():
    assert params_of(
        model=["n", "m"], framework=["tvm", "onnxruntime"], precision=["int8", "fp32"], device=["pi4", "cpu"]
    ) == [
        f"{model}-{framework}-{precision}-{device}"
        for model in ("n", "m")
        for framework in ("tvm", "onnxruntime")
        for precision in ("int8", "fp32")
        for device in ("pi4", "cpu")
    ]


def test_a_case_holds_what_it_was_made_of():
    suite = suite_of(precision=["int8"], batch=[8], threads=[2], scenario={"kind": "offline", "seed": 3})
    (case,) = expand(suite, suite.benchmarks[1], KNOWN)
    assert case.suite is suite
    assert case.benchmark is suite.benchmarks[1]
    assert case.model is suite.models["m"]
    assert case.framework is suite.benchmarks[1].framework[0]
    assert case.scenario == ScenarioSpec("offline", seed=3)
    assert case.skip is None
    assert case.id == "digits/classify[m-onnxruntime-int8-cpu]"
    assert case.axes == {
        "model": "m",
        "framework": "onnxruntime",
        "precision": "int8",
        "device": "cpu",
        "batch": 8,
        "threads": 2,
        "scenario": "offline",
    }


@pytest.mark.parametrize(
    ("keys", "suffixes"),
    [
        ({}, [""]),
        ({"batch": [8]}, [""]),
        ({"threads": [4]}, [""]),
        ({"scenario": {"kind": "offline"}}, [""]),
        ({"batch": [1, 8]}, ["-b1", "-b8"]),
        ({"threads": [1, 4]}, ["-t1", "-t4"]),
        ({"scenario": [{"kind": "offline"}, {"kind": "single_stream"}]}, ["-offline", "-single_stream"]),
        ({"batch": [1, 8], "threads": [2, 4]}, ["-b1-t2", "-b1-t4", "-b8-t2", "-b8-t4"]),
        (
            {"batch": [8, 1], "threads": [2], "scenario": [{"kind": "single_stream"}, {"kind": "offline"}]},
            ["-b8-single_stream", "-b8-offline", "-b1-single_stream", "-b1-offline"],
        ),
    ],
)
def test_further_axes_stand_in_the_id_only_with_several_values(keys, suffixes):
    assert params_of(**keys) == [f"m-onnxruntime-fp32-cpu{suffix}" for suffix in suffixes]


def test_without_the_axis_threads_a_case_has_none():
    assert [case.threads for case in cases_of()] == [None]


class TestIncludes:
    def test_extra_cases_come_last(self):
        assert params_of(include=[{"framework": "litert"}, {"precision": "int8"}]) == [
            "m-onnxruntime-fp32-cpu",
            "m-litert-fp32-cpu",
            "m-onnxruntime-int8-cpu",
        ]

    def test_an_extra_value_shows_in_its_own_id_only(self):
        include = [{"batch": 4}, {"threads": 2}, {"scenario": "offline"}]
        assert params_of(include=include) == [
            "m-onnxruntime-fp32-cpu",
            "m-onnxruntime-fp32-cpu-b4",
            "m-onnxruntime-fp32-cpu-t2",
            "m-onnxruntime-fp32-cpu-offline",
        ]

    def test_a_case_that_is_there_already_is_refused(self):
        message = refusal(include=[{"precision": "fp32"}])
        assert "two cases have the id digits/classify[m-onnxruntime-fp32-cpu]" in message
        assert '"include"' in message


class TestExcludes:
    def test_an_excluded_case_stays_with_its_reason(self):
        cases = cases_of(precision=["fp32", "int8"], exclude=[{"precision": "int8", "reason": "too slow"}])
        assert [(case.precision, case.skip) for case in cases] == [("fp32", None), ("int8", "too slow")]

    def test_all_axes_of_a_rule_must_match(self):
        rule = {"framework": ["tvm", "litert"], "batch": 2, "reason": "r"}
        cases = cases_of(framework=["onnxruntime", "tvm", "litert"], batch=[1, 2], exclude=[rule])
        skipped = [(case.framework.id, case.batch) for case in cases if case.skip is not None]
        assert skipped == [("tvm", 2), ("litert", 2)]

    @pytest.mark.parametrize(
        ("axis", "value", "skipped"),
        [
            ("model", "n", ["n-onnxruntime-fp32-cpu"]),
            ("device", "pi4", ["m-onnxruntime-fp32-pi4"]),
            ("threads", 2, ["m-onnxruntime-fp32-cpu-t2"]),
            ("scenario", "offline", ["m-onnxruntime-fp32-cpu-offline"]),
        ],
    )
    def test_each_axis_can_be_named(self, axis, value, skipped):
        values = {
            "model": ["m", "n"],
            "device": ["cpu", "pi4"],
            "threads": [1, 2],
            "scenario": [{"kind": "single_stream"}, {"kind": "offline"}],
        }
        cases = cases_of(exclude=[{axis: value, "reason": "r"}], **{axis: values[axis]})
        assert [case.param for case in cases if case.skip] == skipped

    def test_a_registered_name_stands_for_all_of_its_ids(self):
        frameworks = ["onnxruntime", {"name": "tvm", "options": {"threads": [1, 2]}}]
        by_name = cases_of(framework=frameworks, exclude=[{"framework": "tvm", "reason": "r"}])
        assert [case.framework.id for case in by_name if case.skip] == ["tvm_threads1", "tvm_threads2"]
        by_id = cases_of(framework=frameworks, exclude=[{"framework": "tvm_threads2", "reason": "r"}])
        assert [case.framework.id for case in by_id if case.skip] == ["tvm_threads2"]

    def test_the_first_reason_counts_and_each_rule_has_matched(self):
        rules = [{"precision": "int8", "reason": "first"}, {"model": "m", "reason": "second"}]
        cases = cases_of(precision=["fp32", "int8"], exclude=rules)
        assert [case.skip for case in cases] == ["second", "first"]

    def test_a_rule_that_matches_nothing_is_refused(self):
        rules = [
            {"precision": "fp32", "reason": "r"},
            {"framework": "litert", "precision": "int8", "reason": "r"},
        ]
        include = [{"framework": "litert", "precision": "fp32"}]
        message = refusal(precision=["fp32", "int8"], include=include, exclude=rules)
        assert message.startswith(".exclude[1]: matches none of the cases")

    def test_an_included_case_can_be_excluded(self):
        cases = cases_of(include=[{"precision": "int8"}], exclude=[{"precision": "int8", "reason": "r"}])
        assert [case.skip for case in cases] == [None, "r"]


class TestOverrides:
    def test_only_matching_cases_are_changed_and_share_one_benchmark(self):
        rule = {"when": {"precision": "int8"}, "set": {"timeout_s": 9}}
        cases = cases_of(model=["m", "n"], precision=["fp32", "int8"], override=[rule])
        assert [case.benchmark.timeout_s for case in cases] == [120, 9, 120, 9]
        assert cases[0].benchmark is cases[2].benchmark
        assert cases[1].benchmark is cases[3].benchmark

    def test_later_overrides_win_and_the_rest_is_kept(self):
        rules = [
            {
                "when": {"precision": "int8"},
                "set": {"timeout_s": 9, "expect": {"latency": {"p99": "<= 9 ms"}}},
            },
            {"when": {"model": "n"}, "set": {"timeout_s": 7}},
        ]
        expect = {"latency": {"p99": "<= 5 ms"}}
        cases = cases_of(model=["m", "n"], precision=["fp32", "int8"], expect=expect, override=rules)
        found = [(case.benchmark.timeout_s, case.benchmark.expect.limits["latency.p99"][0].text) for case in cases]
        assert found == [(120, "<= 5 ms"), (9, "<= 9 ms"), (7, "<= 5 ms"), (7, "<= 9 ms")]

    def test_the_scenario_of_the_case_is_changed_too(self):
        rule = {"when": {"scenario": "offline"}, "set": {"scenario": {"max_samples": 99}}}
        scenarios = [{"kind": "single_stream"}, {"kind": "offline", "seed": 2}]
        cases = cases_of(scenario=scenarios, override=[rule])
        assert [case.scenario for case in cases] == [
            ScenarioSpec(),
            ScenarioSpec("offline", seed=2, max_samples=99),
        ]

    def test_an_included_scenario_is_changed_too(self):
        rule = {"when": {"scenario": "offline"}, "set": {"scenario": {"warmup_s": 4}}}
        cases = cases_of(include=[{"scenario": "offline"}], override=[rule])
        assert [case.scenario.warmup_s for case in cases] == [0.2, 4]

    def test_an_override_that_matches_nothing_is_refused(self):
        include = [{"framework": "litert"}, {"precision": "int8"}]
        rule = {"when": {"framework": "litert", "precision": "int8"}, "set": {"timeout_s": 9}}
        message = refusal(include=include, override=[rule])
        assert message.startswith(".override[0].when: matches none of the cases")


class TestFiles:
    def test_a_case_without_a_file_names_itself_and_three_remedies(self):
        message = refusal(framework=["onnxruntime", "litert"], precision=["fp32", "int8"])
        assert 'case digits/classify[m-litert-int8-cpu]: model "m" has no int8 for tflite (it has fp32)' in message
        assert "Add files.tflite.int8 to the model" in message
        assert 'exclude = [{ framework = "litert", precision = "int8", reason = "..." }]' in message
        assert "quantize" not in message, "only ONNX files can be quantised here"

    def test_for_onnx_quantize_is_a_remedy_too(self):
        assert "files.onnx.fp16 or quantize.fp16" in refusal(precision=["fp16"])

    def test_an_excluded_case_needs_no_file(self):
        rule = {"framework": "litert", "precision": "int8", "reason": "no file"}
        cases = cases_of(framework=["onnxruntime", "litert"], precision=["fp32", "int8"], exclude=[rule])
        assert [case.skip for case in cases] == [None, None, None, "no file"]

    @pytest.mark.parametrize(
        ("model", "framework", "precision", "works"),
        [
            ({"build": "nets:make"}, "onnxruntime", "fp32", True),
            ({"build": "nets:make"}, "onnxruntime", "fp16", False),
            ({"build": "nets:make"}, "litert", "fp32", False),
            ({"build": "a:b", "quantize": {"fp16": {"from": "fp32", "how": "float16"}}}, "tvm", "fp16", True),
            (
                {"build": "a:b", "quantize": {"fp16": {"from": "fp32", "how": "float16"}}},
                "litert",
                "fp16",
                False,
            ),
            ({"files": {"tflite": {"fp32": "a"}}}, "onnxruntime", "fp32", False),
        ],
    )
    def test_what_can_be_made_counts_as_there(self, model, framework, precision, works):
        keys = {"models": [{"name": "m", **model}], "framework": [framework], "precision": [precision]}
        suite = suite_from_tables({"mlbench": 1, "model": keys["models"]}, Path("/s/bench_digits.py"), KNOWN)
        made = {"model": ["m"], "framework": [framework], "precision": [precision]}
        benchmark = benchmark_from_table(made, "classify", suite, KNOWN)
        if works:
            assert len(expand(suite, benchmark, KNOWN)) == 1
        else:
            with pytest.raises(SuiteError, match=rf"bench_digits\.py: classify: case .* has no {precision}"):
                expand(suite, benchmark, KNOWN)

    def test_a_reference_without_a_file_is_refused(self):
        expect = {"equivalence": {"int8": {"sqnr_db": ">= 20"}}}
        keys = {"precision": ["fp32", "int8"], "expect": expect}
        assert len(cases_of(**keys, reference={"precision": "fp32"})) == 2
        message = refusal(**keys, reference={"precision": "fp64"})
        assert "[m-onnxruntime-int8-cpu]" in message
        assert "no fp64 for onnx, its reference" in message

    def test_a_reference_only_counts_where_a_tolerance_is_set(self):
        expect = {"equivalence": {"fp32": {"rtol": 1e-3}}}
        frameworks = ["onnxruntime", "litert"]
        rule = {"framework": "litert", "precision": "int8", "reason": "no file"}
        keys = {"framework": frameworks, "precision": ["fp32", "int8"], "exclude": [rule], "expect": expect}
        assert len(cases_of(**keys, reference={"framework": "litert"})) == 4


class TestThreads:
    def test_a_framework_without_the_option_is_refused(self):
        message = refusal(framework=["onnxruntime", "litert"], threads=[1, 2])
        assert message.startswith(".threads: case digits/classify[m-litert-fp32-cpu-t1]: litert has no option")

    def test_it_can_be_excluded(self):
        rule = {"framework": "litert", "reason": "no threads"}
        assert len(cases_of(framework=["onnxruntime", "litert"], threads=[2], exclude=[rule])) == 2

    def test_axis_and_option_at_once_are_refused(self):
        message = refusal(framework=[{"name": "tvm", "options": {"threads": 2}}], threads=[1])
        assert '"threads" is an axis and an option of the framework; keep one of them' in message


def test_messages_of_a_python_suite_name_the_benchmark():
    suite = suite_of(path="/s/bench_digits.py", precision=["fp16"])
    with pytest.raises(SuiteError, match=r"^/s/bench_digits\.py: classify: case "):
        expand(suite, suite.benchmarks[1], KNOWN)


def test_ten_thousand_cases_take_a_fraction_of_a_second():
    models = [{"name": f"m{i}", "files": FILES} for i in range(500)]
    names = [model["name"] for model in models]
    suite = suite_of(
        models=[{"name": "m", "files": FILES}, *models],
        model=names,
        framework=["onnxruntime", "tvm"],
        precision=["fp32", "int8"],
        batch=[1, 2, 4, 8, 16],
        exclude=[{"model": name, "batch": [2, 4], "reason": "r"} for name in names[:10]],
        override=[{"when": {"model": name}, "set": {"timeout_s": 9}} for name in names[:10]],
    )
    begin = time.process_time()
    cases = expand(suite, suite.benchmarks[1], KNOWN)
    assert len(cases) == 10_000
    assert sum(case.skip is not None for case in cases) == 10 * 8
    assert sum(case.benchmark.timeout_s == 9 for case in cases) == 10 * 20
    # 0.08 s on the slow machine this was written on; a quadratic step or parsing per case takes seconds.
    assert time.process_time() - begin < 0.6


@given(
    precision=st.permutations(["fp32", "int8"]),
    batch=st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
    threads=st.lists(st.integers(1, 4), max_size=2, unique=True),
    frameworks=st.permutations(["onnxruntime", "tvm"]),
)
def test_ids_are_unique_and_hold_only_their_letters(precision, batch, threads, frameworks):
    axes = {"precision": precision, "batch": batch, "framework": frameworks}
    cases = cases_of(**axes, **({"threads": threads} if threads else {}))
    assert len({case.id for case in cases}) == len(cases) == 4 * len(batch) * max(1, len(threads))
    for case in cases:
        assert set(case.param) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


# --- what a device takes ------------------------------------------------------------------------------------

BOARDS = dataclasses.replace(
    KNOWN,
    frameworks={**KNOWN.frameworks, "firmware": Framework("firmware", "firmware", "a", "numpy", "", on_board=True)},
    devices=["cpu", "m4"],
    traits=lambda device: Traits(("firmware",), emulated=True) if device == "m4" else Traits(),
)


def on_boards(framework, precision=("fp32",), files=FILES):
    benchmark = {**BASE, "framework": list(framework), "device": ["cpu", "m4"], "precision": list(precision)}
    tables = {"mlbench": 1, "model": [{"name": "m", "files": files}], "benchmark": [benchmark]}
    suite = suite_from_tables(tables, Path("/s/bench_x.toml"), BOARDS)
    return {case.param: case for case in expand(suite, suite.benchmarks[0], BOARDS)}


def test_a_board_takes_its_built_in_kernels_only_and_nothing_else_takes_those():
    found = on_boards(["onnxruntime", "firmware"])
    assert {param: case.skip for param, case in found.items()} == {
        "m-onnxruntime-fp32-cpu": None,
        "m-onnxruntime-fp32-m4": "m4 takes firmware only",
        "m-firmware-fp32-cpu": "firmware is what a board has built in, and cpu is none",
        "m-firmware-fp32-m4": None,
    }


def test_a_case_knows_that_its_device_is_emulated():
    assert {case.device: case.emulated for case in on_boards(["firmware"]).values()} == {"cpu": False, "m4": True}


def test_a_model_that_names_no_image_may_be_in_the_board_already():
    assert on_boards(["firmware"])["m-firmware-fp32-m4"].skip is None


def test_an_image_of_another_precision_is_none():
    with pytest.raises(SuiteError, match=r'model "m" has no fp32 for firmware \(it has int8\)'):
        on_boards(["firmware"], files={**FILES, "firmware": {"int8": "i.elf"}})
