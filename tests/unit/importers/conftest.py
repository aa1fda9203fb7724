"""Files that the tools themselves wrote, made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

PYTEST_BENCHMARK = """\
import pytest

@pytest.mark.parametrize("n", [10, 100])
def test_sort(benchmark, n):
    benchmark(sorted, list(range(n)))

@pytest.mark.benchmark(disable_gc=True)
def test_once(benchmark):
    benchmark.pedantic(sum, (range(1000),), rounds=70)

class TestNames:
    @pytest.mark.parametrize("word", ["a b/c", "a_b/c"])
    def test_odd(self, benchmark, word):
        benchmark.pedantic(len, (word,), rounds=3, iterations=4)

def test_fails(benchmark):
    benchmark(lambda: 1 / 0)
"""

PYPERF = """\
import pyperf

runner = pyperf.Runner()
runner.bench_func("sort/100 é", sorted, list(range(100))[::-1])
runner.bench_func("sum", sum, range(300), inner_loops=2)
"""

GOOGLE = """\
import google_benchmark as benchmark

@benchmark.register
@benchmark.option.unit(benchmark.kMicrosecond)
@benchmark.option.arg(8)
@benchmark.option.arg(64)
def sorting(state):
    data = list(range(state.range(0)))[::-1]
    while state:
        sorted(data)
    state.counters["items"] = float("nan")

@benchmark.register
def failing(state):
    state.skip_with_error("no such device")

if __name__ == "__main__":
    benchmark.main()
"""


@dataclass(frozen=True)
class Made:
    """What a tool wrote: a whole file, and one of another kind."""

    whole: Path
    other: Path


def script(folder: Path, text: str, *arguments: object) -> None:
    """Run a script in a process of its own."""
    (folder / "script.py").write_text(text, encoding="utf-8")
    call(folder, "script.py", *arguments)


def call(folder: Path, *arguments: object, codes: tuple[int, ...] = (0,)) -> None:
    """Run Python in a folder."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in codes, done.stdout + done.stderr


@pytest.fixture(scope="session")
def by_pytest_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two files of one session of pytest-benchmark in a git repository."""
    folder = tmp_path_factory.mktemp("pytest-benchmark")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_speed.py").write_text(PYTEST_BENCHMARK, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    options = ("--benchmark-json=whole.json", "--benchmark-save=one", "--benchmark-max-time=0.01")
    call(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, codes=(1,))
    (saved,) = folder.glob(".benchmarks/*/*_one.json")
    return Made(folder / "whole.json", saved)


@pytest.fixture(scope="session")
def by_pyperf(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A file of pyperf, and one of the same benchmarks timed one call at a time."""
    folder = tmp_path_factory.mktemp("pyperf")
    script(folder, PYPERF, "-q", "-p", 6, "-n", 2, "-w", 1, "-l", 20, "-o", "whole.json")
    script(folder, PYPERF, "-q", "-p", 2, "-n", 40, "-w", 1, "-l", 1, "-o", "single.json.gz")
    return Made(folder / "whole.json", folder / "single.json.gz")


@pytest.fixture(scope="session")
def by_google_benchmark(tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]) -> Made:
    """Files of Google Benchmark: all repetitions, and their aggregates only."""
    require("google_benchmark")
    folder = tmp_path_factory.mktemp("google-benchmark")
    options = ("--benchmark_out_format=json", "--benchmark_repetitions=5", "--benchmark_min_time=0.002s")
    script(folder, GOOGLE, *options, "--benchmark_out=whole.json", "--benchmark_enable_random_interleaving=true")
    script(folder, GOOGLE, *options, "--benchmark_out=summary.json", "--benchmark_report_aggregates_only=true")
    return Made(folder / "whole.json", folder / "summary.json")
