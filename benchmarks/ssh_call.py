"""How long a call of a verb takes through an open ssh gateway on loopback, beside a local agent's.

    python benchmarks/ssh_call.py [--calls 2000]

Target: a median below 1 ms. A real sshd is started for it (its own keys, port and folder) and ended with it. The
calls are those of a session between measurements; what is timed on a board is timed there, inside one call.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pytest_mlbench import deploy
from pytest_mlbench.devices.cpu import Cpu

TARGET_MS = 1.0


def ssh_server():
    path = Path(__file__).parents[1] / "tests" / "ssh_server.py"
    spec = importlib.util.spec_from_file_location("ssh_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ssh_server"] = module
    spec.loader.exec_module(module)
    return module


def calls_ms(call: Callable[[], object], number: int) -> np.ndarray:
    """Return the milliseconds of each of `number` calls, after a tenth as many that do not count."""
    for _ in range(number // 10):
        call()
    times = []
    for _ in range(number):
        begin = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin)
    return np.array(times) / 1e6


def show(name: str, times: np.ndarray, start_s: float) -> None:
    median, high = np.percentile(times, (50, 99))
    print(f"{name:28} median {median:6.3f} ms   p99 {high:6.3f} ms   start of an agent {start_s:5.2f} s")


def measured(device, number: int) -> tuple[np.ndarray, float]:
    """Return the times of a worker's cheapest verb, and how long the agent took to start."""
    begin = time.perf_counter()
    with deploy.Agent(device, None, deploy.agent_sources()) as agent:
        start_s = time.perf_counter() - begin
        return calls_ms(lambda: agent.call("call", "keep_timed", 10.0, keep=False), number), start_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="how many calls are timed (default: %(default)s)")
    number = parser.parse_args().calls
    module = ssh_server()
    missing = module.missing()
    if missing is not None:
        sys.exit(missing)
    local, local_s = measured(Cpu(), number)
    with tempfile.TemporaryDirectory(prefix="mlbench-ssh-") as folder, module.server(Path(folder)) as server:
        device = server.device()
        try:
            with device.held(10.0, print, ""):
                remote, remote_s = measured(device, number)
        finally:
            device.close()
    show("local agent (popen)", local, local_s)
    show("board over ssh, loopback", remote, remote_s)
    median = float(np.median(remote))
    print(f"target: median below {TARGET_MS:g} ms: {'reached' if median < TARGET_MS else 'missed'}")
    return 0 if median < TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
