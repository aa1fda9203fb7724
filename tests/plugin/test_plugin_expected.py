"""Sessions held against the committed expected set: what vanished, is new or is skipped fails the run by name."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest

from pytest_mlbench import completeness, expected, inventory  # noqa: F401  # as in conftest.py
from pytest_mlbench.schemas import load_schema

CASE = "digits/classify[digits_cnn-{}-cpu]"
CASES = [CASE.format(one) for one in ("litert-fp32", "litert-int8", "onnxruntime-fp32", "onnxruntime-int8")]
FILE = "suites/expected-cases.txt"
QUICK = ("-k", "litert-fp32")


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


def freeze(project, *cases: str, **skips: str):
    """Write the expected set: the four cases, or these; skips by the middle of the id."""
    reasons = {CASE.format(name.replace("__", "-")): reason for name, reason in skips.items()}
    return project.write(FILE, expected.text_of({**dict.fromkeys(cases or CASES), **reasons}))


def edit(project, old: str, new: str) -> None:
    path = project.suite / "bench_digits.toml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def told(result) -> list[str]:
    """Return the indented lines after the heading: one for each deviation."""
    lines = result.outlines if isinstance(result, pytest.RunResult) else result.stdout.splitlines()
    start = next((i for i, line in enumerate(lines) if " not as suites/expected-cases.txt has them:" in line), None)
    if start is None:
        return []
    found = []
    for line in lines[start + 1 :]:
        if not line.startswith("  "):
            return found
        found.append(line.strip())
    return found


def in_footer(project) -> list[dict[str, str]] | None:
    """Return the deviations the newest run file holds; its footer holds the schema."""
    footer = json.loads(project.last_run_file().read_text("utf-8").splitlines()[-1])
    jsonschema.validate(footer, load_schema())
    return footer.get("deviations")


def test_without_the_file_nothing_is_checked(project):
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 0
    assert in_footer(project) is None


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_a_run_of_all_that_is_expected_passes(project, arguments):
    freeze(project)
    done = project.subprocess("--mlbench", *arguments)
    assert done.returncode == 0, done.stdout
    assert in_footer(project) == []
    assert "expected-cases" not in done.stdout


@pytest.mark.parametrize("arguments", [(), ("-n", "2"), ("-q",)], ids=["plain", "xdist", "quiet"])
def test_a_vanished_case_fails_the_run_by_name(project, arguments):
    freeze(project, *CASES, CASE.format("openvino-fp32"))
    done = project.subprocess("--mlbench", *QUICK, *arguments)
    assert done.returncode == 1, done.stdout
    assert told(done) == [f"vanished: {CASE.format('openvino-fp32')}"]
    assert f"mlbench: 1 case is not as {FILE} has them:" in done.stdout
    assert f"If the change is meant: mlbench freeze suites, and commit {FILE}" in done.stdout
    assert in_footer(project) == [{"what": "vanished", "name": CASE.format("openvino-fp32"), "detail": ""}]
    assert project.last_run().footer["exitstatus"] == 1
    assert project.outcomes() == {CASES[0]: "pass"}


def test_it_is_told_in_red(project):
    freeze(project, *CASES, CASE.format("openvino-fp32"))
    done = project.subprocess("--mlbench", "--color=yes", *QUICK)
    assert f"\x1b[31m  vanished: {CASE.format('openvino-fp32')}" in done.stdout


def test_a_renamed_case_says_what_it_may_be_now(project):
    freeze(project)
    edit(project, 'name = "classify"', 'name = "recognise"')
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 1
    assert told(result) == [f"vanished: {case}: renamed to {case.replace('classify', 'recognise')}?" for case in CASES]


def test_a_renamed_suite_is_told_too(project):
    freeze(project)
    edit(project, "mlbench = 1\n", 'mlbench = 1\nname = "numbers"\n')
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 1
    assert len(told(result)) == 4
    assert f"vanished: {CASES[0]}: renamed to {CASES[0].replace('digits/', 'numbers/')}?" in told(result)


def test_a_new_case_fails_until_it_is_frozen(project):
    freeze(project, *CASES[1:])
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 1
    assert told(result) == [f"new: {CASES[0]}"]
    assert f"mlbench freeze suites, and commit {FILE}" in result.outlines[-2]


def test_a_case_that_a_hook_takes_out_has_vanished(project):
    freeze(project)
    project.write(
        "conftest.py",
        "def pytest_mlbench_modify_cases(cases):\n"
        "    cases[:] = [case for case in cases if case.precision != 'int8']\n",
    )
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 1
    assert told(result) == [f"vanished: {CASES[1]}", f"vanished: {CASES[3]}"]


def test_a_run_that_collects_nothing_any_more_is_a_failure(project):
    freeze(project)
    (project.suite / "bench_digits.toml").unlink()
    result = project.run("--mlbench")
    assert result.ret == 1  # pytest's own code would be 5
    assert told(result) == [f"vanished: {case}" for case in CASES]
    assert len(in_footer(project)) == 4


# --- skips ---------------------------------------------------------------------------------------------


EXCLUDED = 'exclude = [{ framework = "litert", precision = "int8", reason = "wrong on\\n our boards" }]\nmarks'


def test_a_newly_excluded_case_fails_and_one_frozen_as_skipped_does_not(project):
    freeze(project)
    edit(project, "marks", EXCLUDED)
    result = project.run("--mlbench", "-k", "litert")
    assert result.ret == 1
    assert told(result) == [f"newly skipped: {CASES[1]}: wrong on our boards"]
    result.stdout.fnmatch_lines(["newly skipped: make it run (install what is missing), or exclude it in its suite*"])
    freeze(project, litert__int8="wrong on our boards")
    result = project.run("--mlbench", "-k", "litert")
    assert (result.ret, told(result)) == (0, [])


def test_a_case_no_longer_excluded_is_told(project):
    freeze(project, litert__int8="wrong on our boards")
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 1
    assert told(result) == [f"newly measured: {CASES[1]}: expected to be skipped: wrong on our boards"]


def test_a_case_excluded_by_a_hook_without_a_reason_fails(project):
    freeze(project)
    project.write(
        "conftest.py",
        "from dataclasses import replace\n"
        "def pytest_mlbench_modify_cases(cases):\n"
        "    cases[:] = [replace(case, skip='') if case.precision == 'int8' else case for case in cases]\n",
    )
    result = project.run("--mlbench", *QUICK)
    assert result.ret == 1
    assert told(result) == [f"no reason: {CASES[3]}", f"no reason: {CASES[1]}"]
    result.stdout.fnmatch_lines(["no reason: say in the suite why the case is skipped"])


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_a_case_skipped_for_a_missing_framework_fails_by_name(project, arguments):
    edit(project, '"litert"]', '"tflite_runtime"]')
    names = [CASE.format(f"tflite_runtime-{precision}") for precision in ("fp32", "int8")]
    freeze(project, *names, *CASES[2:])
    done = project.subprocess("--mlbench", "-k", "fp32", *arguments)
    assert done.returncode == 1, done.stdout
    (line,) = told(done)
    assert line.startswith(f"newly skipped: {names[0]}: tflite_runtime is not installed: pip install ")
    assert project.outcomes() == {names[0]: "skip", CASES[2]: "pass"}
    (deviation,) = in_footer(project)
    assert deviation["what"] == "newly skipped"
    assert deviation["detail"].startswith("tflite_runtime is not installed")


PYTHON = """\
@pytest.mark.mlbench(**AXES)
@pytest.mark.xfail(reason="not yet right")
def bench_xfail(mlbench):
    mlbench.run()
    assert False

