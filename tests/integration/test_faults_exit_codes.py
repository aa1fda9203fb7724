"""The exit code says what kind of trouble there was; one case passing never hides another's trouble."""

from __future__ import annotations

import pytest

from pytest_mlbench.outcome import exit_code
from pytest_mlbench.record import Record

FRAMEWORKS = (
    '{ name = "faulty", id = "sound" }',
    '{ name = "faulty", id = "wrong", options = { fault = "nan", stage = "accuracy" } }',
    '{ name = "faulty", id = "broken", options = { fault = "raise", stage = "load" } }',
    '{ name = "faulty", id = "unproven", options = { reports = "unknown" } }',
    '{ name = "faulty", id = "too_few" }',
    '{ name = "faulty_absent", id = "absent" }',
)
OVERRIDE = """override = [
  { when = { framework = ["too_few"] }, set = { expect = { accuracy = { top5 = ">= 0.5" } } } },
]"""


@pytest.fixture(scope="module")
def project(make_bed):
    bed = make_bed()
    bed.suite(*FRAMEWORKS, benchmark=OVERRIDE)
    (bed.project / "test_ordinary.py").write_text("def test_ordinary(): pass\n\ndef test_bad(): assert False\n")
    return bed


@pytest.mark.parametrize(
    ("selected", "code", "outcomes"),
    [
        ("sound", 0, {"sound": "pass"}),
        ("sound or absent", 0, {"sound": "pass", "absent": "skip"}),
        ("wrong", 1, {"wrong": "fail"}),
        ("broken", 12, {"broken": "error"}),
        ("unproven", 11, {"unproven": "invalid"}),
        ("absent", 13, {"absent": "skip"}),
        ("too_few", 10, {"too_few": "insufficient"}),
        ("sound or too_few or absent", 10, {"sound": "pass", "too_few": "insufficient", "absent": "skip"}),
        ("too_few or unproven", 11, {"too_few": "insufficient", "unproven": "invalid"}),
        ("broken or unproven", 12, {"broken": "error", "unproven": "invalid"}),
        ("wrong or broken or unproven", 1, {"wrong": "fail", "broken": "error", "unproven": "invalid"}),
    ],
)
def test_the_worst_outcome_decides(project, selected, code, outcomes):
    result = project.run("suites", "-k", selected)
    assert {key: record.outcome for key, record in result.records.items()} == outcomes
    assert result.code == code, result.out
    assert result.run.footer["exitstatus"] == code
    for key, outcome in outcomes.items():
        if outcome in ("invalid", "insufficient"):
            assert f"{outcome}: faults/run[net-{key}-fp32-cpu]:" in result.out, "pytest says the word"


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        *[(stage, 1) for stage in ("suite", "inputs", "metrics", "test setup", "test call")],
        *[(stage, 12) for stage in ("start", "load", "measure", "compile", "lease", "files")],
    ],
)
def test_what_the_user_gave_is_a_failure_and_no_trouble_of_the_machine(stage, code):
    record = Record(case="s/b[c]", node="n", axes={}, outcome="error", stage=stage)
    assert exit_code(1, [record], 0, None) == code


def test_no_case_selected_fails_and_is_said(project):
    result = project.run("suites", "-k", "nothing_of_that_name")
    assert result.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "mlbench: no case was selected (6 deselected); see what there is with --mlbench-list" in result.out
    assert result.run.records == ()


def test_no_case_selected_fails_with_workers_too(project):
    result = project.run("suites", "-k", "nothing_of_that_name", "-n", "1")
    assert result.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "mlbench: no case was selected" in result.out


def test_no_suite_found_fails_and_is_said(project):
    (project.project / "empty").mkdir()
    result = project.run("empty")
    assert result.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "mlbench: no case was selected (no suite (bench_*.toml, bench_*.py) was found there)" in result.out


def test_ordinary_tests_do_not_stand_in_for_cases(project):
    result = project.run("test_ordinary.py::test_ordinary", "suites", "-k", "not run")
    assert "1 passed" in result.out
    assert "mlbench: no case was selected (6 deselected)" in result.out
    assert result.code == 13


def test_an_ordinary_failure_beside_a_broken_case_is_1(project):
    result = project.run("test_ordinary.py", "suites", "-k", "test_bad or broken")
    assert result.code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "file or directory not found: nowhere"),
        (["--mlbench-format=xml"], "argument --mlbench-format: invalid choice: 'xml' (choose from"),
        (["--mlbench-lease-timeout=soon"], "argument --mlbench-lease-timeout: invalid float value: 'soon'"),
        (["--mlbench-python=faulty"], "--mlbench-python 'faulty': expected FRAMEWORK=PATH"),
        (
            ["--mlbench-python=faultty=/usr/bin/python3"],
            'faultty=/usr/bin/python3: unknown framework "faultty"; did you mean "faulty"?',
        ),
        (["--mlbench-python=faulty=venv/bin/python"], "venv/bin/python: there is no interpreter of that path; make"),
    ],
)
def test_a_usage_error_is_4_and_names_the_option(project, arguments, message):
    result = project.run(*arguments)
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert message in result.text
    assert "Traceback" not in result.out


def test_no_suites_folder_is_a_usage_error(bed):
    (bed.project / "suites").rmdir()
    result = bed.run()
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert f"--mlbench: no suites: {bed.project}/suites does not exist; give the path of a suite" in result.text
