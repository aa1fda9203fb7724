"""The gate as its users meet it: a candidate compared with a base revision, by `pytest --mlbench --mlbench-base`.

What a framework takes is set by its option `spin_us`, so a slowdown is one of a factor and found in the fewest rounds.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from pytest_mlbench import waivers

pytestmark = pytest.mark.alone  # times what it runs

METRICS = """
from itertools import cycle
from pathlib import Path

from pytest_mlbench.record import Metric

SHAKY = cycle([1.5, 0.7])


def work(m):
    return [Metric("own.work", m.case.framework.options["spin_us"], "", "lower")]


def shaky(m):
    is_candidate = m.case.suite.path.parent == Path(__file__).parent
    return [Metric("own.shaky", next(SHAKY) if is_candidate else 1.0, "", "lower")]
"""
OVERRIDES = """
[[benchmark.override]]
when = { framework = ["slower"] }
set.metrics = ["own:work"]
set.expect.own.work.max_regression = "1 %"
[[benchmark.override]]
when = { framework = ["floor"] }
set.metrics = ["own:shaky"]
set.expect.own.shaky.max_regression = "1 %"
set.expect.latency.p50 = { max_regression = "1 %", ignore_below = "1 ms" }
"""
EXPECT_ANSWERS = (
    """expect = { model = { size = { max_regression = "10 %" } }, unchanged = { fp32 = { max_abs = "<= 0.1" } } }"""
)

PYTHON_SUITE = """
import pytest

mlbench_suite = {
    "mlbench": 1,
    "model": [{"name": "net", "files": {"faulty": {"fp32": "model.json"}}}],
    "dataset": {"data": {"file": "data.npz"}},
}


@pytest.mark.mlbench(
    model=["net"],
    framework=[{"name": "faulty", "id": "python", "options": {"spin_us": 100}}],
    precision=["fp32"],
    dataset="data",
    preprocess="prepare:prepare",
    scenario={"kind": "single_stream", "min_duration_s": 0.05, "warmup_s": 0.0, "boundary": "end_to_end"},
    expect={"latency": {"p50": {"max_regression": "150 %"}}},
)
def bench_run(mlbench):
    record = mlbench.run()
    assert record.comparisons
"""
PREPARE = """
import time


def prepare(batch):
    until = time.perf_counter_ns() + {} * 1000
    while time.perf_counter_ns() < until:
        pass
    return batch
