"""What a project changes without leaving pytest: fixtures, hooks and metrics of its own."""

from __future__ import annotations

import pytest

ONE = ("-k", "litert-fp32")
CASE = "digits/classify[digits_cnn-litert-fp32-cpu]"

OWN_DEVICE = """\
import sys
import pytest

class Bench3:
    name = "bench3"
    resources = ("cpu", "bench3-switch")
    is_host = True
    def gateway(self, python):
        return f"popen//python={python or sys.executable}//execmodel=main_thread_only"
    def place(self, file):
        return str(file)
    def facts(self):
        return {"shelf": 3}

@pytest.fixture
def mlbench_device():
    return Bench3()
"""


def expecting(project, lines: str) -> None:
    """Replace the expectations of the suite."""
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8")
    path.write_text(text[: text.index("[benchmark.expect]")] + lines, "utf-8")


def test_a_device_of_ones_own_class(project):
    project.write("suites/conftest.py", OWN_DEVICE)
    result = project.run("--mlbench", *ONE)
    result.assert_outcomes(passed=1)
    (record,) = project.last_run().records
    assert (record.target["device"], record.target["shelf"]) == ("bench3", 3)


def test_a_device_by_name(project):
    conftest = "import pytest\n@pytest.fixture\ndef mlbench_device():\n    return 'cpu'\n"
    project.write("conftest.py", conftest)
    project.run("--mlbench", *ONE).assert_outcomes(passed=1)
    project.write("conftest.py", conftest.replace("'cpu'", "'gpu'"))
    result = project.run("--mlbench", *ONE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['fixture mlbench_device: unknown device "gpu"*Known devices: *cpu*'])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert project.outcomes() == {CASE: "error"}