@pytest.mark.mlbench(**AXES)
@pytest.mark.xfail(True, reason="only here", strict=True)
def bench_sometimes(mlbench):
    mlbench.run()
    assert False

@pytest.mark.mlbench(**AXES)
@pytest.mark.skip("later")
def bench_skip(mlbench):
    mlbench.run()

class BenchAll:
    @pytest.mark.mlbench(**AXES)
    def bench_inside(self, mlbench):
        mlbench.run()
        pytest.skip("no time")
"""


def test_skips_of_python_suites(project):
    project.python_suite(PYTHON)
    name = "py/{}[digits_cnn-litert-fp32-cpu]".format
    frozen = {name("inside"): None, name("sometimes"): None, name("skip"): None, name("xfail"): "not yet right"}
    project.write(FILE, expected.text_of(frozen))
    result = project.run("--mlbench")
    assert result.ret == 1
    assert sorted(told(result)) == [
        f"newly skipped: {name('inside')}: no time",
        f"newly skipped: {name('skip')}: later",
        f"newly skipped: {name('sometimes')}: expected to fail (xfail): only here",
    ]


def test_a_case_that_a_plugin_keeps_from_running_is_told(project):
    freeze(project)
    project.write(
        "conftest.py",
        "def pytest_runtest_protocol(item):\n    return True if 'int8' in item.name else None\n",
    )
    result = project.run("--mlbench", "-k", "litert")
    assert result.ret == 1
    assert told(result) == [f"never ran: {CASES[1]}: it was selected, and no outcome was reported"]


# --- selections ----------------------------------------------------------------------------------------


def with_second_suite(project) -> tuple[str, str]:
    """Add a suite `other` of one case, which fails; returns that case, and one that is expected there and gone."""
    text = (project.suite / "bench_digits.toml").read_text("utf-8")
    for old, new in (
        ('["onnxruntime", "litert"]', '["litert"]'),
        ('["fp32", "int8"]', '["fp32"]'),
        ("reference =", "# "),
        ("equivalence =", "# "),
        (">= 0.97", ">= 0.9999"),
    ):
        assert old in text
        text = text.replace(old, new)
    project.write("suites/digits/bench_other.toml", text)
    failing, gone = CASES[0].replace("digits/", "other/"), CASES[1].replace("digits/", "other/")
    freeze(project, *CASES, failing, gone)
    return failing, gone


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        ((), True),
        (("suites",), True),
        ((".",), True),
        (("suites/digits/bench_other.toml",), True),
        (("suites/digits/bench_digits.toml",), False),
        (("suites/digits/bench_other.toml::classify",), False),
    ],
    ids=["none", "folder", "above", "its suite", "another suite", "node id"],
)
def test_a_part_of_the_suites_folder_is_held_against_its_own_lines(project, given, missed):
    _, gone = with_second_suite(project)
    result = project.run("--mlbench", *given, "-k", "onnxruntime-fp32 or classify")
    assert told(result) == ([f"vanished: {gone}"] if missed else [])
    assert result.ret == (0 if given == ("suites/digits/bench_digits.toml",) else 1)  # other's one case fails


def test_suites_outside_the_suites_folder_do_not_count(project):
    freeze(project)
    target = project.root / "elsewhere"
    project.suite.rename(target)
    (target / "bench_digits.toml").rename(target / "bench_free.toml")
    result = project.run("--mlbench", "elsewhere", *QUICK)
    assert (result.ret, told(result)) == (0, [])


SELECTIONS = {
    "-k": ("-k", "litert"),
    "-m": ("-m", "not vision"),
    "--deselect": [f"--deselect=suites/digits/bench_digits.toml::{one.partition('/')[2]}" for one in CASES[2:]],
}


@pytest.mark.parametrize("option", SELECTIONS)
def test_deselected_cases_fail_in_ci_and_not_here(project, monkeypatch, option):
    freeze(project)
    left_out = CASES if option == "-m" else CASES[2:]
    here = project.run("--mlbench", *SELECTIONS[option])
    assert (here.ret, told(here)) == (5 if option == "-m" else 0, [])
    monkeypatch.setenv("CI", "true")
    there = project.run("--mlbench", *SELECTIONS[option])
    assert there.ret == 1
    assert sorted(told(there)) == [f"deselected: {case}" for case in left_out]
    there.stdout.fnmatch_lines(["deselected: where CI is set every case must run; take -k, -m, --lf and*"])
    there.stdout.no_fnmatch_line("*If the change is meant*")


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_what_a_plugin_takes_out_without_a_word_is_deselected_too(project, arguments):
    freeze(project)
    project.write("conftest.py", "def pytest_collection_modifyitems(items):\n    del items[1:]\n")
    done = project.subprocess("--mlbench", *arguments, env={"CI": "1"})
    assert done.returncode == 1
    assert sorted(told(done)) == sorted(f"deselected: {case}" for case in CASES if case != CASES[2])


def test_a_skipped_case_may_be_deselected_in_ci(project, monkeypatch):
    edit(project, "marks", EXCLUDED)
    freeze(project, litert__int8="wrong on our boards")
    monkeypatch.setenv("CI", "1")
    result = project.run("--mlbench", "-k", "not litert-int8")
    assert (result.ret, told(result)) == (0, [])


def test_an_empty_ini_key_checks_nothing(project, monkeypatch):
    freeze(project, *CASES, CASE.format("openvino-fp32"))
    monkeypatch.setenv("CI", "1")
    result = project.run("--mlbench", *QUICK, "-o", "mlbench_expected=")
    assert (result.ret, told(result)) == (0, [])
    assert in_footer(project) is None


def test_the_ini_key_names_another_file(project):
    freeze(project).rename(project.root / "frozen.txt")
    edit(project, 'name = "classify"', 'name = "recognise"')
    result = project.run("--mlbench", *QUICK, "-o", "mlbench_expected=../frozen.txt")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["mlbench: 4 cases are not as frozen.txt has them:"])


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_last_failed_does_not_hide_what_vanished(project, arguments):
    failing, gone = with_second_suite(project)
    first = project.subprocess("--mlbench")
    assert told(first) == [f"vanished: {gone}"]
    again = project.subprocess("--mlbench", "--lf", *arguments)
    assert again.returncode == 1
    assert project.outcomes() == {failing: "fail"}  # bench_digits.toml was not even collected
    assert told(again) == [f"vanished: {gone}"]
    in_ci = project.subprocess("--mlbench", "--lf", *arguments, env={"CI": "true"})
    assert sorted(told(in_ci)) == [*(f"deselected: {case}" for case in CASES), f"vanished: {gone}"]


def test_last_failed_takes_cases_out_of_a_suite_while_it_is_collected(project, monkeypatch):
    freeze(project)
    edit(project, '{ sqnr_db = ">= 20" }', '{ sqnr_db = ">= 200" }')
    failing = [CASES[3], CASES[1]]
    assert told(project.run("--mlbench")) == []
    assert [case for case, outcome in project.outcomes().items() if outcome == "fail"] == failing
    again = project.run("--mlbench", "--lf")
    assert (again.ret, told(again)) == (1, [])
    assert list(project.outcomes()) == failing
    monkeypatch.setenv("CI", "1")
    assert sorted(told(project.run("--mlbench", "--lf"))) == [f"deselected: {CASES[0]}", f"deselected: {CASES[2]}"]


def test_last_failed_looks_into_suites_it_passes_over(project):
    with_second_suite(project)
    project.run("--mlbench")
    edit(project, "mlbench = 1\n", "mlbench = 2\n")
    result = project.run("--mlbench", "--lf")
    assert result.ret == 1
    assert told(result) == [
        "unchecked: suites/digits/bench_digits.toml: cannot be collected: "
        f"{project.suite / 'bench_digits.toml'}: mlbench: suite schema 2 is not known; this version reads 1"
    ]


@pytest.mark.parametrize("arguments", [("-x",), ("-x", "-n", "2")], ids=["plain", "xdist"])
def test_stopping_at_the_first_failure_does_not_hide_what_vanished(project, arguments):
    _, gone = with_second_suite(project)
    edit(project, ">= 0.97", ">= 0.9999")
    done = project.subprocess("--mlbench", *arguments)
    assert done.returncode in (1, 2)  # pytest-xdist ends with 2
    assert told(done) == [f"vanished: {gone}"]


def test_a_suite_that_cannot_be_read_is_not_told_as_vanished(project):
    freeze(project)
    edit(project, "mlbench = 1\n", "mlbench = 2\n")
    result = project.run("--mlbench")
    assert (result.ret, told(result)) == (2, [])
    result.stdout.fnmatch_lines(["*suite schema 2 is not known*"])


def test_workers_that_cannot_tell_what_they_collected_are_no_green_run(project):
    freeze(project)
    project.write(
        "conftest.py",
        "from pathlib import Path\n"
        "def pytest_collection_modifyitems(config):\n"
        "    name = 'collected-' + config.workerinput['workerid'] + '.part'\n"
        "    (Path(config.workerinput['mlbench_run_file'] + '.parts') / name).mkdir()\n",
    )
    done = project.subprocess("--mlbench", "-n", "2", *QUICK)
    assert done.returncode == 1
    why = "no worker told what it collected, so its cases were not compared with those of the run"
    assert told(done) == [f"unchecked: {FILE}: {why}"]


def test_lists_need_no_expected_set(project):
    project.write(FILE, "broken\n")
    for option in ("--mlbench-list", "--collect-only"):
        result = project.run("--mlbench", option)
        assert (result.ret, told(result)) == (0, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n<<<<<<< HEAD\n", '*expected-cases.txt:2: "<<<<<<< HEAD" is no case id; expected SUITE/BENCHMARK?...?*'),
        (f"{CASES[0]}\n{CASES[0]}\n", "*expected-cases.txt:2: digits/classify* stands on line 1 already; take one*"),
        (b"a/b[c]\n\xff\n", "*expected-cases.txt:2: is not UTF-8 text: invalid start byte"),
        (None, "*expected-cases.txt: is no regular file; take it away and run `mlbench freeze`"),
    ],
    ids=["conflict", "twice", "bytes", "folder"],
)
def test_a_file_that_cannot_be_meant_stops_the_run_before_it_measures(project, content, message):
    path = project.root / FILE
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = project.run("--mlbench")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not (project.root / ".mlbench").exists()


# --- mlbench freeze ------------------------------------------------------------------------------------


def command(project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `mlbench freeze` in the project."""
    return subprocess.run(
        [sys.executable, "-m", "pytest_mlbench", "freeze", *arguments],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_freeze_writes_what_a_run_is_then_held_against(project):
    edit(project, "marks", EXCLUDED)
    done = command(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"+ {CASES[0]}",
        f"+ {CASES[1]}  # skip: wrong on our boards",
        f"+ {CASES[2]}",
        f"+ {CASES[3]}",
        f"wrote {FILE}: 4 cases, 1 of them skipped",
    ]
    lines = (project.root / FILE).read_text("utf-8").splitlines()
    assert lines[0].startswith("# Cases that `pytest --mlbench` must collect")
    assert lines[1:] == [CASES[0], f"{CASES[1]}  # skip: wrong on our boards", *CASES[2:]]
    assert project.run("--mlbench", *QUICK).ret == 0
    again = command(project, "--check")
    assert (again.returncode, again.stdout) == (0, f"{FILE} is up to date: 4 cases, 1 of them skipped\n")


def test_check_writes_nothing_and_says_what_would_change(project):
    missing = command(project, "--check")
    assert missing.returncode == 1
    assert missing.stdout.splitlines()[-1] == f"{FILE} is missing: run `mlbench freeze` and commit it"
    assert not (project.root / FILE).exists()
    frozen = freeze(project, *CASES[1:], CASE.format("openvino-fp32"), litert__int8="old")
    before = frozen.read_text("utf-8")
    done = command(project, "--check")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"+ {CASES[0]}",
        f"~ {CASES[1]}  (no longer skipped)",
        f"- {CASE.format('openvino-fp32')}",
        f"{FILE} would change: run `mlbench freeze` and commit it",
    ]
    assert frozen.read_text("utf-8") == before


