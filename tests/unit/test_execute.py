"""Variants of a case, and what an executor knows before anything runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pytest_mlbench import datasets, registry
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import SuiteError, Unavailable
from pytest_mlbench.execute import Executor, variant
from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.matrix import Case
from pytest_mlbench.models import ModelFile
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.provenance import Side
from pytest_mlbench.spec import BenchmarkSpec, DatasetSpec, FrameworkSpec, ModelSpec, ScenarioSpec, SuiteSpec

THREADS = Option(int, "Threads.", minimum=1, default=1)
LEVEL = Option(str, "Level.", choices=("low", "high"))
PLAIN = Framework("ort", "onnx", "a", "json", "pip install ort", options={"threads": THREADS, "level": LEVEL})


def case(*, frameworks=("ort", "tvm"), suffix="", batch=1, threads=None, dataset=None, folder=Path(), **benchmark):
    specs = tuple(one if isinstance(one, FrameworkSpec) else FrameworkSpec(one, one) for one in frameworks)
    model = ModelSpec("my-net")
    data = {dataset.name: dataset} if dataset else {}
    spec = BenchmarkSpec(
        "b", ("my-net",), specs, ("fp32",), ("cpu",), dataset=dataset.name if dataset else None, **benchmark
    )
    suite = SuiteSpec("s", folder / "bench_s.toml", {"my-net": model}, data, (spec,))
    param = f"my-net-{specs[0].id}-fp32-cpu{suffix}"
    return Case(suite, spec, model, specs[0], "fp32", "cpu", batch, threads, ScenarioSpec(), param)


def prepared(of, framework=PLAIN):
    return Preparation(of, framework, Cpu())


def executor(of):
    return Executor(prepared(of), registry.Registry())


# --- variants -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({}, "my-net-ort-fp32-cpu-b8-offline"),
        ({"framework": "tvm"}, "my-net-tvm-fp32-cpu-b8-offline"),
        ({"precision": "int8"}, "my-net-ort-int8-cpu-b8-offline"),
        ({"framework": "tvm", "precision": "int8"}, "my-net-tvm-int8-cpu-b8-offline"),
    ],
)
def test_the_id_of_a_variant_is_that_of_the_case_it_names(changes, param):
    found = variant(case(suffix="-b8-offline", batch=8), **changes)
    assert found.param == param
    assert found.id == f"s/b[{param}]"
    assert (found.framework.id, found.precision) == (changes.get("framework", "ort"), changes.get("precision", "fp32"))
    assert found.batch == 8


def test_a_variant_of_another_batch():
    assert variant(case(), batch=4).batch == 4


def test_a_framework_is_named_by_its_word_before_its_name():
    frameworks = (FrameworkSpec("ort", "ort"), FrameworkSpec("tvm", "tvm_o3"), FrameworkSpec("tvm", "tvm"))
    assert variant(case(frameworks=frameworks), framework="tvm_o3").framework is frameworks[1]
    assert variant(case(frameworks=frameworks), framework="tvm").framework is frameworks[2]
    assert variant(case(frameworks=frameworks[:2]), framework="tvm").framework is frameworks[1]


def test_a_framework_that_is_not_on_the_axis():
    with pytest.raises(SuiteError, match=r"bench_s.toml: reference framework 'litert' is not among ort, tvm"):
        variant(case(), framework="litert")


# --- options ------------------------------------------------------------------------------------------------


def test_options_are_defaults_then_the_suites_then_the_axis():
    found = prepared(case()).options
    assert found == {"threads": 1, "batch": 1, "shapes": {}}
    own = FrameworkSpec("ort", "ort", {"level": "high", "threads": 2})
    assert prepared(case(frameworks=(own,))).options == {"threads": 2, "level": "high", "batch": 1, "shapes": {}}
    assert prepared(case(frameworks=(own,), threads=4, batch=8)).options["threads"] == 4
    assert prepared(case(batch=8)).options["batch"] == 8


def test_whole_shapes_are_told_of_generated_data():
    data = DatasetSpec("d", generate="normal", count=4, shapes={"ids": (16,), "image": (3, 8, 8)})
    assert prepared(case(dataset=data, batch=2)).options["shapes"] == {"ids": [2, 16], "image": [2, 3, 8, 8]}


def stored(folder, **given):
    np.savez(folder / "data.npz", a=np.zeros((6, 4, 4), np.uint8), b=np.zeros((6, 3), np.uint8))
    data = DatasetSpec("d", file=folder / "data.npz", **given)
    made = prepared(case(dataset=data, batch=2, folder=folder))
    made.samples = datasets.read(data, made.suite)
    return made


def test_whole_shapes_are_told_of_stored_data_as_prepared(tmp_path):
    made = stored(tmp_path, inputs={"image": "a", "b": "b"}, preprocess={"*": ({"reshape": (-1,)},)})
    assert made.options["shapes"] == {"image": [2, 16], "b": [2, 3]}


def test_steps_are_those_of_the_frameworks_format(tmp_path):
    steps = {"*": ({"scale": 2.0},), "onnx": ({"reshape": (-1,)},), "tflite": ({"offset": 1.0},)}
    assert stored(tmp_path, preprocess=steps).steps == [{"reshape": (-1,)}]
    assert stored(tmp_path, preprocess={"*": ({"scale": 2.0},)}).steps == [{"scale": 2.0}]
    assert stored(tmp_path).steps == []


def test_a_step_that_does_not_fit_is_the_suites_error(tmp_path):
    made = stored(tmp_path, inputs={"x": "a"}, preprocess={"*": ({"reshape": (5,)},)})
    with pytest.raises(
        SuiteError, match=r"bench_s.toml: dataset.d.*: preprocess step reshape = .* does not fit samples"
    ):
        made.options  # noqa: B018


def test_a_users_own_function_makes_shapes_unknown(tmp_path):
    made = stored(tmp_path)
    made.case = replace(made.case, benchmark=replace(made.case.benchmark, preprocess="own:f"))
    assert made.options["shapes"] == {}


# --- what outputs are kept under ----------------------------------------------------------------------------


def keyed(made, python=None, side=None, **benchmark):
    """Return the preparation with another interpreter, side or function."""
    case = replace(made.case, benchmark=replace(made.case.benchmark, **benchmark))
    case = replace(case, framework=replace(case.framework, python=python))
    found = Preparation(case, made.framework, made.device, side=side)
    found.samples = made.samples
    found.source = ModelFile(Path("net.onnx"), "0" * 64)
    return found


def test_another_interpreter_is_another_key_whatever_is_installed_here(tmp_path):
    made = stored(tmp_path)
    made.framework = replace(PLAIN, adapter="json", distributions=("numpy",))
    here, there = keyed(made), keyed(made, python=Path(sys.executable))
    assert here.key().version.startswith("numpy ")
    assert there.key().version == sys.executable
    assert here.key() != there.key()
    assert here.covers_outputs
    assert not there.covers_outputs, "what is installed there may change"


def test_a_functions_modules_of_a_revision_are_not_known_beforehand(tmp_path):
    made = stored(tmp_path)
    side = Side("base", tmp_path, tmp_path.parent / "other")
    assert keyed(made, side=side).covers_outputs
    for key in ("preprocess", "postprocess"):
        assert keyed(made, **{key: "own:f"}).covers_outputs
        assert not keyed(made, side=side, **{key: "own:f"}).covers_outputs


def test_a_case_with_functions_is_another_when_a_module_of_its_revision_is(tmp_path):
    made = stored(tmp_path)
    made.framework = replace(PLAIN, adapter="json")
    (tmp_path / "bench_s.toml").touch()
    side = Side("candidate", tmp_path, tmp_path.parent / "other", frozenset({"src/product.py"}))
    (tmp_path / "src").mkdir()
    found = {}
    for text in ("a = 1", "a = 2"):
        (tmp_path / "src" / "product.py").write_text(text, encoding="utf-8")
        for function in (None, "own:f"):
            one = keyed(made, side=side, preprocess=function)
            one._artefact = one.source
            found[text, function] = one.identity()
    assert found["a = 1", None] == found["a = 2", None]
    assert found["a = 1", "own:f"] != found["a = 2", "own:f"]


def test_modules_that_may_have_to_be_the_sides_own_are_named(tmp_path):
    made = stored(tmp_path)
    (tmp_path / "own.py").touch()
    assert keyed(made).own_names == ["own"]
    side = Side("base", tmp_path, tmp_path.parent / "other", frozenset({"packages/product/core.py"}))
    assert keyed(made, side=side).own_names == ["core", "own", "packages", "product"]


# --- what it stands on --------------------------------------------------------------------------------------


def test_a_framework_that_is_not_installed_is_unavailable():
    with pytest.raises(Unavailable, match="ort is not installed: pip install ort"):
        prepared(case(), replace(PLAIN, module="no_such_framework"))
    own = FrameworkSpec("ort", "ort", python=Path("/no/such/python"))
    with pytest.raises(Unavailable, match="interpreter /no/such/python for ort does not exist"):
        prepared(case(frameworks=(own,)))


def test_seeds_are_those_that_had_a_part():
    of = case()
    assert executor(of)._seeds() == {"order": 0, "dataset": 0}
    built = replace(of, model=replace(of.model, build="nets:net", seed=7), scenario=ScenarioSpec(seed=3))
    assert executor(built)._seeds() == {"order": 3, "dataset": 0, "model": 7}


def test_stored_data_has_no_seed(tmp_path):
    assert Executor(stored(tmp_path), registry.Registry())._seeds() == {"order": 0}
