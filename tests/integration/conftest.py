"""A bed for faults: runs of `pytest --mlbench` as processes of their own, on a framework that fails to order.

After every run the bed checks what must hold whatever went wrong: no process of the run is left, no temporary
file of an agent is left, and the run file can be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import jsonschema
import numpy as np
import pytest

from pytest_mlbench.record import Comparison, Record
from pytest_mlbench.schemas import load_schema
from pytest_mlbench.stores import runfile

VENDOR = Path(__file__).parents[1] / "vendor"
WEIGHTS = [[1.0, -1.0], [0.5, 0.25], [2.0, 0.0]]
SCENARIO = '{ kind = "single_stream", min_duration_s = 0.05, min_samples = 8, warmup_s = 0.0, warmup_samples = 4 }'
# Of the environment pytest runs in, what must not reach a pytest under test.
_NOT_PASSED_ON = ("PYTEST_", "MLBENCH_", "COV_", "CI", "GITHUB_", "GIT_")
COMPARED_S = 300.0  # for twenty rounds or so a case, on a busy machine


@dataclass
class Result:
    """How a run ended."""

    code: int
    out: str
    run: runfile.Run | None

    @property
    def records(self) -> dict[str, Record]:
        """Return the records by the framework's word in the case id."""
        assert self.run is not None, self.out
        return {record.axes["framework"]: record for record in self.run.records}

    @property
    def comparisons(self) -> dict[str, dict[str, Comparison]]:
        """Return the comparisons with a base by the framework's word in the case id, then by metric."""
        return {word: {one.metric: one for one in record.comparisons} for word, record in self.records.items()}

    @property
    def text(self) -> str:
        """Return the output with each run of white space as one space, so that line breaks do not matter."""
        return re.sub(r"\s+", " ", self.out)


class Running:
    """A run that goes on; ended by the bed when the test does not."""

    def __init__(self, bed: Bed, process: subprocess.Popen[bytes], output: Path, run_file: Path) -> None:
        self._bed, self._process, self._output, self._run_file = bed, process, output, run_file
        self.pid = process.pid

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal, to the process or as Ctrl-C does to its whole group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, timeout_s: float = 60.0) -> Result:
        """Wait for the end and check what it left."""
        code = self._process.wait(timeout_s)
        self._bed.check_nothing_left()
        run = None
        if self._run_file.is_file() or runfile.parts_dir(self._run_file).is_dir():
            run = runfile.read(self._run_file)
        return Result(code, self._output.read_text(encoding="utf-8", errors="replace"), run)

    def stop(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait(10)


@dataclass
class Bed:
    """One project folder with a suite, a state, a cache and a temporary folder of its own."""

    root: Path
    tag: str = field(default_factory=lambda: uuid.uuid4().hex)
    running: list[Running] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("project/suites", "state", "cache", "tmp"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.project / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        self.log = self.root / "faulty.log"
        self.held = self.root / "held"  # while it is there, a case with the fault "hold" does not go on
        self.run_file = self.project / "run.jsonl"
        self.env |= {
            "MLBENCH_TEST_TAG": self.tag,
            "MLBENCH_STATE": str(self.root / "state"),
            "MLBENCH_CACHE": str(self.root / "cache"),
            "MLBENCH_FAULTY_LOG": str(self.log),
            "MLBENCH_FAULTY_HOLD": str(self.held),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONPATH": str(VENDOR),
            "COLUMNS": "200",
        }

    @property
    def project(self) -> Path:
        return self.root / "project"

    # --- suites ----------------------------------------------------------------------------------------

    def suite(
        self,
        *frameworks: str,
        name: str = "faults",
        model: str = "model.json",
        dataset: str = "preprocess = []",
        benchmark: str = "",
        tables: str = "",
        task: str = "",
    ) -> Path:
        """Write a suite of a small linear model and data that fits it; frameworks are TOML values.

        `dataset`, `benchmark` and `tables` are lines added to those tables and at the end.
        """
        folder = self.project / "suites" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.json").write_text(json.dumps({"weights": WEIGHTS}), encoding="utf-8")
        x = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
        np.savez(folder / "data.npz", x=x, y=(x @ np.array(WEIGHTS, dtype=np.float32)).argmax(axis=1))
        path = folder / f"bench_{name}.toml"
        path.write_text(
            f"""mlbench = 1
[[model]]
name = "net"
{f'task = "{task}"' if task else ""}
files = {{ faulty = {{ fp32 = "{model}" }} }}
[dataset.data]
file = "data.npz"
{dataset}
[[benchmark]]
name = "run"
model = ["net"]
framework = [{", ".join(frameworks or ('"faulty"',))}]
precision = ["fp32"]
dataset = "data"
scenario = {SCENARIO}
{benchmark}
{tables}
""",
            encoding="utf-8",
        )
        return path

    # --- runs ------------------------------------------------------------------------------------------

    def start(self, *args: str, output: Path | None = None, **env: str) -> Running:
        """Start `pytest --mlbench` in a process group of its own; an empty string unsets a variable."""
        output = output or self.run_file
        command = [sys.executable, "-m", "pytest", "--mlbench", "--mlbench-output", str(output)]
        command += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark", *args]
        passed = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_PASSED_ON)}
        passed |= self.env | env
        printed = self.root / f"printed-{len(self.running)}.txt"
        with printed.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=self.project,
                env={key: value for key, value in passed.items() if value},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(Running(self, process, printed, output))
        return self.running[-1]

    def run(self, *args: str, output: Path | None = None, **env: str) -> Result:
        """Run `pytest --mlbench` to its end."""
        return self.start(*args, output=output, **env).wait()

    def count(self, event: str) -> int:
        """Return how often the framework came to a stage."""
        return sum(entry["event"] == event for entry in self.events())

    def sessions(self) -> list[tuple[int, int]]:
        """Return when each model was loaded and closed, on the machine's one clock, in order of loading."""
        begun = {e["pid"]: e["ns"] for e in self.events() if e["event"] == "load"}
        closed = {e["pid"]: e["ns"] for e in self.events() if e["event"] == "close"}
        return sorted((begin, closed[pid]) for pid, begin in begun.items())

    def events(self) -> list[dict[str, Any]]:
        """Return what the framework wrote down of its life so far."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + timeout_s
        while not condition():
            printed = [running._output.read_text(errors="replace") for running in self.running]
            assert time.monotonic() < end, f"{what}: not within {timeout_s} s\n" + "\n".join(printed)
            time.sleep(0.01)

    def wait_for_event(self, event: str, count: int = 1) -> None:
        """Wait until the framework came to a stage for the `count`-th time."""
        self.wait_for(lambda: self.count(event) >= count, f"{event} number {count}")

    # --- what must hold after every run ----------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Return the processes of this bed that are alive, with their command lines."""
        mark = f"MLBENCH_TEST_TAG={self.tag}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):  # gone, or not ours
                    if mark in (folder / "environ").read_bytes().split(b"\0"):
                        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(folder.name)] = command.decode(errors="replace")[:200]
        return found

    def check_nothing_left(self, within_s: float = 1.0) -> None:
        """Assert that no process and no file of an agent is left; other runs that go on are none of it."""
        others = any(running._process.poll() is None for running in self.running)
        if others:
            return
        end = time.monotonic() + within_s
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.01)
        assert not left, f"still alive {within_s} s after the run ended: {left}"
        files = [path.name for path in (self.root / "tmp").iterdir() if path.name.startswith("mlbench-")]
        assert not files, f"left in the temporary folder: {files}"


