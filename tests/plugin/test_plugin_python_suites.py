"""Python suites: functions with the marker `mlbench`, and what their own code may do and must not."""

from __future__ import annotations

import pytest

SIMPLE = "@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n    mlbench.run()\n"


def nodes(result: pytest.RunResult) -> list[str]:
    return [line.partition("::")[2] for line in result.outlines if "::" in line and " " not in line]


def test_ids_and_a_record_of_ones_own(project):
    project.python_suite(
        "@pytest.mark.mlbench(**{**AXES, 'framework': ['onnxruntime', 'litert']})\n"
        "def bench_classify(mlbench):\n"
        "    record = mlbench.run()\n"
        "    assert record.metric('latency.p50').value < 1e9\n"
        "    assert record.metric('latency.p50').unit == 'ns'\n"
        "    assert record.metric('accuracy.top1').value > 0.9\n"
        "    (logits,) = mlbench.outputs.values()\n"
        "    assert logits.shape == (360, 10)\n"
        "    assert np.isfinite(logits).all()\n"
    )
    result = project.run("--mlbench")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert [(record.node, record.case) for record in project.last_run().records] == [
        (
            f"suites/digits/bench_py.py::bench_classify[digits_cnn-{framework}-fp32-cpu]",
            f"py/classify[digits_cnn-{framework}-fp32-cpu]",
        )
        for framework in ("onnxruntime", "litert")
    ]
    project.run("--mlbench", "--collect-only", "-q", "-k", "litert", "-m", "mlbench").stdout.fnmatch_lines(
        ["suites/digits/bench_py.py::bench_classify[[]digits_cnn-litert-fp32-cpu[]]"]
    )


def test_marks_and_exclusions_of_a_python_suite(project):
    project.python_suite(
        "@pytest.mark.mlbench(**{**AXES, 'framework': ['onnxruntime', 'litert']}, marks=['vision'],\n"
        "    exclude=[{'framework': 'onnxruntime', 'reason': 'not on this board'}])\n"
        "def bench_classify(mlbench):\n    mlbench.run()\n"
        "def test_helper():\n    pass\n"
    )
    assert len(nodes(project.run("--mlbench", "--collect-only", "-q", "-m", "vision"))) == 2
    result = project.run("--mlbench", "-rs", "-k", "onnxruntime or helper")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*not on this board"])


def test_a_failing_assertion_after_run_is_the_records_outcome_and_reason(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n"
        "    record = mlbench.run()\n"
        "    assert record.metric('latency.p50').value < 1, 'too slow for our product'\n"
    )
    result = project.run("--mlbench")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # pytest's own introspection works in bench_*.py too
    result.stdout.fnmatch_lines(["E  *too slow for our product", "E  *assert * < 1", "E  *Metric(name='latency.p50'*"])
    (record,) = project.last_run().records
    assert record.outcome == "fail"
    assert record.reason.startswith("AssertionError: too slow for our product")
    assert record.metric("latency.p50").value > 1


def test_a_limit_that_does_not_hold_fails_at_run(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES, expect={'latency': {'p50': '<= 1 ns'}})\n"
        "def bench_classify(mlbench):\n    mlbench.run()\n    raise RuntimeError('not reached')\n"
    )
    result = project.run("--mlbench")
    result.stdout.fnmatch_lines(["fail: py/classify[[]digits_cnn-litert-fp32-cpu[]]:", "latency.p50: *<= 1 ns*"])
    result.stdout.no_fnmatch_line("*not reached*")
    result.stdout.no_fnmatch_line("*bench.py:*")
    assert project.last_run().records[0].checks[-1].outcome == "fail" or any(
        check.outcome == "fail" for check in project.last_run().records[0].checks
    )


def test_never_calling_run_is_invalid_and_fails(project):
    project.python_suite("@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n    pass\n")
    result = project.run("--mlbench")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["invalid: py/classify*: nothing was measured: the test never called mlbench.run()"])
    assert result.ret == 11
    assert project.outcomes() == {"py/classify[digits_cnn-litert-fp32-cpu]": "invalid"}


def test_calling_run_twice_is_an_error(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n    mlbench.run()\n    mlbench.run()\n"
    )
    result = project.run("--mlbench")
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (record,) = project.last_run().records
    assert record.outcome == "fail"
    assert "mlbench.run() was called twice" in record.reason


def test_outputs_before_run_are_an_error(project):
    project.python_suite("@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n    mlbench.outputs\n")
    project.run("--mlbench").stdout.fnmatch_lines(["E  *mlbench.outputs is there after mlbench.run()"])
    assert project.outcomes() == {"py/classify[digits_cnn-litert-fp32-cpu]": "error"}


