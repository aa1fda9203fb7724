"""What is installed beside us: a vendor's package that is broken, and a compiler that is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

DIGITS = Path(__file__).parents[2] / "suites" / "digits"


def install(bed, name, entry_point, **files):
    """Lay out a vendor's package as pip would; returns the folder for PYTHONPATH."""
    folder = bed.root / "site"
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mlbench.frameworks]\n{name} = {entry_point}\n")
    for file, text in files.items():
        (folder / f"{file}.py").write_text(text)
    return f"{bed.env['PYTHONPATH']}:{folder}"


@pytest.mark.parametrize(
    ("entry_point", "source", "message"),
    [
        ("gone:FRAMEWORK", "", "framework 'broken' (gone:FRAMEWORK) cannot be loaded: No module named 'gone'"),
        ("broken:FRAMEWORK", "1 / 0", "framework 'broken' (broken:FRAMEWORK) cannot be loaded: division by zero"),
        ("broken:NONE", "", "framework 'broken' (broken:NONE) cannot be loaded: module 'broken' has no attribute"),
        ("broken:NAME", "NAME = 'x'", "framework 'broken' is registered as a str, expected a Framework"),
    ],
)
def test_a_broken_vendor_package_is_named(bed, entry_point, source, message):
    bed.suite()
    result = bed.run(PYTHONPATH=install(bed, "broken", entry_point, broken=source))
    assert result.code == pytest.ExitCode.INTERRUPTED
    assert message in result.text
    assert "Traceback" not in result.out


def test_an_adapter_that_is_not_there_is_named(bed):
    source = (
        "from pytest_mlbench.frameworks.api import Framework\n"
        "FRAMEWORK = Framework('half', 'faulty', 'half_adapter', 'json', 'pip install half')\n"
    )
    bed.suite('"half"')
    result = bed.run(PYTHONPATH=install(bed, "half", "half:FRAMEWORK", half=source))
    record = result.records["half"]
    assert (record.outcome, record.stage) == ("error", "suite")
    assert "adapter module 'half_adapter' cannot be found; reinstall its package" in record.reason


def test_a_missing_c_compiler_is_named_with_the_remedy(bed, require):
    require("tvm")
    require("onnx")
    shutil.copytree(DIGITS, bed.project / "suites" / "digits", ignore=shutil.ignore_patterns("__pycache__"))
    nothing = bed.root / "nothing"
    nothing.mkdir()
    result = bed.run("suites/digits", "-k", "tvm and fp32", PATH=str(nothing), CC="", CXX="")
    record = result.records["tvm"]
    assert (record.outcome, record.stage) == ("error", "compile")
    wanted = "TVM needs a C compiler (cc, gcc or clang) to export a compiled model: install one"
    assert wanted in record.reason
    assert f"error(compile): {record.case}: RuntimeError: {wanted}" in result.text
    assert result.code == 12
