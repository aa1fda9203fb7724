"""Beside pytest-benchmark: cases in its table and files, where it shows something, and only those that passed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pytest_mlbench import export

ORDINARY = """\
def test_plain():
    pass

def test_timed(benchmark):
    benchmark.pedantic(len, ("abc",), rounds=3)
"""

ONE = """\
@pytest.mark.mlbench(**AXES)
def bench_one(mlbench):
    mlbench.run()
"""


def written(project, name="bench.json"):
    return json.loads((project.root / name).read_text("utf-8"))


def names(project, name="bench.json"):
    return [one["name"] for one in written(project, name)["benchmarks"]]


def compare(project, *files, options=()):
    """Run the command pytest-benchmark and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", *files, *options],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- cases that passed ---------------------------------------------------------------------------------------


def test_passed_cases_are_in_the_table_and_in_the_file_and_compare_reads_it(project):
    result = project.run("--mlbench", "--benchmark-json=bench.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*benchmark 'digits/classify': 4 tests*", "classify[[]digits_cnn-litert-fp32-cpu] *"])
    run = project.last_run()
    rows = {one["fullname"]: one for one in written(project)["benchmarks"]}
    assert set(rows) == {record.node for record in run.records}
    for record in run.records:
        stats = rows[record.node]["stats"]
        assert stats["iterations"] == record.samples["calls"]
        assert stats["rounds"] == record.samples["sample_ns"]["kept"]
        for name, metric in (("min", "latency.min"), ("mean", "latency.mean")):
            assert stats[name] * 1e9 == pytest.approx(record.metric(metric).value)
        assert rows[record.node]["params"] == record.axes
    table = compare(project, "bench.json", options=("--columns=min,rounds",))
    assert all(one["name"] in table for one in rows.values())
    # The file made of the run file afterwards holds the same.
    exported = export.pytest_benchmark(run)["benchmarks"]
    same = ("name", "fullname", "group", "param", "params", "extra_info")
    for one in exported:
        theirs = rows[one["fullname"]]
        assert {key: one[key] for key in same} == {key: theirs[key] for key in same}
        assert one["stats"].keys() == theirs["stats"].keys()
        assert [key for key, value in one["stats"].items() if value != theirs["stats"][key]] == []


def test_its_saved_files_options_and_groups_work_on_cases(project):
    project.python_suite(ONE)
    assert project.run("--mlbench", "--benchmark-save=base").ret == 0
    by = ("--benchmark-group-by=param:framework", "--benchmark-columns=median,rounds", "--benchmark-time-unit=ns")
    result = project.run("--mlbench", "--benchmark-compare", "--benchmark-compare-fail=min:100000%", *by)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*benchmark 'framework=litert': 2 tests*", "Name (time in ns)*Median*Rounds*"])
    result.stdout.fnmatch_lines_random(["bench_one[[]* (0001_base)*", "bench_one[[]* (NOW)*"])


def test_a_group_of_the_user_s_own_is_kept(project):
    project.python_suite('@pytest.mark.benchmark(group="mine")\n' + ONE)
    project.run("--mlbench", "--benchmark-json=bench.json").stdout.fnmatch_lines(["*benchmark 'mine': 1 tests*"])


def test_cases_pass_for_benchmarks_with_benchmark_only(project):
    project.python_suite(ONE)
    project.write("test_plain.py", ORDINARY)
    result = project.run("--mlbench", "--benchmark-only", "-rs", "suites", "test_plain.py")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*Skipping non-benchmark*"])
    assert project.outcomes() == {"py/one[digits_cnn-litert-fp32-cpu]": "pass"}


def test_cases_are_skipped_with_benchmark_skip(project):
    project.python_suite(ONE)
    project.run("--mlbench", "--benchmark-skip").assert_outcomes(skipped=1)
    (record,) = project.last_run().records
    assert (record.outcome, record.reason) == ("skip", "Skipping benchmark (--benchmark-skip active).")


# --- only where it shows something ---------------------------------------------------------------------------


