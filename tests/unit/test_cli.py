"""The command `mlbench`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytest_mlbench import __version__
from pytest_mlbench.cli import main


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pytest-mlbench {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["innit"]])
def test_without_a_known_verb_the_usage_is_shown(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: mlbench" in capsys.readouterr().err


def test_an_error_is_one_message_and_exit_code_2(capsys, tmp_path):
    assert main(["init", str(tmp_path / "net.onnx")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mlbench: ")
    assert "net.onnx does not exist" in printed.err
    assert "Traceback" not in printed.err


def test_a_reader_that_has_seen_enough_is_no_error():
    first, then = os.pipe()
    os.close(first)  # nobody reads
    done = subprocess.run(
        [sys.executable, "-m", "pytest_mlbench", "devices"], stdout=then, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(then)
    assert (done.returncode, done.stderr) == (141, "")


def test_it_runs_as_a_module_and_imports_no_framework():
    code = "import sys, runpy\nsys.argv = ['mlbench', '--version']\n"
    code += "try: runpy.run_module('pytest_mlbench', run_name='__main__')\n"
    code += "except SystemExit as end: print(end.code, sorted({'onnx', 'onnxruntime', 'tvm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
