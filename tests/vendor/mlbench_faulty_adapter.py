"""The target half: computes x @ w for a model that is a JSON file, and fails as its options say.

`fault` and `stage` choose what goes wrong and when. With MLBENCH_FAULTY_LOG set, each model's life is written
there, one JSON object a line: a test can see what ran, when (the clock is one for all processes of a machine)
and that a case has come to be measured.

`spin_us` is the time of a call, kept to a microsecond. Two processes that are alike can be made to differ, as a
machine's would: MLBENCH_FAULTY_SLOW_IN names a folder whose models, or whose Python, make calls take twice as long,
and MLBENCH_FAULTY_SLOW_STARTS is a text such as "0110", repeated, with 1 for each process that is to be slow.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mlbench_agent.api import Node, Placement, TensorSpec

NAME = "faulty"

_CALLS_BEFORE_FAULT = 3  # in the stages that make many calls, so that it comes in the middle
_STAGE_OF_VERB = {
    "first": "first",
    "warm_up": "warm-up",
    "block": "measure",
    "run_outputs": "accuracy",
    "placement": "placement",
}


def versions() -> dict[str, str]:
    return {"faulty": "1.0"}


def prepare(path: str, out_dir: str, options: dict[str, Any]) -> str:
    log("prepare", "")
    if options["stage"] == "prepare":
        happen(options["fault"])
    out = Path(out_dir) / "compiled.json"
    out.write_text(Path(path).read_text(encoding="utf-8"), encoding="utf-8")
    return str(out)


def load(path: str, options: dict[str, Any]) -> FaultySession:
    earlier = loads()
    if earlier.count(path) < options.get("spare", 0):
        options = {**options, "fault": "none"}
    if options["stage"] == "load":
        happen(options["fault"])
    factor = 2 if is_slow(path, len(earlier)) else 1
    model = json.loads(Path(path).read_text(encoding="utf-8"))
    session = FaultySession(model, {**options, "spin_us": factor * options.get("spin_us", 0)})
    log("load", path)
    return session


def is_slow(path: str, number: int) -> bool:
    """Tell whether the process that comes after `number` others is one that is to be slow."""
    folder, starts = (os.environ.get(f"MLBENCH_FAULTY_SLOW_{name}", "") for name in ("IN", "STARTS"))
    if folder and any(Path(one).is_relative_to(folder) for one in (path, sys.prefix)):
        return True
    return bool(starts) and starts[number % len(starts)] == "1"


def loads() -> list[str]:
    """Return the paths of the models loaded so far, by any process."""
    log = Path(os.environ.get("MLBENCH_FAULTY_LOG", os.devnull))
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return [entry["what"] for entry in entries if entry["event"] == "load"]


def log(event: str, what: str) -> None:
    path = os.environ.get("MLBENCH_FAULTY_LOG")
    if path:
        line = json.dumps({"event": event, "what": what, "pid": os.getpid(), "ns": time.perf_counter_ns()})
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def fail() -> None:
    raise RuntimeError("injected fault")


def miss_a_module() -> None:
    raise ModuleNotFoundError("No module named 'mlbench_faulty_engine'", name="mlbench_faulty_engine")


def hang_python() -> None:
    while True:
        time.sleep(0.05)


def hang_gil() -> None:
    while True:
        ctypes.PyDLL(None).pause()  # PyDLL keeps the interpreter's lock during the call


def close_pipes() -> None:
    """Close the connection to the host (execnet's copies of stdin and stdout) and live on."""
    os.closerange(3, 256)
    hang_python()


def spin(us: int) -> None:
    until = time.perf_counter_ns() + 1000 * us
    while time.perf_counter_ns() < until:
        pass


def hold() -> None:
    """Wait for as long as the file named by MLBENCH_FAULTY_HOLD is there."""
    log("hold", "")
    while Path(os.environ["MLBENCH_FAULTY_HOLD"]).exists():
        time.sleep(0.005)


FAULTS: dict[str, Callable[[], object]] = {
    "raise": fail,
    "no_module": miss_a_module,
    "sys_exit": lambda: sys.exit("the framework gave up"),
    "hang_python": hang_python,
    "hang_gil": hang_gil,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),  # every thread stops, the watchdog's too
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "close_pipes": close_pipes,
    "hold": hold,
}


def happen(fault: str) -> None:
    """Let the fault happen now, if it is one that happens."""
    if fault in FAULTS:
        FAULTS[fault]()


def stage() -> str:
    """Return the stage that calls, from the agent's verb on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in _STAGE_OF_VERB:
            return _STAGE_OF_VERB[frame.f_code.co_name]
        frame = frame.f_back
    return ""


class FaultySession:
    def __init__(self, model: dict[str, Any], options: dict[str, Any]) -> None:
        self._weights = np.asarray(model["weights"], dtype=np.float32)
        self._options = options
        self._calls: dict[str, int] = {}
        self._x = np.zeros((1, self._weights.shape[0]), dtype=np.float32)
        self._y = self._x @ self._weights
        self.inputs = [TensorSpec("x", "float32", (-1, self._weights.shape[0]))]
        self.outputs = [TensorSpec("y", "float32", (-1, self._weights.shape[1]))]

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        self._x = inputs["x"]

    def invoke(self) -> None:
        self._note(stage())
        if self._options["call_ms"]:
            time.sleep(self._options["call_ms"] / 1000)
        if self._options["spin_us"]:
            spin(self._options["spin_us"])
        self._y = self._x @ self._weights

    def _note(self, now: str) -> None:
        count = self._calls[now] = self._calls.get(now, 0) + 1
        if count == 1:
            log(now, "")
        if now == self._options["stage"] and (now == "first" or count == _CALLS_BEFORE_FAULT):
            happen(self._options["fault"])

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        y = self._y.copy()
        if self._options["fault"] == "nan" and stage() == self._options["stage"]:
            y[0, 0] = np.nan
        return {"y": y}

    def placement(self) -> Placement:
        if self._options["stage"] == "placement":
            happen(self._options["fault"])
        return Placement("faulty", (Node("0:matmul", "MatMul", "cpu", self._options["reports"], True),))

    def close(self) -> None:
        log("close", "")
