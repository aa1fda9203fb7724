"""Whole sessions against a board on a pseudo-terminal, which a lab file names: what is measured, and every fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from pytest_mlbench.schemas import load_schema
from pytest_mlbench.stores import runfile

pytest.importorskip("serial")
pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="the fake board is a pseudo-terminal")

from pytest_mlbench.testing.fake_board import FakeBoard, Fault  # noqa: E402

VENDOR = Path(__file__).parents[1] / "vendor"
SIDECAR = {
    "model": "net01",
    "inputs": [{"name": "x", "dtype": "int8", "shape": [1, 4], "scale": 0.5, "zero_point": 0}],
    "outputs": [{"name": "scores", "dtype": "int8", "shape": [1, 3], "scale": 0.25, "zero_point": -2}],
    "nodes": [{"name": "dense", "op": "FullyConnected", "precision": "int8"}],
}
SUITE = """
mlbench = 1
[[model]]
name = "net"
task = "classification"
files = {{ firmware = {{ {files} }}, faulty = {{ int8 = "models/net.json" }} }}
[dataset.d]
file = "data.npz"
[[benchmark]]
name = "run"
model = ["net"]
framework = [{framework}]
precision = ["int8"]
device = [{device}]
dataset = "d"
timeout_s = 30
scenario = {{ kind = "single_stream", min_duration_s = 0.05, min_samples = 8, warmup_s = 0.0, warmup_samples = 2 }}
{more}
"""
SAMPLES = np.array([[1.0, 0.0, 0.5, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, -1.0]], np.float32)


def net(data: bytes) -> list[float]:
    """Compute what the board does: the first three inputs, in steps of a quarter."""
    return [float(value) * 0.5 for value in np.frombuffer(data, np.int8)[:3]]


def board(**settings: Any) -> FakeBoard:
    return FakeBoard(**{"infer": net, "model_id": "net01", "vendor": "acme", **settings})


@dataclass
class Site:
    """A project with a suite, and a lab with one board."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    more: str = ""
    framework: str = '"firmware"'
    device: str = '"acme_m4"'
    files: str = 'int8 = "models/net.elf"'
    switch: dict[str, Any] = field(default_factory=dict)
    case: str = "net/run[net-firmware-int8-acme_m4]"

    def write(self, port: str) -> None:
        (self.root / "models").mkdir(exist_ok=True)
        (self.root / "models" / "net.elf").write_bytes(b"\x7fELF the image")
        (self.root / "models" / "net.elf.json").write_text(json.dumps(SIDECAR), encoding="utf-8")
        np.savez(self.root / "data.npz", x=SAMPLES, y=np.array([0, 1, 2]))
        text = SUITE.format(files=self.files, framework=self.framework, device=self.device, more=self.more)
        (self.root / "bench_net.toml").write_text(text, encoding="utf-8")
        (self.root / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        settings = {"port": port, "flash": ["true", "{image}", "{port}"], **TIMES, **self.settings}
        lines = ["mlbench = 1", "[device.acme_m4]", 'type = "serial"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items() if value is not None]
        lines += ["[device.acme_m4.switch]"] if self.switch else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in self.switch.items()]
        (self.root / "lab.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run(self, port: str, *args: str) -> Finished:
        self.write(port)
        out = self.root / "run.jsonl"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--mlbench", "--mlbench-lab=lab.toml"]
        env = {**os.environ, "MLBENCH_STATE": str(self.root / "state"), "MLBENCH_CACHE": str(self.root / "cache")}
        env |= {"COLUMNS": "200", "PYTHONPATH": str(VENDOR)}
        done = subprocess.run(
            [*command, f"--mlbench-output={out}", *args, "bench_net.toml"],
            cwd=self.root, env=env, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert out.is_file(), done.stdout + done.stderr
        schema = load_schema()
        for line in out.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            own = {**schema["$defs"][values["kind"]], "$defs": schema["$defs"]}
            assert not list(jsonschema.Draft202012Validator(own).iter_errors(values)), values
        return Finished(done.returncode, done.stdout + done.stderr, runfile.read(out))


# Short, so that faults are told at once; the ladder has the same number of steps.
TIMES = {"boot_timeout_s": 1.0, "reply_timeout_s": 0.3, "infer_timeout_s": 1.0}


@dataclass
class Finished:
    code: int
    out: str
    run: runfile.Run

    @property
    def record(self):
        (record,) = self.run.records
        return record

    def metric(self, name: str):
        return next(metric for metric in self.record.metrics if metric.name == name)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


# --- what is measured ---------------------------------------------------------------------------------------


def test_a_session_measures_a_board_by_its_own_clock(site):
    with board() as fake:
        done = site.run(fake.port)
    assert done.code == 0, done.out
    record = done.record
    assert record.outcome == "pass"
    assert record.target["device"] == "acme_m4"
    assert record.target["clock"] == "m-lap of the board"
    assert record.target["clock_resolution_ns"] == 1000
    assert record.target["firmware"]["vendor"] == "acme"
    assert record.target["recovered"] == []
    assert "processor" not in record.target, "the host is not the target"
    assert done.metric("accuracy.top1").value == 1.0
    p50 = done.metric("latency.p50").value
    assert 200_000 <= p50 < 20_000_000  # a call takes 200 us by the board; host and line are no part of it
    assert record.samples["calls"] >= 2, "a tick must be less than a thousandth of a sample"
    assert record.stages_ns["flash"] > 0
    assert record.stages_ns["connect"] > 0
    assert done.metric("memory.peak").value is None
    assert "board" in done.metric("memory.peak").reason
    assert any(command.startswith("infer ") and command.endswith(" 0") for command in fake.commands)


def test_the_image_is_what_is_flashed_and_what_the_record_knows(site):
    script = site.root / "flash.py"
    script.write_text("import sys\nopen('flashed.txt', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n", encoding="utf-8")
    site.settings["flash"] = [sys.executable, str(script), "--to={port}", "{image}"]
    with board() as fake:
        done = site.run(fake.port)
    assert done.code == 0, done.out
    flashed = (site.root / "flashed.txt").read_text(encoding="utf-8").splitlines()
    assert flashed == [f"--to={fake.port} {site.root / 'models' / 'net.elf'}"]
    assert done.metric("model.size").value == len(b"\x7fELF the image")
    assert done.metric("stage.flash").value > 0


def test_a_board_that_is_not_flashed_runs_what_it_has(site):
    site.files = ""
    site.settings["flash"] = None
    with board(model_id="ad01", infer=lambda data: [1.5]) as fake:
        site.write(fake.port)
        np.savez(site.root / "data.npz", x=np.zeros((3, 640), np.float32))
        # As the lab's user would: the suite has no image, the board says which of MLPerf Tiny's models it holds.
        site.write = lambda port: None  # type: ignore[method-assign]
        text = (site.root / "bench_net.toml").read_text(encoding="utf-8")
        more = 'executed_precision = "unknown"\n'
        (site.root / "bench_net.toml").write_text(text + more, encoding="utf-8")
        done = site.run(fake.port)
    assert done.code == 0, done.out
    assert done.metric("model.size").value is None
    assert done.metric("model.size").reason == "no file was loaded: the board has the model already"
    assert done.record.hashes["model"] == ""
    assert "flash" not in done.record.stages_ns
    assert done.record.target["firmware"]["model"] == "ad01"


def test_in_energy_mode_there_is_no_time_until_a_meter_gives_it(site):
    site.settings["mode"] = "energy"
    with board(mode="energy") as fake:
        done = site.run(fake.port)
    assert done.code == 0, done.out
    assert done.metric("latency.p50").value is None
    assert done.metric("latency.p50").reason == (
        "in energy mode a board gives its timestamps as edges on a pin; only a power meter sees them"
    )
    assert done.metric("accuracy.top1").value == 1.0
    assert "timestamp" not in fake.commands, "an edge more would confuse a meter"


def test_the_interface_board_stands_between(site):
    site.settings["io_manager"] = True
    with board(io_manager=True) as fake:
        done = site.run(fake.port)
    assert done.code == 0, done.out
    assert "dut infer 1 0" in fake.commands


def test_a_device_that_takes_only_firmware_skips_other_frameworks_and_others_skip_firmware(site):
    site.framework, site.device = '"firmware", "faulty"', '"acme_m4", "cpu"'
    site.write("/dev/null")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--mlbench",
        "--mlbench-lab=lab.toml",
        "--mlbench-list",
        "bench_net.toml",
    ]
    env = {**os.environ, "PYTHONPATH": str(VENDOR), "COLUMNS": "200"}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--mlbench-format=json"],
        cwd=site.root, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    rows = json.loads(done.stdout.splitlines()[-1])["cases"]
    skips = {row["case"].partition("[")[2]: row["skip"] for row in rows}
    assert skips == {
        "net-firmware-int8-acme_m4]": None,
        "net-firmware-int8-cpu]": "firmware is what a board has built in, and cpu is none",
        "net-faulty-int8-acme_m4]": "acme_m4 takes firmware only",
        "net-faulty-int8-cpu]": None,
    }


def test_a_reference_is_computed_on_the_host(site):
    site.framework = '"firmware", "faulty"'
    site.more = 'reference = { framework = "faulty" }\nexpect = { equivalence = { int8 = { bit_exact = true } } }'
    (site.root / "models").mkdir()
    identity = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0]]
    (site.root / "models" / "net.json").write_text(json.dumps({"weights": identity}), encoding="utf-8")
    with board() as fake:
        done = site.run(fake.port)
    assert done.code == 0, done.out
    record = next(one for one in done.run.records if one.axes["framework"] == "firmware")
    assert record.reference == "net/run[net-faulty-int8-cpu]"
    assert "pass" in {check.outcome for check in record.checks if check.name.startswith("equivalence")}