"""


def write_answers(repository, *frameworks, factor):
    """Write a suite of a classifier whose weights are multiplied; a negative factor makes every answer wrong."""
    path = repository.suite(*frameworks, name="answers", task="classification", benchmark=EXPECT_ANSWERS)
    weights = re.sub(
        r"-?\d+\.\d+", lambda number: str(factor * float(number[0])), (path.parent / "model.json").read_text()
    )
    (path.parent / "model.json").write_text(weights)
    return path


@pytest.fixture(scope="module")
def project(make_repository):
    """Return a project whose candidate, not committed, differs from the base in every way that this module looks at."""
    made = make_repository()
    faulty, suites = made.faulty, made.project / "suites"
    for spin_us, other_us in ((200, 400), (400, 200)):
        new = [faulty("new")] if spin_us == 400 else []
        named = [faulty("slower", spin_us=spin_us), faulty("same", spin_us=200), faulty("floor", spin_us=spin_us)]
        made.suite(*named, *new, name="gate", tables=OVERRIDES)
        (suites / "gate" / "own.py").write_text(METRICS)
        write_answers(made, faulty("answers", spin_us=other_us), factor=1 if spin_us == 200 else -10)
        (suites / "gate" / "bench_python.py").write_text(PYTHON_SUITE)
        (suites / "gate" / "prepare.py").write_text(PREPARE.format(spin_us // 2))
        if spin_us == 200:
            made.commit()
    return made


@pytest.fixture(scope="module")
def compared(project):
    """Return one comparison of everything."""
    return project.compare("--mlbench-rounds=8", "--junitxml=run-junit.xml")


@pytest.fixture(scope="module")
def junit(project, compared):
    """Return the test cases of the comparison's JUnit XML by the framework's word."""
    found = ElementTree.parse(project.project / "run-junit.xml").iter("testcase")
    return {re.search(r"net-(\w+)-fp32", case.attrib["name"])[1]: case for case in found}


def part_of(result, heading):
    """Return what the terminal shows of one failed test."""
    begin = result.out.index(f"\n{heading}")
    return result.out[
        begin + 1 : min(
            filter(lambda end: end > 0, (result.out.find(mark, begin) for mark in ("\n___", "\n---", "\n===")))
        )
    ]


# --- one comparison of everything ----------------------------------------------------------------------------


def test_a_slowdown_fails_its_test(compared, project):
    sha = project.git("rev-parse", "--short=12", "HEAD")
    told = part_of(compared, "fail: gate/run[net-slower-fp32-cpu]:")
    assert re.search(
        rf"regressed: latency\.p50 is \S+ % slower \(2\d\d us to 4\d\d us; 95 % interval \+\S+ % to \+\S+ %\) "
        rf"against base {sha} \(merge base of HEAD\); limit 30 %, p = 0\.0039, needed 0\.0056 in 8 confirming rounds\n",
        told,
    ), told
    assert "Traceback" not in compared.out
    assert "FAILED suites/gate/bench_gate.toml::run[net-slower-fp32-cpu]" in compared.out
    assert compared.code == compared.run.footer["exitstatus"] == 1
    assert compared.records["slower"].outcome == "fail"
    assert compared.records["slower"].reason in told
    found = compared.comparisons["slower"]["latency.p50"]
    assert (found.verdict, found.method, found.n, found.margin) == ("regressed", "rounds", 8, 0.3)
    assert found.interval[0] <= found.change <= found.interval[1]
    assert found.change == pytest.approx(1.0, abs=0.2)
    assert len(found.base_values) == len(found.candidate_values) == 6 + 8


def test_a_slowdown_is_a_failure_in_junit_too(compared, junit):
    (failure,) = junit["slower"].iter("failure")
    assert compared.records["slower"].reason in failure.text
    assert {word for word, case in junit.items() if list(case.iter("failure"))} == {"slower", "answers"}


def test_the_waiver_that_is_offered_would_accept_it(compared, tmp_path):
    told = part_of(compared, "fail: gate/run[net-slower-fp32-cpu]:")
    offered = re.findall(r"  \[\[waiver\]\]\n(?:  .+\n?)+?(?=regressed|\Z)", told)
    assert len(offered) == 2
    file = tmp_path / "mlbench-waivers.toml"
    file.write_text("\n".join(offered), encoding="utf-8")
    holding = waivers.load(file)
    for found in compared.comparisons["slower"].values():
        assert waivers.apply(found, holding, "gate/run[net-slower-fp32-cpu]").waived == "why this is worth it"


def test_an_unchanged_case_passes_and_its_comparison_is_printed(compared):
    assert compared.records["same"].outcome == "pass"
    found = compared.comparisons["same"]["latency.p50"]
    assert found.verdict == "pass"
    assert found.n in (6, 8), "one of ten looks quicker by chance, and is then looked at again"
    assert found.change == pytest.approx(0.0, abs=0.1)
    (row,) = re.findall(r"gate/run\[net-same-fp32-cpu\] +latency\.p50 .*", compared.out)
    assert re.fullmatch(r"\S+ +\S+ +2\d\d us +2\d\d us +[+-]?\S+ % \[[+-]?\S+ %, [+-]?\S+ %\] +\S+ % +pass", row), row


def test_faster_but_wrong_is_red(compared):
    found = compared.comparisons["answers"]
    assert found["latency.p50"].verdict == "improved"
    assert found["latency.p50"].change == pytest.approx(-0.5, abs=0.1)
    top1 = found["accuracy.top1"]
    assert (top1.verdict, top1.method, top1.n, top1.base, top1.candidate) == ("regressed", "mcnemar", 12, 1.0, 0.0)
    assert top1.p == pytest.approx(2**-12)
    assert compared.records["answers"].outcome == "fail"
    told = "accuracy.top1 is 0.00%, the base's 100.00%: of the same 12 samples 12 were lost and 0 gained"
    assert told in part_of(compared, "fail: answers/run[net-answers-fp32-cpu]:")


def test_outputs_that_differ_are_told_and_fail_where_they_must_not(compared):
    told = compared.records["answers"].base["outputs"]
    assert re.fullmatch(r"y differs for 12 of 12 samples, by at most \d+\.\d", told)
    assert f"outputs differ from the base's: answers/run[net-answers-fp32-cpu]: {told}" in compared.out
    assert compared.records["same"].base["outputs"] == "identical"
    (check,) = (check for check in compared.records["answers"].checks if check.name == "unchanged.max_abs")
    assert check.outcome == "fail"
    assert "unchanged.max_abs: output 'y': max |a-b| is" in compared.records["answers"].reason


def test_the_models_size_is_compared_exactly(compared):
    size = compared.comparisons["answers"]["model.size"]
    assert (size.verdict, size.method, size.base, size.candidate) == ("regressed", "exact", 51, 57)
    assert re.search(
        r"regressed: model\.size is 12 % larger \(51 B to 57 B\) against .*; limit 10 %, compared exactly", compared.out
    )


def test_a_metric_of_the_suites_own_is_compared(compared):
    work = compared.comparisons["slower"]["own.work"]
    assert (work.verdict, work.base, work.candidate, work.margin) == ("regressed", 200, 400, 0.01)


def test_the_suite_says_what_is_a_regression(compared):
    floor = compared.comparisons["floor"]["latency.p50"]
    assert (floor.verdict, floor.margin, floor.ignore_below) == ("pass", 0.01, 1e6)
    assert floor.reason.endswith(", which is less than ignore_below = 1.00 ms")
    assert compared.comparisons["python"]["latency.p50"].margin == 1.5


def test_what_cannot_be_decided_passes(compared):
    shaky = compared.comparisons["floor"]["own.shaky"]
    assert (shaky.verdict, shaky.n) == ("inconclusive", 8)
    assert compared.records["floor"].outcome == "pass"


def test_each_side_of_a_python_suite_runs_its_own_module(compared):
    found = compared.comparisons["python"]["latency.p50"]
    assert found.verdict == "pass"
    assert found.change == pytest.approx(0.5, abs=0.1), "200 and 300 us: both sides with one module would be alike"
    assert compared.records["python"].base["identical"] is False


def test_a_case_that_the_base_has_not_passes_and_is_told(compared):
    assert compared.records["new"].outcome == "pass"
    assert compared.records["new"].base["new"] is True
    assert compared.records["new"].comparisons == ()
    assert "not in the base, so not compared: gate/run[net-new-fp32-cpu]\n" in compared.out


def test_what_was_compared_is_told(compared, project):
    sha = project.git("rev-parse", "HEAD")
    assert compared.run.header["source"] == {"commit": sha, "dirty": True, "branch": "main"}
    assert f"against base {sha[:12]} (merge base of HEAD)\n" in compared.out
    for record in compared.run.records:
        assert (record.base["commit"], record.base["ref"], record.base["how"]) == (sha, "HEAD", "merge base")
    rounds = compared.records["slower"].base["rounds"]
    assert len(rounds) == 6 + 8
    assert [one["first"] for one in rounds[:6]] in (["base", "candidate"] * 3, ["candidate", "base"] * 3)
    assert compared.records["slower"].base["seed"] == 1


# --- other ways to run it ------------------------------------------------------------------------------------


def test_workers_come_to_the_same_verdicts_in_one_run_file(project, compared):
    result = project.compare(
        "-n", "2", "--mlbench-strict", "--mlbench-rounds=6", "-k", "floor or new", output="run-n.jsonl"
    )
    assert [record.axes["framework"] for record in result.run.records] == ["floor", "new"]
    for word in ("floor", "new"):
        verdicts = {name: found.verdict for name, found in result.comparisons[word].items()}
        assert verdicts == {name: found.verdict for name, found in compared.comparisons[word].items()}
    assert result.records["new"].outcome == "pass"
    assert not list(project.project.glob("run-n.jsonl*parts*"))
    # what --mlbench-strict adds
    assert result.records["floor"].outcome == "fail"
    assert "inconclusive: own.shaky is" in part_of(result, "fail: gate/run[net-floor-fp32-cpu]:")
    assert "could not be shown" in result.out
    assert result.code == 1


def test_x_stops_after_the_first_regressed_case(project):
    result = project.compare("-x", project.NO_ROUNDS, "-k", "answers or same", output="run-x.jsonl")
    assert {word: record.outcome for word, record in result.records.items()} == {"answers": "fail"}
    assert "stopping after 1 failures" in result.out
    assert result.code == 1


def test_a_comparison_is_resumed_with_its_verdict(project, compared):
    before = project.count("load")
    result = project.compare("--mlbench-resume=run.jsonl", "-k", "same", output="run-resumed.jsonl")
    assert project.count("load") == before
    assert result.records["same"].resumed == compared.run.header["id"]
    assert result.records["same"].comparisons == compared.records["same"].comparisons
    assert result.code == 0


def test_what_was_compared_with_another_base_is_not_resumed(project, compared):
    other = project.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "of the same files")
    arguments = (f"--mlbench-base={other}", "--mlbench-base-exact", "--mlbench-resume=run.jsonl", "-k", "same")
    result = project.compare(*arguments, project.NO_ROUNDS, output="run-other.jsonl")
    assert not result.records["same"].resumed
    assert result.records["same"].base["commit"] == other
    assert result.records["same"].outcome == "invalid", "it was compared anew, by no rounds"


@pytest.mark.parametrize("option", ["--collect-only", "--mlbench-list"])
def test_where_nothing_is_measured_nothing_is_checked_out(repository, option):
    repository.suite()
    repository.commit()
    result = repository.compare(option)
    assert "run[net-faulty-fp32-cpu]" in result.out
    assert result.code == 0
    assert not (repository.root / "cache" / "checkouts").exists()


def test_an_improvement_by_another_interpreter_against_the_revision_itself(repository):
    """The two sides differ in the base's interpreter only; the base is no ancestor of the candidate."""
    environment = repository.environment().parents[2]
    repository.suite(repository.faulty("faulty", spin_us=200))
    merge_base = repository.commit()
    other = repository.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "another branch")
    result = repository.compare(
        *(f"--mlbench-base={other}", "--mlbench-base-exact"),
        "--mlbench-rounds=6",
        f"--mlbench-base-python={environment / 'bin' / 'python'}",
        MLBENCH_FAULTY_SLOW_IN=str(environment),
    )
    record = result.records["faulty"]
    assert (record.base["commit"], record.base["how"], record.base["identical"]) == (other, "as given", False)
    assert other != merge_base
    found = result.comparisons["faulty"]["latency.p50"]
    assert (found.verdict, found.n) == ("improved", 6)
    assert found.change == pytest.approx(-0.5, abs=0.1)
    assert re.search(r"latency\.p50 +4\d\d us +2\d\d us +-\S+ % \[-\S+ %, -\S+ %\] +\S+ % +improved", result.out)
    assert record.outcome == "pass"
    assert result.code == 0