def test_a_device_that_is_none_is_told_what_it_lacks(project):
    project.write(
        "conftest.py",
        "import pytest\nclass Half:\n    name = 'half'\n@pytest.fixture\ndef mlbench_device():\n    return Half()\n",
    )
    result = project.run("--mlbench", *ONE)
    result.stdout.fnmatch_lines(["fixture mlbench_device: Half has no resources, is_host, gateway, place, facts;*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


MODEL = """\
import shutil
from pathlib import Path
import pytest

HERE = Path(__file__).parent

@pytest.fixture(scope="session")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "other.tflite"
    shutil.copyfile(HERE / "suites/digits/models/digits_int8.tflite", path)
    with open(HERE / "made.txt", "a") as stream:
        stream.write("x")
    return path

@pytest.fixture
def mlbench_model(made, mlbench_case):
    return str(made) if mlbench_case.framework.name == "litert" else None
"""


def test_a_model_made_by_a_fixture_is_what_is_measured(project):
    project.write("conftest.py", MODEL)
    expecting(project, "")
    result = project.run("--mlbench", "-k", "litert")
    outcomes = {record.axes["precision"]: record for record in project.last_run().records}
    # int8 weights where the axis says fp32: a label says what ran
    assert outcomes["fp32"].outcome == "fail"
    assert "executed_precision" in outcomes["fp32"].reason
    assert outcomes["int8"].outcome == "pass"
    assert outcomes["fp32"].hashes["model"] == outcomes["int8"].hashes["model"]
    assert outcomes["fp32"].metric("model.size").value == 5704
    assert (project.root / "made.txt").read_text() == "x"
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_the_reference_of_an_overridden_model_is_the_suites(project):
    """The same framework in another precision is no reason to compare the model with itself."""
    project.write("conftest.py", MODEL)
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8").replace(
        'reference = { framework = "onnxruntime", precision = "fp32" }',
        'reference = { framework = "litert", precision = "fp32" }',
    )
    path.write_text(text.replace('sqnr_db = ">= 20"', 'sqnr_db = ">= 200"'), "utf-8")
    project.run("--mlbench", "-k", "litert-int8")
    (record,) = project.last_run().records
    assert "equivalence.sqnr_db" in record.reason


def test_a_missing_file_from_mlbench_model_is_an_error_of_the_case(project):
    project.write(
        "conftest.py", "import pytest\n@pytest.fixture\ndef mlbench_model():\n    return '/nowhere/m.tflite'\n"
    )
    result = project.run("--mlbench", *ONE)
    result.stdout.fnmatch_lines(
        [f"error(suite): {CASE.replace('[', '[[]', 1).replace('cpu]', 'cpu[]]')}: */nowhere/m.tflite does not exist*"]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_session_fixture_serves_a_python_suite(project):
    project.write(
        "conftest.py",
        "import pytest\n@pytest.fixture(scope='session')\ndef limit_ns():\n    print('made once')\n    return 1e9\n",
    )
    project.python_suite(
        "@pytest.mark.mlbench(**{**AXES, 'framework': ['litert', 'onnxruntime']})\n"
        "def bench_classify(mlbench, limit_ns, tmp_path):\n"
        "    assert mlbench.run().metric('latency.p50').value < limit_ns\n"
    )
    result = project.run("--mlbench", "-s")
    result.assert_outcomes(passed=2)
    assert result.stdout.str().count("made once") == 1


HOOKS = """\
from dataclasses import replace

def pytest_mlbench_modify_cases(config, suite, cases):
    assert suite.name == "digits"
    cases[:] = [
        replace(case, skip="board is away") if case.precision == "int8" else case
        for case in cases
        if case.framework.name == "litert"
    ]

RECORDS = []

def pytest_mlbench_record(config, record):
    RECORDS.append(record)

def pytest_unconfigure():
    for record in RECORDS:
        print("exported", record.case, record.outcome, record.node)
"""


def test_hooks_of_a_conftest_drop_skip_and_export_cases(project):
    project.write("conftest.py", HOOKS)
    result = project.run("--mlbench", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED [[]1[]] *board is away"])
    node = "suites/digits/bench_digits.toml::classify[[]digits_cnn-litert-{}-cpu[]]"
    result.stdout.fnmatch_lines(
        [
            f"exported digits/classify[[]digits_cnn-litert-fp32-cpu[]] pass {node.format('fp32')}",
            f"exported digits/classify[[]digits_cnn-litert-int8-cpu[]] skip {node.format('int8')}",
        ]
    )


def test_hooks_of_a_folders_conftest_are_for_that_folder(project):
    project.write("suites/a_first/conftest.py", "def pytest_mlbench_modify_cases(cases): cases.clear()\n")
    text = (project.suite / "bench_digits.toml").read_text("utf-8")
    other = text.replace("mlbench = 1\n", 'mlbench = 1\nname = "other"\n')
    project.write("suites/a_first/bench_other.toml", other)
    result = project.run("--mlbench-list", "-k", "fp32")
    result.stdout.fnmatch_lines(["2 cases, 2 run, 0 skipped"])
    result.stdout.no_fnmatch_line("other/*")


def test_a_benchmark_of_which_a_hook_left_nothing_is_deselected(project):
    project.write("conftest.py", "def pytest_mlbench_modify_cases(cases): cases.clear()\n")
    project.write("tests/test_ordinary.py", "def test_it(): pass\n")
    result = project.run("--mlbench", "suites", "tests")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.no_fnmatch_line("*NOTSET*")


OWN_METRIC = """\
from pytest_mlbench.record import Metric

def margin(m):
    logits = next(iter(m.outputs.values()))
    yield Metric("margin.mean", float(logits.max(axis=1).mean()), "", "higher", origin="derived")
"""


def test_a_metric_of_ones_own_with_a_limit(project):
    project.write("suites/digits/own.py", OWN_METRIC)
    expecting(project, "")
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8") + 'metrics = ["own:margin"]\n[benchmark.expect.margin]\nmean = ">= 0"\n'
    path.write_text(text, "utf-8")
    project.run("--mlbench", *ONE).assert_outcomes(passed=1)
    metric = project.last_run().records[0].metric("margin.mean")
    assert metric.value > 0
    path.write_text(text.replace(">= 0", ">= 1000000"), "utf-8")
    result = project.run("--mlbench", *ONE)
    result.stdout.fnmatch_lines(["margin.mean: *limit >= 1000000*"])


def test_two_suites_may_each_have_a_module_of_one_name(project):
    project.write("suites/digits/own.py", OWN_METRIC)
    project.write("suites/other/own.py", OWN_METRIC.replace("margin.mean", "margin.other"))
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8").replace("marks =", 'metrics = ["own:margin"]\nmarks =')
    path.write_text(text, "utf-8")
    for name in ("models", "data"):
        (project.root / "suites" / "other" / name).mkdir()
        for file in (project.suite / name).iterdir():
            (project.root / "suites" / "other" / name / file.name).write_bytes(file.read_bytes())
    project.write("suites/other/bench_other.toml", text)
    project.run("--mlbench", *ONE).assert_outcomes(passed=2)
    first, second = project.last_run().records
    assert first.metric("margin.mean").value == second.metric("margin.other").value


def vendor_package(project) -> str:
    """Lay out an installed vendor package with an entry point; returns the folder for PYTHONPATH."""
    root = project.root / "site"
    info = "site/mlbench_vendor-1.0.dist-info"
    project.write("site/mlbench_vendor.py", OWN_METRIC.replace("margin.mean", "vendor.margin"))
    project.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mlbench-vendor\nVersion: 1.0\n")
    project.write(f"{info}/entry_points.txt", "[mlbench.metrics]\nvendor = mlbench_vendor:margin\n")
    return str(root)


def test_a_vendors_metric_comes_by_entry_point(project):
    expecting(project, '[benchmark.expect.vendor]\nmargin = ">= 0"\n')
    done = project.subprocess("--mlbench", "-v", *ONE, env={"PYTHONPATH": vendor_package(project)})
    assert done.returncode == 0, done.stdout
    assert "vendor.margin" in done.stdout
    (record,) = project.last_run().records
    assert record.metric("vendor.margin").origin == "derived"
    assert any(check.name == "vendor.margin" for check in record.checks)


def test_an_unknown_metric_is_an_error_where_no_vendor_is_installed(project):
    expecting(project, '[benchmark.expect.vendor]\nmargin = ">= 0"\n')
    result = project.run("--mlbench", "--collect-only")
    result.stdout.fnmatch_lines(["*bench_digits.toml: benchmark[[]0[]].expect.vendor*"])