@dataclass
class Repository(Bed):
    """A bed whose project is a git repository: what is committed is the base, the files as they are the candidate."""

    # A comparison as quick as can be, whose verdict is the same on a busy machine.
    QUICK: ClassVar[tuple[str, ...]] = (
        *("-p", "mlbench_untold", "--mlbench-noise-ceiling=99 %"),
        *("--mlbench-base-seconds=1", "--mlbench-max-regression=30 %", "--mlbench-seed=1"),
    )
    # Where rounds do not matter, none are taken: no machine is as even as this.
    NO_ROUNDS: ClassVar[str] = "--mlbench-noise-ceiling=0.001 %"

    def __post_init__(self) -> None:
        super().__post_init__()
        who = {f"GIT_{role}_{part}": "tester" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        none = dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull)
        self.env |= {**who, **none, "GIT_CEILING_DIRECTORIES": str(self.root)}
        (self.project / ".gitignore").write_text("__pycache__/\nrun*.jsonl*\n", encoding="utf-8")
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run git in the project and return what it printed."""
        return self.git_in(self.project, *arguments)

    def git_in(self, folder: Path, *arguments: str) -> str:
        """Run git in a folder and return what it printed."""
        passed = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, env=passed | self.env, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def commit(self) -> str:
        """Commit every file of the project; returns the SHA."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a version")
        return self.git("rev-parse", "HEAD")

    def environment(self) -> Path:
        """Make a Python environment that has numpy and nothing else; returns its site-packages folder."""
        folder = self.root / "another environment"
        venv.create(folder, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        for package in Path(np.__file__).parents[1].glob("numpy*"):
            (site / package.name).symlink_to(package)
        return site

    @staticmethod
    def faulty(word: str, **options: str | int) -> str:
        """Return the framework as a TOML value: its word in the case id, and its options."""
        told = ", ".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
        return f'{{ name = "faulty", id = "{word}", options = {{ {told} }} }}'

    def compare(self, *args: str, output: str = "run.jsonl", **env: str) -> Result:
        """Compare the files as they are with the last commit; `output` is the run file in the project's folder.

        What is written of it holds the published schema.
        """
        file = self.project / output
        result = self.start("--mlbench-base=HEAD", *self.QUICK, *args, output=file, **env).wait(COMPARED_S)
        schema = load_schema()
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            values = json.loads(line)
            own = {**schema["$defs"][values["kind"]], "$defs": schema["$defs"]}
            problems = list(jsonschema.Draft202012Validator(own).iter_errors(values))
            assert not problems, problems[0]
        return result


AnyBed = TypeVar("AnyBed", bound=Bed)


@pytest.fixture(scope="module")
def make_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bed]]:
    """Return a function that makes a bed; whatever still runs in it at the end is ended."""
    yield from _maker(tmp_path_factory, Bed)


@pytest.fixture
def bed(make_bed: Callable[[], Bed]) -> Iterator[Bed]:
    """Return a bed of the test's own."""
    made = make_bed()
    yield made
    for running in made.running:
        running.stop()


@pytest.fixture(scope="module")
def make_repository(
    tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], None]
) -> Iterator[Callable[[], Repository]]:
    """Return a function that makes a bed whose project is a git repository."""
    require("git")
    yield from _maker(tmp_path_factory, Repository)


@pytest.fixture
def repository(make_repository: Callable[[], Repository]) -> Iterator[Repository]:
    """Return a repository of the test's own."""
    made = make_repository()
    yield made
    for running in made.running:
        running.stop()


def _maker(folders: pytest.TempPathFactory, kind: type[AnyBed]) -> Iterator[Callable[[], AnyBed]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc and sends POSIX signals")
    beds: list[AnyBed] = []

    def make() -> AnyBed:
        beds.append(kind(folders.mktemp("bed")))
        return beds[-1]

    yield make
    for bed in beds:
        for running in bed.running:
            running.stop()
