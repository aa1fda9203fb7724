"""What do 10,000 cases cost to collect, and what does the plugin cost when it is installed but not used?

Collection is compared with plain pytest parametrisation of 10,000 tests (bound: 1.5 times), start-up with
the same pytest without the plugin (bound: 10 ms more). Whole processes, taken in turn.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

CASES = 10_000
COLLECTION_BOUND, STARTUP_BOUND_MS = 1.5, 10.0

PLAIN = """
import itertools
import pytest

AXES = list(itertools.product(range(50), ["onnxruntime", "openvino"], ["fp32", "int8"], range(50)))


@pytest.mark.parametrize("case", AXES, ids=[f"m{a}-{b}-{c}-x{d}" for a, b, c, d in AXES])
def test_classify(case):
    pass
"""


def suite() -> str:
    """Return a suite of 50 models x 2 frameworks x 2 precisions x 50 batch sizes."""
    lines = ["mlbench = 1"]
    for number in range(50):
        lines += [
            "[[model]]",
            f'name = "m{number}"',
            'files = { onnx = { fp32 = "m.onnx", int8 = "m8.onnx" } }',
        ]
    models = ", ".join(f'"m{number}"' for number in range(50))
    lines += [
        "[[benchmark]]",
        'name = "classify"',
        f"model = [{models}]",
        'framework = ["onnxruntime", "openvino"]',
        'precision = ["fp32", "int8"]',
        f"batch = {list(range(1, 51))}",
    ]
    return "\n".join(lines) + "\n"


def timed(*arguments: str, folder: Path) -> float:
    """Return the seconds of one pytest process."""
    begin = perf_counter()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={folder}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    spent = perf_counter() - begin
    if done.returncode not in (0, 5):
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    if "--collect-only" in arguments and f"{CASES} tests collected" not in done.stdout:
        raise RuntimeError(f"{CASES} tests expected: {done.stdout[-300:]}")
    return spent


def imported(folder: Path) -> set[str]:
    """Return which heavy modules a session that does not use the plugin has imported."""
    code = (
        "import sys, pytest; pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir=.']);"
        "print('IMPORTED', *[m for m in ('numpy', 'execnet', 'onnxruntime', 'tvm', 'openvino', 'ai_edge_litert')"
        " if m in sys.modules])"
    )
    # xdist and pytest-benchmark import execnet and others on their own: only our plugin is loaded here.
    environment = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_mlbench.plugin",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("IMPORTED")[2].split())


def main() -> int:
    """Measure, print the ratios, and exit 1 when a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plain").mkdir()
        (folder / "plain" / "test_plain.py").write_text(PLAIN, encoding="utf-8")
        (folder / "suite").mkdir()
        (folder / "suite" / "bench_many.toml").write_text(suite(), encoding="utf-8")
        (folder / "empty").mkdir()
        (folder / "empty" / "test_one.py").write_text("def test_one():\n    pass\n", encoding="utf-8")
        collect = ("--collect-only", "-q")
        plain, ours, without, installed = [], [], [], []
        for _ in range(rounds):
            plain.append(timed(*collect, "test_plain.py", folder=folder / "plain"))
            ours.append(timed(*collect, "--mlbench", "bench_many.toml", folder=folder / "suite"))
        for _ in range(rounds * 3):
            without.append(timed("-q", "-p", "no:mlbench", folder=folder / "empty"))
            installed.append(timed("-q", folder=folder / "empty"))
        heavy = imported(folder / "empty")
    ratio = median(a / b for a, b in zip(ours, plain, strict=True))
    more_ms = median(a - b for a, b in zip(installed, without, strict=True)) * 1e3
    print(f"collecting {CASES} cases: {median(ours):.2f} s, plain pytest {median(plain):.2f} s, ratio {ratio:.2f}")
    print(f"  bound 1.5: {'met' if ratio <= COLLECTION_BOUND else 'MISSED'}")
    with_ms, without_ms = median(installed) * 1e3, median(without) * 1e3
    print(f"start-up: {with_ms:.0f} ms, without the plugin {without_ms:.0f} ms, {more_ms:+.1f} ms")
    print(f"  bound {STARTUP_BOUND_MS:.0f} ms: {'met' if more_ms < STARTUP_BOUND_MS else 'MISSED'}")
    print(f"heavy modules imported by the unused plugin: {', '.join(sorted(heavy)) or 'none'}")
    return 0 if ratio <= COLLECTION_BOUND and more_ms < STARTUP_BOUND_MS and not heavy else 1


if __name__ == "__main__":
    sys.exit(main())