def test_catching_the_failure_of_run_does_not_make_the_test_pass(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES, expect={'latency': {'p50': '<= 1 ns'}})\n"
        "def bench_classify(mlbench):\n"
        "    with pytest.raises(pytest.fail.Exception):\n        mlbench.run()\n"
    )
    result = project.run("--mlbench")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*The test caught this failure of mlbench.run()*xfail*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_an_expected_failure_is_xfailed_and_says_so(project):
    project.python_suite(
        "@pytest.mark.xfail(reason='known slow', strict=True)\n"
        "@pytest.mark.mlbench(**{**AXES, 'framework': ['litert', 'onnxruntime']},\n"
        "    expect={'latency': {'p50': '<= 1 ns'}},\n"
        "    override=[{'when': {'framework': 'onnxruntime'}, 'set': {'expect': {'latency': {'p50': '<= 1 s'}}}}])\n"
        "def bench_classify(mlbench):\n    mlbench.run()\n"
    )
    result = project.run("--mlbench")
    result.assert_outcomes(xfailed=1, failed=1)  # the strict one that passes is a failure
    slow, fast = project.last_run().records
    assert slow.outcome == "skip"
    assert slow.reason.startswith("expected to fail (xfail): known slow: latency.p50:")
    assert (fast.outcome, "XPASS(strict)" in fast.reason) == ("fail", True)


def test_a_reference_of_ones_own(project):
    rule = "expect={'equivalence': {'fp32': {'rtol': 1e-4, 'atol': 1e-4}}}"
    project.python_suite(
        f"@pytest.mark.mlbench(**AXES, {rule})\n"
        "def bench_far(mlbench):\n    mlbench.run(reference={'logits': np.zeros((360, 10), np.float32)})\n"
        f"@pytest.mark.mlbench(**AXES, {rule})\n"
        "def bench_near(mlbench):\n"
        "    mlbench.run(reference={'logits': np.load(os.environ['MLBENCH_TEST_LOGITS'])})\n"
        "@pytest.mark.mlbench(**AXES)\n"
        "def bench_save(mlbench):\n"
        "    mlbench.run()\n    (logits,) = mlbench.outputs.values()\n"
        "    np.save(os.environ['MLBENCH_TEST_LOGITS'], logits)\n"
        "@pytest.mark.mlbench(**AXES)\n"
        "def bench_unused(mlbench):\n    mlbench.run(reference={'logits': np.zeros((360, 10), np.float32)})\n"
        f"@pytest.mark.mlbench(**AXES, {rule})\n"
        "def bench_without(mlbench):\n    mlbench.run()\n"
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("MLBENCH_TEST_LOGITS", str(project.root / "logits.npy"))
    with patch.context():
        project.run("--mlbench", "-k", "save").assert_outcomes(passed=1)
        result = project.run("--mlbench", "-k", "not save")
    patch.undo()
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.fnmatch_lines(["equivalence.elementwise: *"])
    result.stdout.fnmatch_lines(["error(suite): *bench_py.py: unused.expect.equivalence: *compared by nothing*"])
    result.stdout.fnmatch_lines(["error(suite): *bench_py.py: without.expect.equivalence: compares with nothing*"])
    found = {record.case.split("[")[0]: record.outcome for record in project.last_run().records}
    assert found == {"py/far": "fail", "py/near": "pass", "py/unused": "error", "py/without": "error"}


def test_pre_and_postprocessing_run_in_the_agent_and_are_not_imported_here(project):
    project.write(
        "suites/digits/processing.py",
        "import os, pathlib\nimport numpy as np\n"
        "HERE = pathlib.Path(__file__).parent\n"
        "def pre(batch):\n"
        "    (HERE / 'pre.pid').write_text(str(os.getpid()))\n"
        "    return {name: array.astype(np.float32).reshape(-1, 1, 8, 8) / 16 for name, array in batch.items()}\n"
        "def post(outputs):\n"
        "    (HERE / 'post.pid').write_text(str(os.getpid()))\n"
        "    return {'halved': next(iter(outputs.values())) / 2}\n",
    )
    project.python_suite(
        "import sys\n"
        "mlbench_suite['dataset']['digits'].pop('preprocess')\n"
        "@pytest.mark.mlbench(**{**AXES, 'framework': ['onnxruntime']},"
        " preprocess='processing:pre', postprocess='processing:post')\n"
        "def bench_classify(mlbench):\n"
        "    record = mlbench.run()\n"
        "    assert set(mlbench.outputs) == {'halved'}\n"
        "    assert record.metric('accuracy.top1').value > 0.97\n"
        "    assert 'processing' not in sys.modules\n"
        "    from pathlib import Path\n"
        "    pids = {Path(__file__).with_name(name).read_text() for name in ('pre.pid', 'post.pid')}\n"
        "    assert pids == {str(record.target['pid'])}\n"
        "    assert str(os.getpid()) not in pids\n"
    )
    project.run("--mlbench").assert_outcomes(passed=1)
    hashes = project.last_run().records[0].hashes
    assert len(hashes["code.preprocess"]) == 64


CLASSES = """\
class BenchA:
    @pytest.mark.mlbench(**AXES)
    def bench_x(self, mlbench): mlbench.run()
class BenchB(BenchA): pass
"""
TEST = SIMPLE.replace("bench_classify", "test_classify")
NO_TABLES = "a Python suite needs `mlbench_suite = {...}`"

# What stands in the suite after its tables, and the message about it.
WRONG = {
    "key": (
        SIMPLE.replace("**AXES", "**AXES, datset='digits'"),
        'classify.datset: unknown key*did you mean "dataset"*',
    ),
    "framework": (
        SIMPLE.replace("**AXES", "**{**AXES, 'framework': ['litrt']}"),
        'classify.framework[[]0[]]: *"litert"*',
    ),
    "positional": (SIMPLE.replace("**AXES", "'m', **AXES"), "bench_classify: *keyword arguments only*"),
    "bare": (SIMPLE.replace("mlbench(**AXES)", "mlbench"), 'classify: the key "model" is missing*'),
    "no-fixture": (
        "@pytest.mark.mlbench(**AXES)\ndef bench_classify():\n    pass\n",
        "bench_classify: does not take the fixture `mlbench`*",
    ),
    "no-marker": (
        "def bench_classify(mlbench):\n    mlbench.run()\n",
        "bench_classify: has no marker*@pytest.mark.mlbench(*",
    ),
    "table-key": (
        "mlbench_suite['modle'] = []\n" + SIMPLE,
        'modle: unknown key*did you mean "model"*',
    ),
    "table-value": (
        "mlbench_suite['model'][0]['files']['onnx'] = {'fp99': 'x.onnx'}\n" + SIMPLE,
        "model[[]0[]].files.onnx.fp99: unknown precision*",
    ),
    "benchmark-table": (
        "mlbench_suite['benchmark'] = [dict(AXES, name='other')]\n" + SIMPLE,
        "benchmark: *its functions*",
    ),
    "not-a-dict": ("mlbench_suite = 5\n" + SIMPLE, f"bench_classify: {NO_TABLES}*"),
    "no-tables": ("del mlbench_suite\n" + TEST, f"test_classify: {NO_TABLES}*"),
    "empty": ("def helper(): pass\n", "the suite holds no function named bench_[*] or test_[*]*"),
    "twice": (
        SIMPLE + TEST,
        "classify: *test_classify and *bench_classify are both benchmark 'classify'*rename*",
    ),
    "twice-in-classes": (CLASSES, "x: *BenchA::bench_x* both benchmark 'x'*"),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG)
def test_errors_are_collection_errors_with_file_and_key_and_without_traceback(project, text, expected):
    project.python_suite(text)
    result = project.run("--mlbench", "--collect-only")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*bench_py.py: {expected}"])
    for line in result.outlines:
        assert not line.startswith(("E  ", "Traceback", "/")) or "bench_py.py: " in line, line
    result.stdout.no_fnmatch_line("*in collect*")
    assert not (project.root / ".mlbench").is_dir() or not project.last_run().records


def test_another_parametrization_is_refused_since_records_could_not_be_told_apart(project):
    project.python_suite("@pytest.mark.parametrize('n', [1, 2])\n" + SIMPLE.replace("(mlbench)", "(mlbench, n)"))
    result = project.run("--mlbench")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: *are both case py/classify[[]digits_cnn-litert-fp32-cpu[]]*Make what differs an axis*"]
    )


