"""Emulated boards in whole sessions, and the serial driver on a board that fails to order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mlbench.agent.adapters import firmware_adapter
from pytest_mlbench.agent.board import BoardLost, FlashError
from pytest_mlbench.record import Record
from pytest_mlbench.stores import runfile

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "suites" / "digits"
IMAGES = DIGITS / "models" / "firmware"
M4 = "mps2-an386"
SUITE = """
mlbench = 1

[[model]]
name = "digits_cnn"
task = "image_classification"
files = { firmware = { int8 = "{file}" } }

[dataset.digits]
file = "test.npz"
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]

[[benchmark]]
name = "classify"
model = ["digits_cnn"]
framework = ["firmware"]
precision = ["int8"]
device = {devices}
dataset = "digits"
scenario = { kind = "single_stream", min_samples = {samples}, warmup_samples = 1 }
expect = { accuracy = { top1 = "== 0.9888888888888889" } }
"""


@pytest.fixture(autouse=True)
def qemu(require: Callable[[str], None]) -> None:
    """Skip where boards cannot be emulated."""
    require("qemu-system-arm")
    require("pytest_mlbench_qemu")


# --- sessions ------------------------------------------------------------------------------------------------


@dataclass
class Project:
    """A folder with a suite of its own, its data and the images."""

    folder: Path

    def suite(
        self, devices: list[str], *, file: str = "digits_int8-{board}.elf", samples: int = 3, top: str = ""
    ) -> None:
        text = SUITE.replace("{file}", file).replace("{devices}", json.dumps(devices))
        text = text.replace("{samples}", str(samples))
        (self.folder / "bench_own.toml").write_text(text + top, encoding="utf-8")

    def command(self, *args: str) -> list[str]:
        plain = ["-p", "no:cacheprovider", "-p", "no:benchmark", "-rs", "-v", f"--rootdir={self.folder}"]
        path = [] if any(arg.endswith(".toml") and not arg.startswith("-") for arg in args) else ["bench_own.toml"]
        return [sys.executable, "-m", "pytest", "--mlbench", *path, "--mlbench-output=run.jsonl", *plain, *args]

    def environment(self, **changes: str) -> dict[str, str]:
        own = {"MLBENCH_CACHE": str(self.folder / "cache"), "MLBENCH_STATE": str(self.folder / "state")}
        kept = {key: text for key, text in os.environ.items() if not key.startswith(("MLBENCH_", "PYTEST_"))}
        return kept | own | {"COLUMNS": "300"} | changes

    def run(self, *args: str, **changes: str) -> tuple[str, dict[str, Record]]:
        """Return what the session printed, and its records by device."""
        done = subprocess.run(
            self.command(*args),
            cwd=self.folder,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        return done.stdout + done.stderr, self.records()

    def records(self) -> dict[str, Record]:
        found = runfile.read(self.folder / "run.jsonl")
        return {record.axes["device"]: record for record in found.records}

    def emulators(self) -> list[int]:
        """Return the QEMU processes that run an image of this folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"qemu-system-arm") and str(self.folder).encode() in b" ".join(words):
                found.append(int(path.parent.name))
        return found

    def wait_for_emulators(self, present: bool) -> list[int]:
        for _ in range(600):
            found = self.emulators()
            if bool(found) == present:
                return found
            time.sleep(0.05)
        raise AssertionError(f"QEMU processes: {self.emulators()}, expected {'some' if present else 'none'}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with every image and the digits."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    shutil.copyfile(DIGITS / "data" / "test.npz", tmp_path / "test.npz")
    for path in IMAGES.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return Project(tmp_path)


def metrics(record: Record) -> dict[str, Any]:
    return {metric.name: metric for metric in record.metrics}


def test_the_embedded_suite_runs_on_the_board_and_equals_litert(require, project):
    require("ai_edge_litert")
    suite = str(DIGITS / "bench_digits.toml")
    out, records = project.run(suite, "-k", "qemu_m4", f"--rootdir={DIGITS}")
    assert "classify[digits_cnn-firmware-int8-qemu_m4] PASSED" in out, out
    record = records["qemu_m4"]
    assert record.case == "digits/classify[digits_cnn-firmware-int8-qemu_m4]"
    assert record.reference == "digits/classify[digits_cnn-litert-int8-cpu]"
    checks = {check.name: check for check in record.checks}
    assert {check.outcome for check in checks.values()} == {"pass"}
    assert checks["equivalence.max_abs"].facts["outputs"]["PartitionedCall:0"]["worst"] <= 0.2025
    found = metrics(record)
    assert "of 360" in found["accuracy.top1"].note
    assert found["emulated.time"].value > 1e6
    for name, metric in found.items():
        if name.startswith(("latency.", "throughput")):
            assert metric.value is None
            assert "emulated" in metric.reason
    assert record.target["emulated"] is True
    assert record.target["board"] == M4
    assert record.target["firmware"]["model"] == "digits_cnn"
    assert record.target["recovered"] == []
    assert "cpu" in record.lease["shares"]


def test_three_boards_agree_on_every_answer(project):
    project.suite(["qemu_m4", "qemu_m7", "qemu_m55"])
    out, records = project.run()
    assert [record.outcome for record in records.values()] == ["pass"] * 3, out
    assert {record.target["core"] for record in records.values()} == {"cortex-m4", "cortex-m7", "cortex-m55"}
    assert len({record.hashes["loaded"] for record in records.values()}) == 3
    assert project.emulators() == []


def test_time_is_the_same_in_the_next_session(project):
    project.suite(["qemu_m4"], samples=5)
    first, second = (metrics(project.run()[1]["qemu_m4"])["emulated.time"].value for _ in range(2))
    assert abs(first - second) <= 2000  # two ticks


def test_lab_file_describes_a_board(project):
    lab = f'mlbench = 1\n[device.slow]\ntype = "qemu"\nmachine = "{M4}"\nicount_shift = 6\n'
    (project.folder / "lab.toml").write_text(lab, encoding="utf-8")
    project.suite(["slow", "qemu_m4"])
    out, records = project.run("--mlbench-lab=lab.toml")
    times = {device: metrics(record)["emulated.time"].value for device, record in records.items()}
    assert times["slow"] == pytest.approx(2 * times["qemu_m4"], abs=4000), out


def test_package_that_is_not_installed_is_a_skip(project):
    project.suite(["acme_m0"], top='[device.acme_m0]\ninstall = "pip install acme-boards"\n')
    out, _ = project.run()
    reason = "the device acme_m0 comes with a package that is not installed: pip install acme-boards"
    assert f"SKIPPED [1] {reason}" in out.replace("bench_own.toml: ", "") or reason in out
    assert "1 skipped" in out


def test_missing_emulator_is_a_skip(project):
    project.suite(["qemu_m4"])
    (project.folder / "bin").mkdir()
    out, records = project.run(PATH=str(project.folder / "bin"))
    assert records["qemu_m4"].outcome == "skip", out
    wanted = "device qemu_m4: qemu-system-arm is not installed: apt-get install qemu-system-arm"
    assert records["qemu_m4"].reason == wanted


def test_emulator_that_refuses_is_shown_with_what_it_printed(project):
    program = project.folder / "qemu"
    program.write_text("#!/bin/sh\necho qemu: no such machine in this build >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    (project.folder / "lab.toml").write_text(
        f'mlbench = 1\n[device.old]\ntype = "qemu"\nprogram = "{program}"\n', encoding="utf-8"
    )
    project.suite(["old"])
    out, records = project.run("--mlbench-lab=lab.toml")
    record = records["old"]
    assert (record.outcome, record.stage) == ("error", "load"), out
    assert "board old: QEMU (process " in record.reason
    assert "ended with exit status 1: qemu: no such machine in this build" in record.reason
    assert "Traceback" not in out


def test_image_of_the_board_is_missing(project):
    project.suite(["qemu_m4"], file="other-{board}.elf")
    out, records = project.run()
    assert records["qemu_m4"].outcome == "error", out
    assert f"other-{M4}.elf does not exist" in records["qemu_m4"].reason


def test_image_that_is_no_elf_file(project):
    (project.folder / "own.elf").write_bytes(b":10010000214601360121470136007EFE09D2190140\n")
    project.suite(["qemu_m4"], file="own.elf")
    out, records = project.run()
    assert records["qemu_m4"].outcome == "error", out
    assert "own.elf is no ELF file for 32-bit Arm" in records["qemu_m4"].reason
    assert "Traceback" not in out


def test_image_of_another_model_is_no_pass(project):
    told = json.loads((project.folder / f"digits_int8-{M4}.json").read_text())
    (project.folder / f"digits_int8-{M4}.json").write_text(json.dumps({**told, "model": "ic01"}), encoding="utf-8")
    project.suite(["qemu_m4"])
    _, records = project.run()
    assert records["qemu_m4"].outcome == "error"
    assert "the model 'digits_cnn'" in records["qemu_m4"].reason
    assert "expected 'ic01'" in records["qemu_m4"].reason


@pytest.fixture
def running(project: Project) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return what starts a long session; it is killed at the end, by its process number."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        project.suite(["qemu_m4"], samples=400)
        process = subprocess.Popen(
            project.command(),
            cwd=project.folder,
            env=project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_emulator_killed_in_a_session_is_started_anew(project, running):
    process = running()
    (pid,) = project.wait_for_emulators(present=True)
    time.sleep(1.0)
    os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    record = project.records()["qemu_m4"]
    assert record.outcome == "pass", out
    steps = record.target["recovered"]
    assert [step["step"] for step in steps if step["helped"]] == ["power_cycle"]
    assert f"QEMU (process {pid}) was killed by SIGKILL" in steps[0]["because"]
    assert all(step["duration_ns"] > 0 for step in steps)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a process with its parent")
def test_emulator_ends_with_a_killed_session_and_frees_the_board(project, running):
    process = running()
    project.wait_for_emulators(present=True)
    process.kill()
    project.wait_for_emulators(present=False)
    project.suite(["qemu_m4"], samples=1)
    _, records = project.run("--mlbench-lease-timeout=20")
    assert records["qemu_m4"].outcome == "pass"


# --- the driver on a board that fails --------------------------------------------------------------------------

Session = firmware_adapter.FirmwareSession


@pytest.fixture
def open_session() -> Iterator[Callable[..., Session]]:
    """Return what opens a session of the framework `firmware` on an emulated board, in this process."""
    opened: list[Session] = []

    def start(**more: Any) -> Session:
        connection = {
            "transport": "pytest_mlbench_qemu.qemu_transport",
            "device": "bench",
            "program": "qemu-system-arm",
            "machine": M4,
            "icount_shift": 5,
            "emulated": True,
            "boot_timeout_s": 1.0,
            "reply_timeout_s": 1.0,
            "infer_timeout_s": 0.3,
        }
        sidecar = (IMAGES / f"digits_int8-{M4}.json").read_text()
        options = {"connection": {**connection, **more}, "sidecar": sidecar}
        session = firmware_adapter.load(str(IMAGES / f"digits_int8-{M4}.elf"), options)
        opened.append(session)
        session.bind({"image": np.arange(64, dtype=np.int8).reshape(1, 1, 8, 8)})
        return session

    yield start
    for session in opened:
        session.close()


def order(session: Session, command: str) -> None:
    """Tell the firmware what to do in a later inference."""
    assert session._line is not None
    session._line.command(command)


def steps(session: Session) -> list[tuple[str, bool]]:
    return [(step["step"], step["helped"]) for step in session.happened]


def outputs(session: Session) -> list[int]:
    session.invoke()
    return [int(value) for value in session.fetch()["logits"].reshape(-1)]


def test_reset_in_an_inference_is_noticed_and_done_again(open_session):
    session = open_session()
    wanted = outputs(session)
    lap_ns = session.time_calls(5)
    order(session, "reset 3")
    assert session.time_calls(5) == pytest.approx(lap_ns, abs=2000)  # not a part of the five
    assert outputs(session) == wanted  # the input was loaded again
    assert steps(session) == [("resync", True)]
    assert "m-infer-start-5" in session.transcript.text()


@pytest.mark.parametrize("fault", ["hang", "fault"])
def test_dead_board_is_reset(open_session, fault):
    session = open_session()
    wanted = outputs(session)
    order(session, f"{fault} 2")
    assert session.time_calls(4) > 0
    assert outputs(session) == wanted
    assert steps(session) == [("resync", False), ("hard_reset", True)]
    if fault == "fault":
        assert "e-[Hard fault at 0x" in session.transcript.text()


def test_killed_in_an_inference(open_session):
    session = open_session(infer_timeout_s=10.0)
    wanted = outputs(session)
    pid = session._transport.pid
    begun = session.transcript.text().count("m-infer-start")

    def kill() -> None:
        while session.transcript.text().count("m-infer-start") == begun:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    lap_ns = session.time_calls(100)
    killer.join()
    assert lap_ns == pytest.approx(100 * session.time_calls(1), rel=1e-3)
    assert outputs(session) == wanted
    assert ("power_cycle", True) in steps(session)
    assert f"QEMU (process {pid}) was killed by SIGKILL" in session.happened[0]["because"]
    assert session._transport.pid != pid


def test_board_that_fails_again_and_again_is_given_up(open_session):
    session = open_session()
    with pytest.raises(BoardLost, match="the board failed again after 5 recoveries in one case") as caught:
        for _ in range(8):
            order(session, "reset 1")
            session.invoke()
    assert "reset 1%" in caught.value.transcript
    assert len(caught.value.happened) == 5


def test_wrong_machine_is_told_by_the_emulator(open_session):
    with pytest.raises(FlashError, match="unsupported machine type") as caught:
        open_session(machine="mps9")
    assert "flash the image" in caught.value.transcript