def test_without_its_options_and_fixture_there_is_no_second_table(project):
    project.python_suite(ONE)
    result = project.run("--mlbench")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*Name (time in*")


def test_beside_a_test_that_uses_its_fixture_cases_are_in_the_table(project):
    project.python_suite(ONE)
    project.write("test_plain.py", ORDINARY)
    result = project.run("--mlbench", "suites", "test_plain.py")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*benchmark: 1 tests*", "*benchmark 'py/one': 1 tests*"])


@pytest.mark.parametrize("where", ["addopts", "environment"])
def test_its_options_in_the_configuration_count(project, monkeypatch, where):
    project.python_suite(ONE)
    if where == "addopts":
        project.write("pytest.ini", "[pytest]\naddopts = --benchmark-columns=min\n")
    else:
        monkeypatch.setenv("PYTEST_ADDOPTS", "--benchmark-columns=min")
    project.run("--mlbench").stdout.fnmatch_lines(["*benchmark 'py/one': 1 tests*", "Name (time in*Min"])


@pytest.mark.parametrize(
    ("mode", "options", "shown"),
    [
        ("always", [], True),
        ("never", ["--benchmark-columns=min"], False),
        ("auto", ["--benchmark-sort=name"], True),
    ],
)
def test_the_ini_key(project, mode, options, shown):
    project.python_suite(ONE)
    project.write("pytest.ini", f"[pytest]\nmlbench_pytest_benchmark = {mode}\n")
    result = project.run("--mlbench", *options)
    result.assert_outcomes(passed=1)
    assert ("benchmark 'py/one': 1 tests" in result.stdout.str()) is shown


def test_a_wrong_value_of_the_ini_key_is_a_usage_error(project):
    project.write("pytest.ini", "[pytest]\nmlbench_pytest_benchmark = yes\n")
    result = project.run("--mlbench")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*mlbench_pytest_benchmark = yes: expected one of auto, always, never*"])


@pytest.mark.parametrize("options", [["--benchmark-disable"], ["-p", "no:benchmark"]])
def test_where_it_is_off_cases_run_as_ever(project, options):
    project.python_suite(ONE)
    project.write("pytest.ini", "[pytest]\nmlbench_pytest_benchmark = always\n")
    result = project.run("--mlbench", *options)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*Name (time in*")


def test_disabled_and_enabled_again_it_is_on(project):
    project.python_suite(ONE)
    result = project.run("--mlbench", "--benchmark-disable", "--benchmark-enable")
    result.stdout.fnmatch_lines(["*benchmark 'py/one': 1 tests*"])


@pytest.mark.parametrize("option", ["--mlbench-list", "--collect-only"])
def test_nothing_is_shown_when_nothing_is_measured(project, option):
    result = project.run("--mlbench", option, "--benchmark-columns=min")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*Name (time in*")


def test_the_fixtures_of_a_case_are_as_before(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES)\ndef bench_one(mlbench, request):\n"
        "    assert 'benchmark' not in request.fixturenames\n    mlbench.run()\n"
    )
    project.run("--mlbench", "--benchmark-columns=min").assert_outcomes(passed=1)


# --- never an invented number --------------------------------------------------------------------------------

NOT_PASSED = """\
@pytest.mark.mlbench(**AXES)
def bench_passes(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES, expect={"latency": {"p50": "<= 1 ns"}})
def bench_fails(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES)
def bench_asserts(mlbench):
    mlbench.run()
    assert False, "the user's own"

@pytest.mark.xfail(reason="known")
@pytest.mark.mlbench(**AXES)
def bench_expected_to_fail(mlbench):
    mlbench.run()
    assert False

@pytest.mark.mlbench(**AXES, exclude=[{"framework": "litert", "reason": "not here"}])
def bench_skipped(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES)
def bench_skips(mlbench):
    mlbench.run()
    pytest.skip("later")

@pytest.mark.mlbench(**{**AXES, "framework": ["tflite_runtime"]})
def bench_unavailable(mlbench):
    mlbench.run()

@pytest.mark.mlbench(**AXES)
def bench_unmeasured(mlbench):
    pass

@pytest.mark.mlbench(**AXES, expect={"latency": {"p50": "<= 1 ns"}})
def bench_caught(mlbench):
    with pytest.raises(pytest.fail.Exception):
        mlbench.run()
"""


def test_only_cases_that_passed_appear(project):
    project.python_suite(NOT_PASSED)
    result = project.run("--mlbench", "--benchmark-json=bench.json", "-W", "error")
    assert [one.partition("[")[0] for one in names(project)] == ["bench_passes"]
    outcomes = {case.partition("[")[0]: outcome for case, outcome in project.outcomes().items()}
    assert outcomes["py/passes"] == "pass"
    assert list(outcomes.values()).count("pass") == 1
    assert "was not used at all" not in result.stdout.str() + result.stderr.str()


def test_a_fixture_of_another_plugin_is_not_taken_for_pytest_benchmark_s(project):
    project.python_suite(ONE)
    project.write(
        "conftest.py",
        "import pytest\n\nclass Other:\n    def pedantic(self, *args, **kwargs):\n        raise AssertionError\n\n"
        "@pytest.fixture\ndef benchmark():\n    return Other()\n",
    )
    project.run("--mlbench", "--benchmark-columns=min").assert_outcomes(passed=1)


def test_a_test_that_uses_the_fixture_itself_shows_what_it_timed(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES)\ndef bench_own(mlbench, benchmark):\n    mlbench.run()\n"
        "    benchmark.pedantic(len, ('abc',), rounds=7)\n"
    )
    assert project.run("--mlbench", "--benchmark-json=bench.json").ret == 0
    (one,) = written(project)["benchmarks"]
    assert (one["stats"]["rounds"], one["extra_info"]) == (7, {})


def test_a_profile_is_not_made_of_nothing(project):
    project.python_suite(ONE)
    result = project.run("--mlbench", "--benchmark-cprofile=ncalls")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*cProfile*")


# --- resumed runs --------------------------------------------------------------------------------------------


def resumed(project, **samples):
    """Run once, change the readings of the record, go on from it; returns the row of the second run."""
    project.python_suite(ONE)
    project.run("--mlbench", "--mlbench-output=one.jsonl")
    lines = [json.loads(line) for line in (project.root / "one.jsonl").read_text("utf-8").splitlines()]
    lines[1]["samples"].update(samples)
    (project.root / "one.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = project.run("--mlbench", "--mlbench-resume=one.jsonl", "--benchmark-json=bench.json")
    return result, lines


def test_a_resumed_case_says_so(project):
    result, lines = resumed(project)
    assert result.ret == 0
    (one,) = written(project)["benchmarks"]
    assert one["extra_info"]["mlbench"]["resumed"] == lines[0]["id"]
    assert one["extra_info"]["mlbench"]["case"] == lines[1]["case"]


def test_readings_of_very_many_calls_are_not_called_that_often(project):
    result, lines = resumed(project, calls=10**15)
    assert result.ret == 0
    (one,) = written(project)["benchmarks"]
    assert one["stats"]["iterations"] == 1
    assert one["stats"]["rounds"] == lines[1]["samples"]["sample_ns"]["kept"]
    assert one["stats"]["mean"] < 1e-15  # still of one call


# --- under xdist ---------------------------------------------------------------------------------------------


def test_under_xdist_the_file_is_exported_from_the_run(project):
    done = project.subprocess("--mlbench", "-n", "2", "--mlbench-output=run.jsonl", "--benchmark-columns=min")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Name (time in" not in done.stdout
    hint = f"mlbench export {project.root / 'run.jsonl'} --format pytest-benchmark -o FILE"
    assert f"mlbench: pytest-benchmark is off under pytest-xdist; for its file: {hint}" in done.stdout
    command = [sys.executable, "-m", "pytest_mlbench", *hint.replace("FILE", "bench.json").split()[1:]]
    subprocess.run(command, cwd=project.root, check=True, timeout=60)
    table = compare(project, "bench.json")
    assert all(name in table for name in names(project))
    assert len(names(project)) == 4


def test_under_xdist_without_its_options_nothing_is_said(parallel_run):
    assert "pytest-benchmark" not in parallel_run.done.stdout.replace("plugins:", "")
