"""Do eight emulated boards work in parallel, one case at a time on each, while no timed `cpu` case runs?

64 cases on 8 boards and 8 on the `cpu`, by `pytest -n 8`. Bounds: no two cases overlap on a board, and no timed `cpu`
case overlaps one that emulates (by the hold times in the records); the wall time of the 64 is at most 1.3 times the
processor time that all of it took, over the cores.
Needs qemu-system-arm, the package in fixtures/pytest-mlbench-qemu, and pytest-xdist.
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from pytest_mlbench.record import Record
from pytest_mlbench.stores import runfile

DIGITS = Path(__file__).resolve().parents[1] / "suites" / "digits"
IMAGE = "digits_int8-mps2-an386.elf"
BOARDS, ROWS, BOUND = 8, 8, 1.3
DEVICES = [f"m4_{number}" for number in range(BOARDS)]
LAB = "mlbench = 1\n" + "".join(f'[device.{name}]\ntype = "qemu"\n' for name in DEVICES)
HEAD = f"""mlbench = 1
[[model]]
name = "digits_cnn"
task = "image_classification"
[model.files]
firmware = {{ int8 = "{IMAGE}" }}
tflite = {{ int8 = "digits_int8.tflite" }}
[dataset.digits]
file = "test.npz"
preprocess = [{{ scale = 0.0625 }}, {{ reshape = [1, 8, 8] }}]
"""
ROW = """[[benchmark]]
name = "{name}"
model = ["digits_cnn"]
framework = ["{framework}"]
precision = ["int8"]
device = [{devices}]
dataset = "digits"
scenario = {{ kind = "single_stream", min_duration_s = 0.2, min_samples = 20 }}
"""


def write(folder: Path) -> None:
    """Write the lab file and two suites, of the boards and of the `cpu`."""
    (folder / "lab.toml").write_text(LAB, encoding="utf-8")
    boards = ", ".join(f'"{name}"' for name in DEVICES)
    for suite, framework, devices in (("boards", "firmware", boards), ("local", "litert", '"cpu"')):
        own = folder / suite
        own.mkdir()
        models = DIGITS / "models"
        for file in (models / "firmware" / IMAGE, models / "digits_int8.tflite", DIGITS / "data" / "test.npz"):
            shutil.copy(file, own)
        shutil.copy((models / "firmware" / IMAGE).with_suffix(".json"), own)
        rows = (ROW.format(name=f"row{row}", framework=framework, devices=devices) for row in range(ROWS))
        (own / f"bench_{suite}.toml").write_text(HEAD + "".join(rows), encoding="utf-8")


def run(folder: Path, *suites: str) -> tuple[tuple[Record, ...], float, float]:
    """Run suites by eight workers; returns the records, the wall seconds and the processor seconds of it all."""
    output = folder / f"{'-'.join(suites)}.jsonl"
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    options = ["--mlbench-lab=lab.toml", f"--mlbench-output={output}", "--mlbench-lease-timeout=600"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "--mlbench", *suites, *options, "-n", str(BOARDS), "-q"],
        cwd=folder,
        env={**os.environ, "MLBENCH_CACHE": str(folder / "cache"), "MLBENCH_STATE": str(folder / "state")},
        check=True,
    )
    wall_s, after = perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return tuple(runfile.read(output).records), wall_s, spent_s


def overlaps(records: Sequence[Record]) -> list[str]:
    """Name each pair of cases that held one thing at one time, at least one of them alone."""
    found = []
    for one, other in itertools.combinations(records, 2):
        first, second = one.lease, other.lease
        together = first["begin_ns"] < second["end_ns"] and second["begin_ns"] < first["end_ns"]
        alone = {*first["resources"]} & {*second["resources"], *second["shares"]}
        alone |= {*second["resources"]} & {*first["shares"]}
        if together and alone:
            found.append(f"{one.case} and {other.case} on {', '.join(sorted(alone))}")
    return found


def main() -> int:
    """Run the boards alone for the time, then beside `cpu` cases; exit 1 when a bound is missed."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        records, wall_s, spent_s = run(folder, "boards")
        mixed, _, _ = run(folder, "boards", "local")
    ratio = wall_s / (spent_s / cores)
    wrong = overlaps(records) + overlaps(mixed)
    passed = sum(record.outcome == "pass" for record in (*records, *mixed))
    print(
        f"{len(records)} cases on {BOARDS} boards: {wall_s:.1f} s, {spent_s:.1f} s of processor time on {cores} cores"
    )
    print(f"wall time over work per core {ratio:.2f}, bound {BOUND}: {'met' if ratio <= BOUND else 'MISSED'}")
    print(
        f"with {len(mixed) - len(records)} timed cpu cases between: {len(wrong)} overlaps, bound 0", *wrong, sep="\n  "
    )
    print(f"{passed} of {len(records) + len(mixed)} passed")
    return 0 if ratio <= BOUND and not wrong and passed == len(records) + len(mixed) else 1


if __name__ == "__main__":
    sys.exit(main())