def test_classes_of_benchmarks(project):
    project.python_suite(
        "class BenchDigits:\n"
        "    @pytest.mark.mlbench(**AXES)\n    def bench_classify(self, mlbench):\n        mlbench.run()\n"
        "    @pytest.mark.mlbench(**AXES)\n    def test_again(self, mlbench):\n        mlbench.run()\n"
        "class TestDigits:\n"
        "    @pytest.mark.mlbench(**AXES)\n    def bench_third(self, mlbench):\n        mlbench.run()\n"
        "class Bencher:\n    pass\n"
    )
    result = project.run("--mlbench", "--collect-only", "-q")
    assert nodes(result) == [
        "BenchDigits::bench_classify[digits_cnn-litert-fp32-cpu]",
        "BenchDigits::test_again[digits_cnn-litert-fp32-cpu]",
        "TestDigits::bench_third[digits_cnn-litert-fp32-cpu]",
    ]
    project.run("--mlbench", "-k", "classify").assert_outcomes(passed=1)
    assert project.outcomes() == {"py/classify[digits_cnn-litert-fp32-cpu]": "pass"}


def test_several_functions_are_benchmarks_of_their_own(project):
    project.python_suite(SIMPLE + SIMPLE.replace("classify", "second") + SIMPLE.replace("bench_classify", "test_third"))
    result = project.run("--mlbench-list", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["py/classify[[]*", "py/second[[]*", "py/third[[]*", "3 cases, 3 run, 0 skipped"])


def test_a_module_of_another_tool_named_bench_is_left_alone(project):
    project.write("suites/digits/bench_other.py", "def bench_helper(): raise RuntimeError\ndef test_other(): pass\n")
    project.run("--mlbench", "-k", "helper or other").assert_outcomes(passed=1)


def test_a_skip_of_the_users_own_is_the_records(project):
    project.python_suite(
        "@pytest.mark.mlbench(**AXES)\ndef bench_classify(mlbench):\n    pytest.skip('board is away')\n"
    )
    project.run("--mlbench").assert_outcomes(skipped=1)
    (record,) = project.last_run().records
    assert (record.outcome, record.reason) == ("skip", "board is away")