def test_freeze_of_a_part_leaves_the_others_lines(project):
    failing, gone = with_second_suite(project)
    text = (project.root / FILE).read_text("utf-8")
    (project.root / FILE).write_text(text.replace(f"{CASES[0]}\n", ""), "utf-8")
    done = command(project, "suites/digits/bench_other.toml")
    assert done.stdout.splitlines() == [f"- {gone}", f"wrote {FILE}: 4 cases, 0 of them skipped"]
    assert list(expected.load(project.root / FILE)) == [*CASES[1:], failing]


def test_freeze_sees_what_the_ini_file_deselects_and_an_uninstalled_framework(project):
    edit(project, '"litert"]', '"tflite_runtime"]')
    project.write("pytest.ini", "[pytest]\naddopts = -m 'not vision' -n 2\nmarkers = vision\nfilterwarnings = error\n")
    done = command(project)
    assert done.returncode == 0, done.stderr
    assert expected.load(project.root / FILE) == {
        **dict.fromkeys(CASES[2:]),
        CASE.format("tflite_runtime-fp32"): None,
        CASE.format("tflite_runtime-int8"): None,
    }


def test_freeze_takes_the_skips_of_python_suites(project):
    project.python_suite(PYTHON)
    assert command(project).returncode == 0
    name = "py/{}[digits_cnn-litert-fp32-cpu]".format
    assert expected.load(project.root / FILE) == {
        name("inside"): None,
        name("skip"): "later",
        name("sometimes"): None,
        name("xfail"): "expected to fail (xfail): not yet right",
    }


