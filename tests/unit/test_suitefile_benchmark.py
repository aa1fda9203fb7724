"""The [[benchmark]] table: axes, settings, include, exclude and override."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.errors import AssetError, SuiteError
from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, MaxDrop, Price, Reference, ScenarioSpec
from pytest_mlbench.suitefile import Known, suite_from_tables
from pytest_mlbench.suitefile_benchmark import apply_override
from pytest_mlbench.suitefile_settings import Scope
from pytest_mlbench.tables import Place

OPTIONS = {
    "threads": Option(int, "Threads of one operator.", minimum=1),
    "level": Option(str, "Graph level.", choices=("all", "basic")),
    "cache": Option(str, "Free text."),
    "spin": Option(bool, "Whether idle threads spin."),
}
KNOWN = Known(
    frameworks={
        "onnxruntime": Framework("onnxruntime", "onnx", "a", "onnxruntime", "", options=OPTIONS),
        "tvm": Framework("tvm", "onnx", "a", "tvm", "", options={"threads": OPTIONS["threads"]}),
        "litert": Framework("litert", "tflite", "a", "ai_edge_litert", ""),
    },
    devices=["cpu", "pi4", "bad-name"],
    scenarios=["single_stream", "offline", "vendor"],
    metrics={"latency.p99": "ns"},
)
PATH = Path("/suites/bench_x.toml")
BASE = {"name": "b", "model": ["m"], "framework": ["onnxruntime"], "precision": ["fp32"]}


def suite_of(**keys):
    files = {"onnx": {"fp32": "m.onnx", "int8": "i.onnx"}, "tflite": {"fp32": "m.tflite"}}
    return suite_from_tables(
        {
            "mlbench": 1,
            "model": [{"name": "m", "files": files}, {"name": "n", "files": files}],
            "dataset": {
                "d": {"file": "d.npz"},
                "g": {"generate": "normal", "count": 4},
            },
            "benchmark": [{**BASE, **keys}],
        },
        PATH,
        KNOWN,
    )


def read(**keys):
    return suite_of(**keys).benchmarks[0]


def refusal(**keys):
    with pytest.raises(SuiteError) as caught:
        read(**keys)
    message = str(caught.value)
    assert message.startswith("/suites/bench_x.toml: benchmark[0]")
    return message.removeprefix("/suites/bench_x.toml: benchmark[0]").removeprefix(".")


def test_what_is_left_out_has_the_default_of_the_spec():
    assert read() == BenchmarkSpec("b", ("m",), (FrameworkSpec("onnxruntime", "onnxruntime"),), ("fp32",), ("cpu",))


def test_every_setting_is_read():
    benchmark = read(
        model=["n", "m"],
        precision=["int8", "fp32"],
        device=["pi4", "cpu"],
        batch=[8, 1],
        threads=[4],
        dataset="d",
        executed_precision="mixed",
        price={"usd_per_hour": 0.34, "date": datetime.date(2026, 1, 31), "source": "list"},
        metrics=["mine:measure"],
        preprocess="mine:before",
        postprocess="mine:sub.after",
        timeout_s=300,
        marks=["slow"],
    )
    assert benchmark == BenchmarkSpec(
        name="b",
        model=("n", "m"),
        framework=(FrameworkSpec("onnxruntime", "onnxruntime"),),
        precision=("int8", "fp32"),
        device=("pi4", "cpu"),
        batch=(8, 1),
        threads=(4,),
        dataset="d",
        executed_precision="mixed",
        price=Price(0.34, "2026-01-31", "list"),
        metrics=("mine:measure",),
        preprocess="mine:before",
        postprocess="mine:sub.after",
        timeout_s=300.0,
        marks=("slow",),
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"presicion": ["fp32"]}, 'presicion: unknown key; did you mean "precision"?'),
        ({"name": None}, ': the key "name" is missing; write for example: name = "classify"'),
        ({"name": "a b"}, 'name: "a b" may hold only letters'),
        ({"model": None}, ': the key "model" is missing'),
        ({"model": ["mm"]}, 'model[0]: unknown model "mm"; did you mean "m"? Known models: m, n'),
        ({"model": "m"}, 'model: expected a list of values, found "m" (a string); write ["m"]'),
        ({"model": ["m", "m"]}, 'model[1]: model "m" is given twice'),
        ({"model": []}, "model: expected at least one value, found an empty list"),
        ({"precision": ["fp8"]}, 'precision[0]: unknown precision "fp8". Known precisions: fp64, fp32'),
        ({"precision": None}, ': the key "precision" is missing'),
        ({"device": ["gpu"]}, 'device[0]: unknown device "gpu"'),
        ({"device": []}, "device: expected at least one value"),
        ({"device": ["bad-name"]}, 'device[0]: "bad-name" may hold only letters'),
        ({"batch": [0]}, "batch[0]: must be at least 1, found 0"),
        ({"batch": [1.5]}, "batch[0]: expected a whole number, found 1.5"),
        ({"batch": 8}, "batch: expected a list of values, found 8"),
        ({"threads": [True]}, "threads[0]: expected a whole number, found true"),
        ({"dataset": "dd"}, 'dataset: unknown data set "dd"; did you mean "d"?'),
        (
            {"executed_precision": "fp33"},
            'executed_precision: unknown precision "fp33"; did you mean "fp32"?',
        ),
        ({"metrics": ["mine.measure"]}, 'metrics[0]: expected "module:function"'),
        ({"preprocess": "before"}, 'preprocess: expected "module:function"'),
        ({"timeout_s": 0}, "timeout_s: must be above 0"),
        ({"timeout_s": "5 s"}, 'timeout_s: expected a number, found "5 s"'),
        ({"marks": ["a-b"]}, 'marks[0]: "a-b" is no name of a pytest mark'),
        ({"price": {"usd_per_hour": 1}}, 'price: the key "date" is missing'),
        ({"price": {"usd_per_hour": 0, "date": "2026-01-31"}}, "price.usd_per_hour: must be above 0"),
        ({"price": {"usd_per_hour": 1, "date": "yesterday"}}, "price.date: expected a day such as"),
        (
            {"price": {"usd_per_hour": 1, "date": datetime.time(12)}},
            "price.date: expected a string",
        ),
    ],
)
def test_a_wrong_value_is_refused(keys, message):
    assert message in refusal(**keys)


class TestFrameworks:
    def test_options_id_and_interpreter(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        entry = {"name": "tvm", "id": "tvm_old", "options": {"threads": 2}, "python": "~/env/bin/python"}
        old, here = read(framework=[entry, {"name": "tvm", "python": "../env/python"}]).framework
        assert old == FrameworkSpec("tvm", "tvm_old", {"threads": 2}, tmp_path / "env/bin/python")
        assert here == FrameworkSpec("tvm", "tvm", {}, Path("/suites/../env/python"))

    def test_an_interpreter_that_is_a_link_is_not_followed(self, tmp_path):
        link = tmp_path / "python"
        link.symlink_to("/usr/bin/env")
        (framework,) = read(framework=[{"name": "tvm", "python": str(link)}]).framework
        assert framework.python == link

    def test_a_list_of_values_is_an_axis(self):
        entry = {"name": "onnxruntime", "options": {"threads": [1, 2], "level": "all", "spin": [True, False]}}
        frameworks = read(framework=[entry, "litert"]).framework
        assert [one.id for one in frameworks] == [
            "onnxruntime_threads1_spintrue",
            "onnxruntime_threads1_spinfalse",
            "onnxruntime_threads2_spintrue",
            "onnxruntime_threads2_spinfalse",
            "litert",
        ]
        assert frameworks[1].options == {"threads": 1, "level": "all", "spin": False}

    def test_an_id_goes_before_the_values(self):
        entry = {"name": "tvm", "id": "t", "options": {"threads": [3]}}
        assert [one.id for one in read(framework=[entry]).framework] == ["t_threads3"]

    def test_letters_that_may_not_stand_in_an_id_are_replaced(self):
        entry = {"name": "onnxruntime", "options": {"cache": ["/a-b", "c"]}}
        assert [one.id for one in read(framework=[entry]).framework] == [
            "onnxruntime_cache_a_b",
            "onnxruntime_cachec",
        ]

    @pytest.mark.parametrize(
        ("frameworks", "message"),
        [
            (["onnxrutime"], 'framework[0]: unknown framework "onnxrutime"; did you mean "onnxruntime"?'),
            ("tvm", 'framework: expected a list of frameworks, found "tvm" (a string); write ["tvm"]'),
            ([], "framework: expected at least one value"),
            ([3], "framework[0]: expected a table, found 3"),
            ([{"id": "a"}], 'framework[0]: the key "name" is missing'),
            ([{"name": "tvn"}], 'framework[0].name: unknown framework "tvn"; did you mean "tvm"?'),
            ([{"name": "tvm", "option": {}}], 'framework[0].option: unknown key; did you mean "options"?'),
            ([{"name": "tvm", "id": "a-b"}], 'framework[0].id: "a-b" may hold only letters'),
            (
                ["tvm", {"name": "tvm"}],
                'framework[1]: framework "tvm" is given twice; give one of them another "id"',
            ),
            (
                [{"name": "tvm", "options": {"thread": 1}}],
                'framework[0].options.thread: unknown option of tvm "thread"; did you mean "threads"?',
            ),
            (
                [{"name": "tvm", "options": {"threads": 0}}],
                "framework[0].options.threads: must be at least 1",
            ),
            ([{"name": "tvm", "options": {"threads": "2"}}], "threads: expected a whole number"),
            ([{"name": "tvm", "options": {"threads": [1, 0]}}], "options.threads[1]: must be at least 1"),
            (
                [{"name": "tvm", "options": {"threads": [1, 1]}}],
                'options.threads[1]: threads = "1" is given twice',
            ),
            ([{"name": "tvm", "options": {"threads": []}}], "options.threads: expected at least one value"),
            (
                [{"name": "onnxruntime", "options": {"level": "al"}}],
                'options.level: unknown choice "al"; did you mean "all"? Known choices: all, basic',
            ),
            (
                [{"name": "onnxruntime", "options": {"spin": 1}}],
                "options.spin: expected true or false, found 1 (a whole number): Whether idle threads spin.",
            ),
            ([{"name": "tvm", "python": ""}], "framework[0].python: expected a string that is not empty"),
        ],
    )
    def test_a_wrong_framework_is_refused(self, frameworks, message):
        assert message in refusal(framework=frameworks)


class TestScenarios:
    def test_every_bound_is_read(self):
        made = {
            "kind": "vendor",
            "min_duration_s": 2,
            "max_duration_s": 9.5,
            "min_samples": 10,
            "max_samples": 100,
            "warmup_s": 0,
            "warmup_samples": 0,
            "seed": 5,
            "boundary": "end_to_end",
            "options": {"rate": 3},
        }
        assert read(scenario=made).scenario == (
            ScenarioSpec("vendor", 2.0, 9.5, 10, 100, 0.0, 0, 5, "end_to_end", {"rate": 3}),
        )

    def test_a_list_is_an_axis(self):
        scenarios = read(scenario=[{"kind": "offline"}, {"kind": "single_stream", "seed": 1}]).scenario
        assert scenarios == (ScenarioSpec("offline"), ScenarioSpec(seed=1))

    @pytest.mark.parametrize(
        ("made", "message"),
        [
            ({}, 'scenario: the key "kind" is missing'),
            ("offline", 'scenario: expected a table, found "offline" (a string); write { kind = "offline" }'),
            ([], "scenario: expected at least one scenario"),
            ({"kind": "ofline"}, 'scenario.kind: unknown scenario "ofline"; did you mean "offline"?'),
            (
                [{"kind": "offline"}, {"kind": "offline"}],
                'scenario[1].kind: scenario "offline" is given twice',
            ),
            ({"kind": "offline", "duration_s": 1}, "scenario.duration_s: unknown key; did you mean"),
            (
                {"kind": "offline", "min_duration_s": 90},
                "scenario: min_duration_s is 90, above max_duration_s, 60",
            ),
            ({"kind": "offline", "max_samples": 10}, "scenario: min_samples is 64, above max_samples, 10"),
            ({"kind": "offline", "min_samples": 0}, "scenario.min_samples: must be at least 1"),
            ({"kind": "offline", "warmup_s": -1}, "scenario.warmup_s: must be at least 0"),
            ({"kind": "offline", "boundary": "invok"}, 'unknown boundary "invok"; did you mean "invoke"?'),
        ],
    )
    def test_a_wrong_scenario_is_refused(self, made, message):
        assert message in refusal(scenario=made)


class TestReferences:
    @pytest.mark.parametrize(
        ("made", "reference"),
        [
            ({"framework": "onnxruntime", "precision": "fp32"}, Reference("onnxruntime", "fp32")),
            ({"precision": "fp64"}, Reference(None, "fp64")),
            ({"file": "out.npz"}, Reference(file=Path("/suites/out.npz"))),
        ],
    )
    def test_a_reference_is_another_case_or_a_file(self, made, reference):
        assert read(reference=made).reference == reference

    @pytest.mark.parametrize(
        ("made", "message"),
        [
            ({}, "reference: names nothing, so a case would be compared with itself"),
            ({"file": "o.npz", "precision": "fp32"}, "reference.file: stands alone"),
            ({"framework": "litert"}, 'reference.framework: unknown framework of this benchmark "litert"'),
            ({"precision": "fp23"}, 'reference.precision: unknown precision "fp23"; did you mean "fp32"?'),
        ],
    )
    def test_a_wrong_reference_is_refused(self, made, message):
        assert message in refusal(reference=made)

    def test_a_reference_file_stays_in_the_folder(self):
        with pytest.raises(AssetError, match=r"reference\.file"):
            read(reference={"file": "../out.npz"})

    def test_a_framework_is_named_by_its_id_or_its_registered_name(self):
        entry = {"name": "tvm", "options": {"threads": [1, 2]}}
        assert read(framework=[entry], reference={"framework": "tvm_threads2"}).reference.framework == "tvm_threads2"
        assert read(framework=[entry], reference={"framework": "tvm"}).reference.framework == "tvm"


class TestIncludes:
    def test_an_axis_left_out_takes_the_only_value(self):
        (extra,) = read(threads=[2], include=[{"precision": "int8", "batch": 4}]).include
        assert extra == {
            "model": "m",
            "framework": FrameworkSpec("onnxruntime", "onnxruntime"),
            "precision": "int8",
            "device": "cpu",
            "batch": 4,
            "threads": 2,
            "scenario": ScenarioSpec(),
        }

    def test_a_framework_may_be_new_or_one_of_the_axis(self):
        axis = {"name": "tvm", "id": "t", "options": {"threads": 3}}
        new = {"name": "tvm", "id": "u"}
        first, second, third = read(
            framework=[axis], include=[{"framework": one} for one in ("t", "litert", new)]
        ).include
        assert first["framework"] == FrameworkSpec("tvm", "t", {"threads": 3})
        assert second["framework"] == FrameworkSpec("litert", "litert")
        assert third["framework"] == FrameworkSpec("tvm", "u")

    def test_a_scenario_is_the_declared_one_of_its_kind(self):
        declared = {"kind": "offline", "seed": 9}
        first, second = read(
            scenario=declared, include=[{"scenario": "offline", "batch": 2}, {"scenario": "vendor"}]
        ).include
        assert (first["scenario"], second["scenario"]) == (
            ScenarioSpec("offline", seed=9),
            ScenarioSpec("vendor"),
        )

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            (
                {"include": [{"precison": "int8"}]},
                'include[0].precison: unknown key; did you mean "precision"?',
            ),
            ({"include": [{"precision": "int9"}]}, "include[0].precision: unknown precision"),
            ({"include": [{"device": "gpu"}]}, 'include[0].device: unknown device "gpu"'),
            ({"include": [{"batch": 0}]}, "include[0].batch: must be at least 1"),
            ({"include": [{"scenario": "server"}]}, 'include[0].scenario: unknown scenario "server"'),
            (
                {"batch": [1, 2], "include": [{"precision": "int8"}]},
                'include[0]: the key "batch" is missing; write for example: batch = 1 (the benchmark has',
            ),
            (
                {"include": [{"framework": {"name": "tvm", "options": {"threads": [1, 2]}}}]},
                "include[0].framework.options.threads: expected a whole number, found a list of 2",
            ),
        ],
    )
    def test_a_wrong_include_is_refused(self, keys, message):
        assert message in refusal(**keys)


class TestExcludes:
    def test_values_are_kept_as_tuples_by_axis(self):
        (rule,) = read(
            precision=["fp32", "int8"],
            batch=[1, 2],
            exclude=[{"precision": "int8", "batch": [1, 2], "reason": "r"}],
        ).exclude
        assert rule == {"precision": ("int8",), "batch": (1, 2), "reason": "r"}

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ({"precision": "fp32"}, 'exclude[0]: the key "reason" is missing'),
            ({"precision": "fp32", "reason": "  "}, "exclude[0].reason: expected a string that is not empty"),
            ({"reason": "r"}, "exclude[0]: names no axis, so it would match every case"),
            ({"precison": "fp32", "reason": "r"}, "exclude[0].precison: unknown key"),
            (
                {"precision": "fp16", "reason": "r"},
                'exclude[0].precision: unknown precision of this benchmark "fp16"',
            ),
            ({"precision": ["fp32", "fp16"], "reason": "r"}, "exclude[0].precision[1]: unknown precision"),
            ({"batch": 2, "reason": "r"}, 'exclude[0].batch: unknown batch of this benchmark "2"'),
            ({"batch": True, "reason": "r"}, "exclude[0].batch: expected a value of the axis"),
            ({"threads": 1, "reason": "r"}, "exclude[0].threads: unknown threads of this benchmark"),
            ({"precision": [], "reason": "r"}, "exclude[0].precision: expected at least one value"),
            (
                {"framework": "tvm", "reason": "r"},
                'exclude[0].framework: unknown framework of this benchmark "tvm"',
            ),
        ],
    )
    def test_a_wrong_exclude_is_refused(self, rule, message):
        assert message in refusal(exclude=[rule])

    def test_an_included_value_can_be_excluded(self):
        rules = [{"precision": "int8", "reason": "r"}]
        assert read(include=[{"precision": "int8"}], exclude=rules).exclude[0]["precision"] == ("int8",)


class TestOverrides:
    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ({"set": {"timeout_s": 1}}, 'override[0]: the key "when" is missing'),
            ({"when": {"precision": "fp32"}}, 'override[0]: the key "set" is missing'),
            ({"when": {}, "set": {"timeout_s": 1}}, "override[0].when: names no axis"),
            ({"when": {"precision": "fp16"}, "set": {"timeout_s": 1}}, "override[0].when.precision: unknown"),
            ({"when": {"precision": "fp32"}, "set": {}}, "override[0].set: sets nothing"),
            ({"when": {"precision": "fp32"}, "set": {"timeout": 1}}, "override[0].set.timeout: unknown key"),
            ({"when": {"precision": "fp32"}, "set": {"batch": [2]}}, "override[0].set.batch: is an axis"),
            ({"when": {"precision": "fp32"}, "set": {"exclude": []}}, "override[0].set.exclude: unknown key"),
            (
                {"when": {"precision": "fp32"}, "set": {"scenario": {"kind": "offline"}}},
                "override[0].set.scenario.kind: is an axis",
            ),
            (
                {"when": {"precision": "fp32"}, "set": {"scenario": {"max_samples": 3}}},
                "override[0].set.scenario: min_samples is 64, above max_samples, 3",
            ),
            (
                {"when": {"precision": "fp32"}, "set": {"expect": {"latency": {"p98": "<= 1 ms"}}}},
                'override[0].set.expect.latency.p98: unknown metric "latency.p98"; did you mean',
            ),
            (
                {"when": {"precision": "fp32"}, "set": {"expect": {"equivalence": {"*": {"rtol": 1}}}}},
                'override[0].set.expect.equivalence: compares with "reference", which is not set',
            ),
        ],
    )
    def test_a_wrong_override_is_refused(self, rule, message):
        assert message in refusal(override=[rule])

    def test_only_what_is_named_is_replaced(self):
        suite = suite_of(
            precision=["fp32", "int8"],
            dataset="d",
            reference={"precision": "fp32"},
            scenario=[{"kind": "offline", "seed": 4}, {"kind": "vendor", "warmup_s": 3}],
            expect={
                "latency": {"p99": "<= 5 ms"},
                "accuracy": {"top1": ">= 0.9", "max_drop": {"from": "fp32", "points": 1}},
                "equivalence": {"*": {"rtol": 1e-3, "atol": 1e-4}, "int8": {"sqnr_db": ">= 20"}},
                "placement": {"cpu": ">= 1"},
                "compliance": ["repeat_sample"],
            },
        )
        base = suite.benchmarks[0]
        settings = {
            "scenario": {"max_duration_s": 5},
            "expect": {
                "latency": {"p99": "<= 9 ms"},
                "accuracy": {"max_drop": {"points": 2}},
                "equivalence": {"*": {"atol": 1}},
                "placement": {"int8": ">= 50 %"},
            },
        }
        changed = apply_override(base, settings, Place(PATH), Scope(KNOWN, suite.models, suite.datasets))
        assert changed.scenario == (
            ScenarioSpec("offline", seed=4, max_duration_s=5),
            ScenarioSpec("vendor", warmup_s=3, max_duration_s=5),
        )
        assert changed.expect.limits["latency.p99"][0].value == 9e6
        assert changed.expect.limits["accuracy.top1"] == base.expect.limits["accuracy.top1"]
        assert (changed.expect.max_drop.source, changed.expect.max_drop.points) == ("fp32", 2)
        assert (changed.expect.equivalence["*"].rtol, changed.expect.equivalence["*"].atol) == (1e-3, 1)
        assert changed.expect.equivalence["int8"] == base.expect.equivalence["int8"]
        assert sorted(changed.expect.placement) == ["cpu", "int8"]
        assert changed.expect.compliance == ("repeat_sample",)
        assert (changed.reference, changed.dataset, changed.name) == (base.reference, "d", "b")
        assert base.expect.limits["latency.p99"][0].value == 5e6, "the benchmark itself stays as it is"


def test_an_override_may_name_another_precision_to_drop_from():
    suite = suite_of(
        precision=["fp32", "int8"],
        dataset="d",
        expect={"accuracy": {"max_drop": {"from": "fp32", "points": 1}}},
    )
    settings = {"expect": {"accuracy": {"max_drop": {"from": "int8"}}}}
    scope = Scope(KNOWN, suite.models, suite.datasets)
    changed = apply_override(suite.benchmarks[0], settings, Place(PATH), scope)
    assert changed.expect.max_drop == MaxDrop("int8", 1.0)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "m", "fp32", "cpu", "a:b", "<= 1 ms"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["kind", "when", "set", "reason", "precision", "p99", "file"]), inner)
    ),
    max_leaves=6,
)
_KEYS = [
    "device",
    "batch",
    "scenario",
    "exclude",
    "include",
    "override",
    "reference",
    "expect",
    "price",
    "metrics",
]


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=4))
def test_whatever_the_values_are_the_error_is_ours(keys):
    # Any other exception than SuiteError fails this test.
    with contextlib.suppress(SuiteError):
        read(**keys)
