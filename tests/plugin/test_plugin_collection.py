"""Cases are ordinary pytest items: selection, order, failures and reports work as pytest's users expect."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET

import pytest


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line and " " not in line]


def test_node_ids_are_the_case_under_its_suite_file(project, plain_run):
    result = project.run("--mlbench", "--collect-only", "-q")
    assert collected(result) == [
        "suites/digits/bench_digits.toml::classify[digits_cnn-onnxruntime-fp32-cpu]",
        "suites/digits/bench_digits.toml::classify[digits_cnn-onnxruntime-int8-cpu]",
        "suites/digits/bench_digits.toml::classify[digits_cnn-litert-fp32-cpu]",
        "suites/digits/bench_digits.toml::classify[digits_cnn-litert-int8-cpu]",
    ]
    assert [record.node for record in plain_run.run.records] == collected(result)
    assert [record.case for record in plain_run.run.records] == [
        node.replace("suites/digits/bench_digits.toml::", "digits/") for node in collected(result)
    ]


def test_collect_only_shows_the_tree_and_measures_nothing(project):
    result = project.run("--mlbench", "--collect-only")
    result.stdout.fnmatch_lines(
        ["*<TomlSuite bench_digits.toml>", "*<Function classify[[]digits_cnn-onnxruntime-fp32-cpu[]]>"]
    )
    assert result.ret == 0
    assert not (project.root / ".mlbench").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-k", "int8 and not litert"), ["onnxruntime-int8"]),
        (("-m", "vision"), ["onnxruntime-fp32", "onnxruntime-int8", "litert-fp32", "litert-int8"]),
        (("-m", "mlbench", "-k", "fp32"), ["onnxruntime-fp32", "litert-fp32"]),
        (("-m", "not vision"), []),
        (
            (
                "--deselect=suites/digits/bench_digits.toml::classify[digits_cnn-litert-fp32-cpu]",
                "-k",
                "litert",
            ),
            ["litert-int8"],
        ),
        (("suites/digits/bench_digits.toml::classify[digits_cnn-litert-int8-cpu]",), ["litert-int8"]),
    ],
)
def test_selection(project, arguments, expected):
    result = project.run("--mlbench", "--collect-only", "-q", *arguments)
    prefix = "suites/digits/bench_digits.toml::classify[digits_cnn-"
    assert collected(result) == [f"{prefix}{name}-cpu]" for name in expected]


def test_an_unregistered_mark_is_an_error_with_file_and_key_under_strict_markers(project):
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8").replace('"vision"', '"unheard_of"'), "utf-8")
    result = project.run("--mlbench", "--strict-markers", "--collect-only")
    result.stdout.fnmatch_lines(["*bench_digits.toml: classify.marks: 'unheard_of' not found*register it under*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*collect.py:*")
    assert result.ret == pytest.ExitCode.INTERRUPTED


# An accuracy nobody reaches makes LiteRT's cases fail, an accuracy everybody reaches the others pass.
FAILING = 'override = [{ when = { framework = "litert" }, set = { expect = { accuracy = { top1 = ">= 0.999" } } } }]\n'


def with_failures(project) -> None:
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8").replace('marks = ["vision"]\n', FAILING + 'marks = ["vision"]\n'), "utf-8")


def test_last_failed_and_failed_first(project):
    with_failures(project)
    first = project.run("--mlbench", "-k", "fp32")
    first.assert_outcomes(passed=1, failed=1)
    assert first.ret == pytest.ExitCode.TESTS_FAILED
    again = project.run("--mlbench", "-k", "fp32", "--lf", "--collect-only", "-q")
    assert collected(again) == ["suites/digits/bench_digits.toml::classify[digits_cnn-litert-fp32-cpu]"]
    order = project.run("--mlbench", "-k", "fp32", "--ff", "--collect-only", "-q")
    assert collected(order) == [
        "suites/digits/bench_digits.toml::classify[digits_cnn-litert-fp32-cpu]",
        "suites/digits/bench_digits.toml::classify[digits_cnn-onnxruntime-fp32-cpu]",
    ]


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_stops_at_the_first_failure(project, option):
    with_failures(project)
    result = project.run("--mlbench", "-k", "litert", option, "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    assert project.outcomes() == {"digits/classify[digits_cnn-litert-fp32-cpu]": "fail"}
    assert not (project.root / ".pytest_cache").exists()


def test_exit_code_and_report_of_a_failed_case(project):
    with_failures(project)
    result = project.run("--mlbench", "-k", "litert-fp32", f"--junitxml={project.root / 'j.xml'}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*_ classify[[]digits_cnn-litert-fp32-cpu[]] _*",
            "fail: digits/classify[[]digits_cnn-litert-fp32-cpu[]]:",
            "accuracy.top1: *>= 0.999*",
            "FAILED suites/digits/bench_digits.toml::classify[[]digits_cnn-litert-fp32-cpu[]]*",
        ]
    )
    case = ET.parse(project.root / "j.xml").getroot().find(".//testcase")
    failure = case.find("failure")
    assert "accuracy.top1" in failure.text
    assert "fail: digits/classify[digits_cnn-litert-fp32-cpu]" in failure.attrib["message"]
    assert properties(case)["mlbench_outcome"] == "fail"


def properties(case: ET.Element) -> dict[str, str]:
    return {one.attrib["name"]: one.attrib["value"] for one in case.iter("property")}


def test_junit_xml(plain_run):
    cases = list(ET.parse(plain_run.root / "junit.xml").getroot().iter("testcase"))
    assert cases[0].attrib["name"] == "classify[digits_cnn-onnxruntime-fp32-cpu]"
    assert len(cases) == 4
    assert [properties(case) for case in cases] == [
        {"mlbench_case": record.case, "mlbench_outcome": "pass"} for record in plain_run.run.records
    ]


def test_durations(plain_run):
    assert plain_run.done.stdout.count("call     suites/digits/bench_digits.toml::classify[") == 2


def test_reasons_of_exclusions_are_shown_with_the_suite(project):
    path = project.suite / "bench_digits.toml"
    rule = 'exclude = [{ framework = "litert", precision = "int8", reason = "wrong on our boards" }]\n'
    path.write_text(path.read_text("utf-8").replace('marks = ["vision"]\n', rule), "utf-8")
    result = project.run("--mlbench", "-rs", "-k", "int8 and litert")
    result.stdout.fnmatch_lines(
        [
            "skipped 1: wrong on our boards (classify[[]digits_cnn-litert-int8-cpu[]])",
            "SKIPPED [[]1[]] suites/digits/bench_digits.toml:[0-9]*: wrong on our boards",
        ]
    )
    assert result.ret == 13  # nothing measured
    assert project.last_run().records[0].reason == "wrong on our boards"


def test_a_missing_framework_is_a_skip_at_the_suites_line_that_says_how_to_install_it(project):
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8").replace('["onnxruntime", "litert"]', '["onnxruntime", "tflite_runtime"]')
    path.write_text(text, "utf-8")
    result = project.run("--mlbench", "-rs", "-k", "tflite_runtime and fp32")
    line = text[: text.index('name = "classify"')].count("\n") + 1
    result.stdout.fnmatch_lines(
        [f"SKIPPED [[]1[]] suites/digits/bench_digits.toml:{line}: *pip install 'pytest-mlbench[[]tflite[]]'*"]
    )


def test_xdist_merges_all_records_in_one_run_file_in_the_order_of_the_suite(parallel_run, plain_run):
    assert parallel_run.done.returncode == 0, parallel_run.done.stdout
    assert [record.case for record in parallel_run.run.records] == [record.case for record in plain_run.run.records]
    assert {record.outcome for record in parallel_run.run.records} == {"pass"}
    assert [line["kind"] for line in parallel_run.lines] == ["header", *["record"] * 4, "footer"]
    out = parallel_run.done.stdout
    assert out.count("Run file:") == 1
    assert len(re.findall(r"classify\[digits_cnn-litert-int8-cpu\] +int8 +pass", out)) == 1
    assert not list(parallel_run.root.glob("*.parts"))


def test_xdist_times_no_two_cases_at_once(parallel_run):
    spans = []
    for record in parallel_run.run.records:
        happened = record.scenario["happened"]
        bounds = happened["main"]["bounds_ns"] + happened.get("single", {}).get("bounds_ns", [])
        assert all(begin < end for begin, end in bounds)
        spans.append((bounds[0][0], bounds[-1][1]))
    spans.sort()
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_xdist_reports_failures_and_skips_with_the_right_outcome(project):
    with_failures(project)
    done = project.subprocess("--mlbench", "-n", "2", "-k", "fp32")
    assert done.returncode == 1, done.stdout
    assert "1 failed, 1 passed" in done.stdout
    assert project.outcomes() == {
        "digits/classify[digits_cnn-onnxruntime-fp32-cpu]": "pass",
        "digits/classify[digits_cnn-litert-fp32-cpu]": "fail",
    }


def test_xdist_shows_a_collection_error(project):
    path = project.suite / "bench_digits.toml"
    path.write_text(path.read_text("utf-8").replace("dataset =", "datset ="), "utf-8")
    done = project.subprocess("--mlbench", "-n", "2")
    assert 'unknown key; did you mean "dataset"?' in done.stdout or 'did you mean "dataset"' in done.stdout
    assert "bench_digits.toml: benchmark[0]" in done.stdout
    assert "Traceback" not in done.stdout
    assert done.returncode != 0


def test_without_the_switch_suites_are_not_collected(project):
    project.write("suites/digits/bench_py.py", "raise RuntimeError('imported')\n")
    project.write("test_ordinary.py", "def test_it(): pass\n")
    result = project.run()
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*mlbench ==*")


def test_without_the_switch_nothing_heavy_is_imported(project):
    project.write(
        "test_modules.py",
        "import sys\n"
        "def test_it():\n"
        "    heavy = {'numpy', 'execnet', 'filelock', 'onnxruntime', 'ai_edge_litert', 'tvm', 'openvino'}\n"
        "    assert not heavy & set(sys.modules)\n"
        "    ours = {name for name in sys.modules if name.startswith('pytest_mlbench')}\n"
        "    assert ours == {'pytest_mlbench', 'pytest_mlbench.plugin', 'pytest_mlbench.options', "
        "'pytest_mlbench.hookspecs'}\n",
    )
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = project.subprocess("-p", "pytest_mlbench.plugin", "test_modules.py", env=alone)
    assert done.returncode == 0, done.stdout


def test_without_the_switch_a_suite_that_pytest_collects_is_skipped_with_the_remedy(project):
    project.write("pytest.ini", "[pytest]\npython_files = test_*.py bench_*.py\n")
    project.python_suite("@pytest.mark.mlbench(**AXES)\ndef test_classify(mlbench):\n    mlbench.run()\n")
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*give --mlbench to run it"])


def test_a_conftest_with_our_hooks_loads_without_the_switch(project):
    project.write("conftest.py", "def pytest_mlbench_record(config, record): pass\n")
    project.write("test_ordinary.py", "def test_it(): pass\n")
    project.run().assert_outcomes(passed=1)


def test_help_markers_and_fixtures(project):
    text = project.run("--help").stdout.str()
    for option in ("--mlbench ", "--mlbench-list", "--mlbench-format", "--mlbench-output", "--mlbench-resume",
                   "--mlbench-python", "--mlbench-lease-timeout", "mlbench_suites"):  # fmt: skip
        assert option in text, option
    project.run("--markers").stdout.fnmatch_lines(["@pytest.mark.mlbench(**benchmark): a benchmark of a Python*"])
    fixtures = project.run("--mlbench", "--fixtures").stdout.str()
    for name in ("mlbench", "mlbench_case", "mlbench_device", "mlbench_model"):
        assert f"\n{name} -- " in fixtures, name
    assert "no docstring available" not in fixtures[fixtures.index("\nmlbench") :].split("\n\n")[0]


def test_the_ini_key_names_the_suites_relative_to_rootdir(project, monkeypatch):
    (project.root / "suites").rename(project.root / "perf")
    project.write("pytest.ini", "[pytest]\nmlbench_suites = perf\nmarkers = vision\ntestpaths = tests\n")
    project.write("tests/test_ordinary.py", "def test_it(): pass\n")
    (project.root / "elsewhere").mkdir()
    monkeypatch.chdir(project.root / "elsewhere")
    result = project.run("--mlbench", "--collect-only", "-q", f"--rootdir={project.root}", "-c", "../pytest.ini")
    assert len(collected(result)) == 4
    assert all("perf/digits/bench_digits.toml::" in node for node in collected(result))


def test_a_missing_suites_folder_is_a_usage_error(project):
    (project.root / "suites").rename(project.root / "perf")
    result = project.run("--mlbench")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --mlbench: no suites: {project.root}/suites does not exist; *mlbench_suites"])


def test_ordinary_tests_beside_suites_run_and_count(project):
    project.write("tests/test_ordinary.py", "def test_good(): pass\ndef test_bad(): assert 0\n")
    result = project.run("--mlbench", "suites", "tests", "-k", "litert-fp32 or good or bad")
    result.assert_outcomes(passed=2, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert project.outcomes() == {"digits/classify[digits_cnn-litert-fp32-cpu]": "pass"}


def test_a_failing_teardown_of_a_passed_case_counts(project):
    project.write(
        "conftest.py",
        "import pytest\n@pytest.fixture(autouse=True)\ndef after():\n    yield\n    raise RuntimeError('teardown')\n",
    )
    result = project.run("--mlbench", "-k", "litert-fp32")
    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("patterns", ["test_*.py", "bench_*.py", "suites/*/bench_*.py", "*.py"])
@pytest.mark.parametrize("arguments", [[], ["suites/digits/bench_py.py"], ["suites/digits"]])
def test_a_python_suite_is_collected_exactly_once(project, patterns, arguments):
    project.write("pytest.ini", f"[pytest]\npython_files = {patterns}\n")
    project.python_suite("@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n    mlbench.run()\n")
    result = project.run("--mlbench", "--collect-only", "-q", *arguments)
    assert collected(result) == ["suites/digits/bench_py.py::bench_classify[digits_cnn-litert-fp32-cpu]"]


def test_two_suites_of_one_name_are_refused(project):
    text = (project.suite / "bench_digits.toml").read_text("utf-8").replace('"models/', '"../digits/models/')
    project.write("suites/other/bench_digits.toml", text)
    result = project.run("--mlbench", "--collect-only")
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_setup_only_measures_nothing_and_is_no_failure(project):
    result = project.run("--mlbench", "--setup-only", "-k", "litert-fp32")
    assert result.ret == 0
    assert not (project.root / ".mlbench").exists()


def test_json_lines_of_the_run_file_are_the_only_file_written(project):
    project.run("--mlbench", "-k", "litert-fp32", "-p", "no:cacheprovider")
    names = sorted(path.name for path in (project.root / ".mlbench").iterdir())
    assert names[0] == ".gitignore"
    assert len(names) == 2
    assert json.loads((project.root / ".mlbench" / names[1]).read_text("utf-8").splitlines()[0])["schema"] == 1