def test_freeze_says_why_it_cannot(project):
    node = command(project, "suites/digits/bench_digits.toml::classify")
    nowhere = command(project, "suits")
    edit(project, "mlbench = 1\n", "mlbench = 2\n")
    broken = command(project)
    assert [one.returncode for one in (node, nowhere, broken)] == [2, 2, 2]
    assert (
        node.stderr
        == "mlbench: suites/digits/bench_digits.toml::classify is a node id; give a folder or a suite's file\n"
    )
    assert nowhere.stderr.startswith("mlbench: pytest cannot collect the suites (exit code 4); correct this first:")
    assert "file or directory not found: suits" in nowhere.stderr
    assert "(exit code 2); correct this first:" in broken.stderr
    assert "bench_digits.toml: mlbench: suite schema 2 is not known" in broken.stderr
    for one in (node, nowhere, broken):
        assert (one.stdout, "Traceback" in one.stderr) == ("", False)
    assert not (project.root / FILE).exists()


def test_freeze_says_why_there_is_nothing_to_freeze(project):
    project.write("pytest.ini", "[pytest]\nmlbench_expected =\nmarkers = vision\n")
    off = command(project)
    project.write("pytest.ini", "[pytest]\nmarkers = vision\n")
    project.write(
        "conftest.py",
        "from dataclasses import replace\n"
        "def pytest_mlbench_modify_cases(cases):\n    cases[:] = [replace(case, skip=' ') for case in cases[:1]]\n",
    )
    bare = command(project)
    (project.root / "conftest.py").unlink()
    project.suite.rename(project.root / "elsewhere")
    outside = command(project, "elsewhere")
    assert [one.returncode for one in (off, bare, outside)] == [2, 2, 2]
    assert off.stderr == "mlbench: the ini key mlbench_expected is empty, so no file is held against; take it out\n"
    assert bare.stderr == f"mlbench: skipped without a reason: {CASES[2]}; say in the suite why\n"
    assert outside.stderr == (
        f"mlbench: no case was found there in the suites folder, {project.root / 'suites'} (ini key mlbench_suites), "
        "so there is nothing to freeze; see what there is with pytest --mlbench-list\n"
    )


def test_freeze_does_not_write_over_a_file_it_cannot_read(project):
    frozen = project.write(FILE, "digits/classify\n")
    done = command(project)
    assert done.returncode == 2
    assert done.stderr.startswith(f'mlbench: {project.root / FILE}:1: "digits/classify" is no case id; expected SUITE/')
    assert frozen.read_text("utf-8") == "digits/classify\n"