# --- recovery -----------------------------------------------------------------------------------------------

ONCE = {
    "garbage": ("infer", "garbage in answer to `infer", "resync"),
    "half": ("infer", "expected ", "resync"),
    "previous": ("infer", "it is ", "resync"),
    "deaf": ("infer", "no answer to `infer", "resync"),
    "late": ("infer", "no answer to `infer", "resync"),
    "lost_byte": ("infer", "it is the answer to an earlier command, or lines were lost", "resync"),
    "restart": ("infer", "the board restarted while it worked on `infer", "resync"),
    "error": ("db ", "the board refused `db", "resync"),
    "counter": ("infer", "its counter was reset, or counts in another unit than it says", "resync"),
    "hang": ("infer", "no answer to `infer", "power_cycle"),
}


@pytest.mark.parametrize("fault", ONCE)
def test_a_fault_is_recovered_from_and_the_record_tells_how(site, fault):
    command, because, helped = ONCE[fault]
    late = {"late_s": 1.5} if fault == "late" else {}
    with board(faults=[Fault(fault, command, after=3)], **late) as fake:
        site.switch = {"kind": "command", "cycle": [sys.executable, "-c", WRITE, fake.control, "power_cycle"]}
        done = site.run(fake.port)
    assert done.code == 0, done.out
    recovered = done.record.target["recovered"]
    assert because in recovered[0]["because"]
    assert recovered[-1]["step"] == helped
    assert [step["helped"] for step in recovered] == [False] * (len(recovered) - 1) + [True]
    assert all(step["duration_ns"] > 0 for step in recovered)
    assert done.metric("accuracy.top1").value == 1.0, "the input was loaded again"


WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"


def test_a_board_that_nothing_brings_back_is_given_up_for_the_session(site):
    site.device = '"acme_m4"'
    with board(faults=[Fault("hang", "infer", after=2), Fault("hang", "name", after=1, times=1000)]) as fake:
        site.write(fake.port)
        suite = site.root / "bench_net.toml"
        text = suite.read_text(encoding="utf-8")
        again = text[text.index("[[benchmark]]") :].replace('name = "run"', 'name = "again"')
        site.write = lambda port: None  # type: ignore[method-assign]
        suite.write_text(text + again, encoding="utf-8")
        done = site.run(fake.port)
        count = len(fake.commands)
    assert done.code == 12, done.out
    first, second = done.run.records
    assert first.outcome == second.outcome == "error"
    assert "Nothing brought the board back. resync: " in first.reason
    assert [step["step"] for step in first.target["recovered"]] == ["resync", "reopen"]
    assert second.stage == "quarantine"
    assert second.reason.startswith("quarantine: device acme_m4 was given up in net/run[net-firmware-int8-acme_m4]: ")
    assert "It is not used again in this session; look at the board (power, cable, image)" in second.reason
    assert "Traffic on its line:" in done.out
    assert "> infer " in done.out
    assert count == len(fake.commands), "nobody spoke to it any more"


def test_an_unplugged_board_is_an_error_of_its_case(site):
    with board(faults=[Fault("close", "infer", after=4)]) as fake:
        done = site.run(fake.port)
    assert done.code == 12, done.out
    assert f"the line {fake.port} is gone" in done.record.reason
    assert "Nothing brought the board back" in done.record.reason
    assert f"cannot open {fake.port}" in done.record.reason


# --- a board that is not the one ----------------------------------------------------------------------------


def test_a_port_that_is_not_there(site):
    done = site.run("/dev/ttyACM99")
    assert done.code == 12, done.out
    assert done.record.stage == "load"
    assert "cannot open /dev/ttyACM99: " in done.record.reason
    assert "is the board plugged in, and the port free?" in done.record.reason


@pytest.mark.parametrize(
    ("fake", "settings", "message"),
    [
        ({}, {"name": "other"}, "the board answers `name` with 'dut-[acme]', expected 'other': another board is on"),
        ({"model_id": "kws01"}, {}, "says that it holds the model 'kws01' after flashing, expected 'net01'"),
        ({"baud_garbage": True}, {"baud": 9600}, "look at the baud rate (9600), and whether an image runs"),
        ({"mode": "energy"}, {}, "the image is built for energy mode; build it for performance mode, or set mode"),
        ({"infer": lambda data: [0.1]}, {}, "the board gave 1 results, expected 3 (scores [1, 3])"),
        ({"infer": lambda data: [0.1, 0.2, 0.3]}, {}, "are no multiples of the scale 0.25 of output 'scores'"),
        ({}, {"flash": ["false", "{image}"]}, "` failed with exit status 1; it printed nothing"),
        ({}, {"flash": ["no-such-tool", "{image}"]}, "no-such-tool is not there: install it, or correct the device's"),
        ({}, {"flash": ["tail", "-f", "{image}"], "flash_timeout_s": 0.5}, "took longer than flash_timeout_s = 0.5 s"),
        ({}, {"flash": None}, "the device has no way to flash an image: give it `flash`"),
    ],
)
def test_a_wrong_board_or_image_is_an_error_that_says_so(site, fake, settings, message):
    site.settings |= settings
    with board(**fake) as made:
        done = site.run(made.port)
    assert done.code == 12, done.out
    assert done.record.outcome == "error"
    assert message in done.record.reason
    assert "Traceback" not in done.out
