"""`mlbench compare` as its users meet it: on run files that real sessions wrote.

What a call takes is set by a function of the user's own, so that nothing else differs between the sides.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone  # times what it runs

PREPARE = """
import time


def prepare(batch):
    until = time.perf_counter_ns() + {} * 1000
    while time.perf_counter_ns() < until:
        pass
    return batch
"""
TIMED = 'boundary = "end_to_end" }\npreprocess = "prepare:prepare"'
CASE = "faults/run[net-faulty-fp32-cpu]"
ROOMY = ("--max-regression", "90 %")  # of runs of a fraction of a second, on a machine where other tests run too


@dataclass(frozen=True)
class Done:
    """How the command ended."""

    code: int
    out: str
    err: str


def mlbench_compare(folder: Path, *arguments: object) -> Done:
    command = [sys.executable, "-m", "pytest_mlbench", "compare", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def suite(bed, spin_us: int, seed: int = 0) -> None:
    """Write a suite whose calls take as long as its own pre-processing does."""
    path = bed.suite(benchmark=f"# seed {seed}")
    text = path.read_text().replace("warmup_samples = 4 }", f"warmup_samples = 4, seed = {seed}, {TIMED}")
    path.write_text(text)
    (path.parent / "prepare.py").write_text(PREPARE.format(spin_us))


@pytest.fixture(scope="module")
def runs(make_bed):
    """Return a folder with runs that were taken in turn: old, its twin (the same once more), and new, slower."""
    bed = make_bed()
    for number in range(3):
        for name, spin_us in (("old", 300), ("twin", 300), ("new", 1200)):
            suite(bed, spin_us)
            result = bed.run(output=bed.project / f"{name}{number}.jsonl")
            assert result.code == 0, result.out
    return bed.project


def sides(base: str, candidate: str) -> list[str]:
    files = [[f"{name}{number}.jsonl" for number in range(3)] for name in (base, candidate)]
    return ["--base", *files[0], "--candidate", *files[1]]


def test_slower_runs_are_a_regression(runs):
    done = mlbench_compare(runs, *sides("old", "new"))
    assert (done.code, done.err) == (1, "")
    assert "regressed: latency.p50 is " in done.out
    assert "; limit 3 %, p = 0.05, needed 0.05 in 6 runs\n" in done.out
    assert f'    case = "{CASE}"\n    metric = "latency.p50"\n' in done.out
    assert done.out.endswith("1 comparison of 1 case: 1 regressed\n")


def test_the_waiver_that_is_offered_accepts_it(runs, tmp_path):
    told = mlbench_compare(runs, *sides("old", "new")).out
    offered = told[told.index("    [[waiver]]") :].rpartition("\n1 comparison")[0]
    (tmp_path / "waivers.toml").write_text(offered)
    done = mlbench_compare(runs, *sides("old", "new"), "--waivers", tmp_path / "waivers.toml")
    assert done.code == 0, done.out
    assert f"waived: {CASE} latency.p50: why this is worth it\n" in done.out


def test_the_other_way_round_it_is_an_improvement(runs):
    done = mlbench_compare(runs, *sides("new", "old"))
    assert done.code == 0, done.out
    assert done.out.endswith("1 comparison of 1 case: 1 improved\n")


def test_the_same_thing_twice_passes(runs):
    done = mlbench_compare(runs, *sides("old", "twin"), *ROOMY)
    assert done.code == 0, done.out
    assert done.out.endswith("1 comparison of 1 case: 1 pass\n")


def test_one_run_of_each_side_is_not_decided(runs):
    done = mlbench_compare(runs, "old0.jsonl", "new0.jsonl", "--format", "json")
    document = json.loads(done.out)
    ((one),) = document["comparisons"]
    assert (done.code, document["exit_code"], one["verdict"]) == (10, 10, "inconclusive")
    assert one["change"] > 0.5, "the plain difference is shown all the same"
    assert document["base"] != document["candidate"]
    assert mlbench_compare(runs, "old0.jsonl", "new0.jsonl", "--strict").code == 1


def test_other_settings_are_not_compared_and_are_named(make_bed, runs):
    bed = make_bed()
    suite(bed, 300, seed=7)
    bed.run()
    done = mlbench_compare(runs, "old0.jsonl", bed.run_file)
    assert done.code == 11
    assert "invalid: latency.p50: base and candidate are not alike: scenario.seed is 0 and 7. " in done.out


def test_a_run_that_was_killed_is_not_taken_for_whole(runs, tmp_path):
    whole = (runs / "new0.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(whole[:-1]))
    done = mlbench_compare(runs, "old0.jsonl", tmp_path / "cut.jsonl")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"mlbench: {tmp_path / 'cut.jsonl'}: it has no footer, so it was cut off; copy it again, or measure again\n"
    )


def test_a_comparison_with_a_base_is_shown_again_with_its_exit_code(repository):
    repository.suite()
    base = repository.commit()
    # No machine is as even as this, so that no rounds are taken and every comparison is invalid.
    measured = repository.start("--mlbench-base=HEAD", "--mlbench-noise-ceiling=0.001 %").wait(120)
    assert measured.code == 11, measured.out
    done = mlbench_compare(repository.project, repository.run_file)
    assert done.code == 11
    (record,) = measured.records.values()
    assert f"candidate {base[:12]} (1 run of main)\nagainst base {base[:12]} (" in done.out
    assert f"  invalid: latency.p50: {record.comparisons[0].reason} (against base {base[:12]} " in done.out
    shown = [line for line in done.out.splitlines() if line.startswith(f"{record.case}  ")]
    assert shown, done.out
    assert shown[0] in measured.out, "the same table as at the end of the session"
