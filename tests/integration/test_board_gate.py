"""The gate on boards: flashed in turn, instructions compared exactly, a board that keeps its image."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("serial")
if not hasattr(os, "openpty"):
    pytest.skip("the fake board is a pseudo-terminal", allow_module_level=True)

from pytest_mlbench.testing.fake_board import FakeBoard

pytestmark = pytest.mark.alone  # times what it runs

DIGITS = Path(__file__).parents[2] / "suites" / "digits"
SIDECAR = {
    "inputs": [{"name": "x", "dtype": "int8", "shape": [1, 4]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 2]}],
    "nodes": [{"name": "fc", "op": "FullyConnected", "precision": "int8"}],
}
SUITE = """
mlbench = 1
[[model]]
name = "net"
files = {{ firmware = {{ {files} }} }}
[dataset.d]
file = "data.npz"
[[benchmark]]
name = "run"
model = ["net"]
framework = ["firmware"]
precision = ["int8"]
device = ["m4"]
dataset = "d"
executed_precision = {executed}
timeout_s = 30
scenario = {{ kind = "single_stream", min_duration_s = 0.02, min_samples = 5, warmup_s = 0.0, warmup_samples = 1 }}
"""
FLASH = "import sys; open(sys.argv[1], 'w').write('flash ' + open(sys.argv[2]).read())"


def write(repository, fake, image, *, flashed=True):
    folder = repository.project
    files = 'int8 = "net.elf"' if flashed else ""
    executed = '"int8"' if flashed else '"unknown"'
    (folder / "bench_net.toml").write_text(SUITE.format(files=files, executed=executed), encoding="utf-8")
    (folder / "net.elf").write_text(image, encoding="utf-8")
    (folder / "net.elf.json").write_text(json.dumps(SIDECAR), encoding="utf-8")
    np.savez(folder / "data.npz", x=np.zeros((3, 4 if flashed else 640), np.int8 if flashed else np.float32))
    lab = ["mlbench = 1", "[device.m4]", 'type = "serial"', f'port = "{fake.port}"', "boot_timeout_s = 2.0"]
    if flashed:
        lab.append(f"flash = {json.dumps([sys.executable, '-c', FLASH, fake.control, '{image}'])}")
    (repository.root / "lab.toml").write_text("\n".join(lab) + "\n", encoding="utf-8")


def compared(repository, *args):
    lab = f"--mlbench-lab={repository.root / 'lab.toml'}"
    return repository.compare(lab, "bench_net.toml", *args, **{"MLBENCH_LAB": ""})


def test_a_board_runs_base_and_candidate_in_turn_by_flashing(repository):
    images = {"fast": {"call_us": 400}, "slow": {"call_us": 800}}
    with FakeBoard(infer=lambda data: [1.0, 0.0], images=images) as fake:
        write(repository, fake, "fast")
        repository.commit()
        write(repository, fake, "slow")
        found = compared(repository)
    (record,) = found.run.records
    (comparison,) = record.comparisons
    assert (comparison.metric, comparison.verdict) == ("latency.p50", "regressed"), found.out
    assert comparison.change == pytest.approx(1.0, abs=0.3)
    assert found.code == 1
    rounds = len(record.base["rounds"])
    turns = fake.flashed[-2 * rounds :]
    assert sorted(turns) == ["fast"] * rounds + ["slow"] * rounds
    pairs = [turns[index : index + 2] for index in range(0, 2 * rounds, 2)]
    assert all(len(set(pair)) == 2 for pair in pairs), "each round has one of each"
    assert {pair[0] for pair in pairs} == {"fast", "slow"}, "who begins alternates"
    assert record.base["control"]["comparisons"]
    assert "burn_in_spread" not in record.base["control"], "how evenly this machine runs tells nothing of the board"
    assert comparison.ignore_below == 2000, "two ticks of its clock"


def test_a_board_that_keeps_its_image_is_left_to_the_history(repository):
    with FakeBoard(infer=lambda data: [1.0], model_id="ad01") as fake:
        write(repository, fake, "", flashed=False)
        repository.commit()
        found = compared(repository)
    (record,) = found.run.records
    (comparison,) = record.comparisons
    assert comparison.verdict == "inconclusive", found.out
    assert comparison.reason == (
        "the board is not flashed here, so the base's firmware cannot be measured in turn with this one: compare with "
        "an earlier run or the history (mlbench compare, mlbench history)"
    )
    assert record.outcome == "pass"
    assert found.code == 10


def test_an_emulated_boards_instructions_are_compared_exactly(repository, require):
    require("qemu-system-arm")
    require("pytest_mlbench_qemu")
    folder = repository.project
    (folder / "models").mkdir()
    for path in (DIGITS / "models" / "firmware").glob("digits_int8-mps2-an386.*"):
        shutil.copy(path, folder / "models")
    shutil.copy(DIGITS / "data" / "test.npz", folder / "data.npz")
    text = SUITE.format(files='int8 = "models/digits_int8-{board}.elf"', executed='"int8"')
    text = text.replace('device = ["m4"]', 'device = ["qemu_m4"]').replace(
        'file = "data.npz"', 'file = "data.npz"\ncount = 8\npreprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]'
    )
    (folder / "bench_net.toml").write_text(text, encoding="utf-8")
    repository.commit()
    found = repository.compare("bench_net.toml")
    (record,) = found.run.records
    (comparison,) = record.comparisons
    assert (comparison.metric, comparison.method, comparison.verdict) == ("emulated.time", "exact", "pass"), found.out
    assert comparison.base == pytest.approx(comparison.candidate, abs=2000)
    assert "rounds" not in record.base, "one process of each is enough"
    assert found.code == 0
