"""The base's cases, collected by real pytest processes in the folders of two revisions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlbench import basecases
from pytest_mlbench.checkout import Checkout
from pytest_mlbench.errors import BaseError

TOML = """
mlbench = 1
[[model]]
name = "net"
files = {{ onnx = {{ fp32 = "net.onnx" }} }}
[[benchmark]]
name = "run"
model = ["net"]
framework = ["onnxruntime", "openvino"]
precision = ["fp32"]
device = ["cpu"]
exclude = [{{ framework = "openvino", reason = "{reason}" }}]
"""
PYTHON = """
import pytest
import shapes  # beside the suite, a module of each revision's own

mlbench_suite = {"mlbench": 1, "model": [{"name": "net", "files": {"onnx": {"fp32": "net.onnx"}}}]}

@pytest.mark.mlbench(model=["net"], framework=["onnxruntime"], precision=["fp32"], device=["cpu"], batch=shapes.BATCHES)
def bench_own(mlbench):
    mlbench.run()
"""


@pytest.fixture
def revisions(tmp_path):
    """Two folders as a checkout has them; what collecting needs no git for."""
    for name in ("base", "candidate"):
        folder = tmp_path / name / "suites" / "one"
        folder.mkdir(parents=True)
        (folder / "bench_one.toml").write_text(TOML.format(reason=f"as in the {name}"), encoding="utf-8")
        (folder / "net.onnx").write_bytes(b"x")
    return Checkout("main", "b" * 40, "c" * 40, False, "merge base", tmp_path / "candidate", tmp_path / "base")


def collect(checkout, *paths):
    root = checkout.root
    return basecases.collect(checkout, [root / path for path in paths or ("suites",)], root)


def test_cases_are_those_of_the_bases_files(revisions):
    found = collect(revisions)
    assert list(found.cases) == ["one/run[net-onnxruntime-fp32-cpu]", "one/run[net-openvino-fp32-cpu]"]
    assert found.errors == {}
    excluded = found.cases["one/run[net-openvino-fp32-cpu]"]
    assert excluded.skip == "as in the base"
    assert excluded.suite.path == revisions.tree / "suites/one/bench_one.toml"
    assert excluded.model.files["onnx"]["fp32"] == revisions.tree / "suites/one/net.onnx"


def test_only_the_suites_asked_for_are_collected(revisions):
    other = revisions.tree / "suites" / "two"
    other.mkdir()
    (other / "bench_two.toml").write_text((other.parent / "one/bench_one.toml").read_text().replace('"run"', '"walk"'))
    (other / "net.onnx").write_bytes(b"x")
    assert len(collect(revisions).cases) == 4
    assert [case.partition("/")[0] for case in collect(revisions, "suites/one").cases] == ["one", "one"]


def test_a_path_that_the_base_has_not_gives_no_cases(revisions):
    new = revisions.root / "suites" / "new"
    new.mkdir()
    assert collect(revisions, "suites/new") == basecases.BaseCases({}, {})
    assert len(collect(revisions, "suites/new", "suites/one").cases) == 2


def test_a_python_suite_imports_the_bases_modules(revisions):
    for name, batches in (("base", [1, 2, 3]), ("candidate", [1])):
        folder = revisions.root.parent / name / "suites" / "own"
        folder.mkdir()
        (folder / "bench_own.py").write_text(PYTHON, encoding="utf-8")
        (folder / "shapes.py").write_text(f"BATCHES = {batches}\n", encoding="utf-8")
        (folder / "conftest.py").write_text(
            "import sys, pathlib; sys.path.insert(0, str(pathlib.Path(__file__).parent))"
        )
        (folder / "net.onnx").write_bytes(b"x")
    before = dict(sys.modules)
    found = collect(revisions, "suites/own")
    assert found.errors == {}
    assert [case.batch for case in found.cases.values()] == [1, 2, 3]
    assert "shapes" not in set(sys.modules) - set(before), "nothing of the base is imported here"


def test_a_suite_that_cannot_be_read_is_told_and_the_others_are_collected(revisions):
    broken = revisions.tree / "suites" / "broken"
    broken.mkdir()
    (broken / "bench_broken.toml").write_text("mlbench = 99\n", encoding="utf-8")
    found = collect(revisions)
    assert len(found.cases) == 2
    there = revisions.tree / "suites/broken/bench_broken.toml"
    assert list(found.errors) == [str(there)]
    assert "99" in basecases.unreadable(found.errors, there)
    assert basecases.unreadable(found.errors, revisions.tree / "suites/one/bench_one.toml") == ""
    assert basecases.unreadable({str(there.parent): "the folder's"}, there) == "the folder's"


def test_a_project_in_which_warnings_are_errors_is_collected(revisions):
    (revisions.tree / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    assert len(collect(revisions).cases) == 2


def test_a_conftest_that_fails_is_told_with_the_last_lines(revisions):
    (revisions.tree / "suites" / "conftest.py").write_text("import no_such_module_of_the_base\n", encoding="utf-8")
    with pytest.raises(BaseError) as caught:
        collect(revisions)
    assert f"pytest cannot collect the base's suites in {revisions.tree} (exit status 4)" in str(caught.value)
    assert "no_such_module_of_the_base" in str(caught.value)


def test_a_base_that_never_ends_collecting(revisions, monkeypatch):
    monkeypatch.setattr(basecases, "DEADLINE_S", 1.0)
    (revisions.tree / "suites" / "conftest.py").write_text("import time; time.sleep(60)\n", encoding="utf-8")
    with pytest.raises(
        BaseError, match=r"collecting the base's suites in .* took more than 1 s; look what its conftest"
    ):
        collect(revisions)


def test_options_of_the_candidates_session_do_not_reach_the_base(revisions, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing --no-such-option")
    (revisions.tree / "pytest.ini").write_text("[pytest]\naddopts = --mlbench-base=main -p no:cacheprovider\n")
    assert len(collect(revisions).cases) == 2


def test_a_path_outside_the_repository_is_refused(revisions, tmp_path):
    with pytest.raises(BaseError, match="is not in the repository"):
        basecases.collect(revisions, [tmp_path], revisions.root)


def test_a_base_that_is_this_package_itself_does_not_replace_the_harness(revisions):
    package = revisions.tree / "pytest_mlbench"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the base is no harness')\n", encoding="utf-8")
    assert len(collect(revisions).cases) == 2
    code = "import pytest_mlbench"
    done = subprocess.run([sys.executable, "-c", code], cwd=revisions.tree, capture_output=True, text=True, check=False)
    assert "the base is no harness" in done.stderr, "it would, from this folder"
    assert Path(basecases.__file__).parent != package
