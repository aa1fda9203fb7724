"""Precisions that a framework's adapter makes while it loads: cases, files, options, and what a broken archive says."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

import pytest

from pytest_mlbench import assets, registry
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import AssetError, SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.frameworks.torch import FRAMEWORK as TORCH
from pytest_mlbench.matrix import expand
from pytest_mlbench.models import ModelMaker
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.suitefile import Known, suite_from_tables

ONNX = Framework("onnxruntime", "onnx", "a", "onnxruntime", "")
KNOWN = Known(
    frameworks={"torch": TORCH, "onnxruntime": ONNX}, devices=("cpu",), scenarios=("single_stream",), metrics={}
)
# Its adapter and its framework are looked for, not imported: any module will do.
HERE = replace(TORCH, module="json")


@pytest.fixture
def archive(tmp_path):
    for name in ("net.pt2", "net16.pt2"):
        with zipfile.ZipFile(tmp_path / name, "w") as out:
            out.writestr("net/archive_format", f"pt2 {name}")
    return tmp_path


def cases(folder: Path, files, precision=("fp32", "fp16", "bf16"), framework="torch", **keys):
    model = {"name": "net", "files": {"torch": files, "onnx": {"fp32": "net.onnx"}}}
    benchmark = {"name": "b", "model": ["net"], "framework": [framework], "precision": list(precision), **keys}
    suite = suite_from_tables(
        {"mlbench": 1, "model": [model], "benchmark": [benchmark]}, folder / "bench_t.toml", KNOWN
    )
    return expand(suite, suite.benchmarks[0], KNOWN)


def test_an_fp32_file_gives_the_precisions_the_adapter_makes(archive):
    found = cases(archive, {"fp32": "net.pt2"})
    assert [case.param for case in found] == ["net-torch-fp32-cpu", "net-torch-fp16-cpu", "net-torch-bf16-cpu"]


@pytest.mark.parametrize(
    ("files", "precision", "has"),
    [({"fp32": "net.pt2"}, "int8", "bf16, fp16, fp32"), ({"fp16": "net16.pt2"}, "bf16", "fp16")],
)
def test_other_precisions_need_a_file(archive, files, precision, has):
    with pytest.raises(SuiteError) as caught:
        cases(archive, files, [precision])
    assert f'model "net" has no {precision} for torch (it has {has}). Add files.torch.{precision} to' in str(
        caught.value
    )


def test_other_frameworks_make_nothing(archive):
    with pytest.raises(SuiteError, match=r'model "net" has no fp16 for onnx \(it has fp32\)'):
        cases(archive, {"fp32": "net.pt2"}, ["fp16"], "onnxruntime")


def test_a_reference_may_be_a_precision_that_is_made(archive):
    tolerance = {"equivalence": {"fp32": {"rtol": 1e-3}}}
    reference = {"framework": "torch", "precision": "bf16"}
    assert len(cases(archive, {"fp32": "net.pt2"}, ["fp32", "bf16"], reference=reference, expect=tolerance)) == 2
    reference = {"framework": "torch", "precision": "bf16"}
    with pytest.raises(SuiteError, match=r'model "net" has no bf16 for torch, its reference'):
        cases(archive, {"fp16": "net16.pt2"}, ["fp16"], reference=reference, expect={"equivalence": {"*": {"rtol": 1}}})


def made(case):
    return ModelMaker(case, HERE, Cpu(), perf_counter_ns, []).resolve()


def test_the_file_is_the_fp32_one_unless_the_suite_names_another(archive):
    fp32, fp16, bf16 = cases(archive, {"fp32": "net.pt2", "fp16": "net16.pt2"})
    assert [made(one).path.name for one in (fp32, fp16, bf16)] == ["net.pt2", "net16.pt2", "net.pt2"]
    assert [made(one).origin for one in (fp32, fp16, bf16)] == ["file", "file", "bf16 from fp32 while loading"]


def test_the_adapter_is_told_what_to_make_and_only_then(archive):
    fp32, fp16, bf16 = cases(archive, {"fp32": "net.pt2", "fp16": "net16.pt2"})
    options = [Preparation(one, HERE, Cpu()).options for one in (fp32, fp16, bf16)]
    assert [one.get("convert") for one in options] == [None, None, "bf16"]
    given = Preparation(bf16, HERE, Cpu(), model=archive / "net16.pt2")
    assert "convert" not in given.options, "a file that a fixture gives is run as it is"


def test_outputs_of_two_precisions_of_one_file_are_kept_apart(archive):
    keys = []
    for case in cases(archive, {"fp32": "net.pt2"}):
        preparation = Preparation(case, HERE, Cpu())
        preparation.ready()
        keys.append(preparation.key())
    assert len({key.model_sha256 for key in keys}) == 1
    assert len({key.digest for key in keys}) == 3


@pytest.mark.parametrize("content", [b"no archive", b"PK\x03\x04 cut short"])
def test_an_archive_that_is_no_whole_zip_is_refused(tmp_path, content):
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    with pytest.raises(AssetError) as caught:
        assets.check(path, suite=tmp_path / "bench_t.toml")
    assert str(caught.value) == (
        f"{tmp_path / 'bench_t.toml'}: file {path} is no whole archive of torch.export (no zip, or cut short); write "
        "it with torch.export.save"
    )


def test_a_torch_that_is_not_installed_is_missing_with_the_line_that_installs_it(monkeypatch, tmp_path):
    absent = replace(TORCH, module="torch_that_is_nowhere")
    assert registry.missing(absent, None) == (
        "torch is not installed: pip install 'pytest-mlbench[torch]', best in an environment of its own"
    )
    elsewhere = tmp_path / "bin" / "python"
    assert registry.missing(absent, elsewhere) == f"interpreter {elsewhere} for torch does not exist"
