"""How long does it take to get a free device, and how long is a device busy after its holder was killed?

Bounds: 10 ms to get one (a board with its meter and switch, sharing `cpu`), 100 ms after `kill -9`. Beside the first:
one bare lock of filelock, which is what a lease is made of. Each killed holder is a process that only holds.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from filelock import FileLock

from pytest_mlbench import lease
from pytest_mlbench.errors import StageError

FREE_BOUND_S, KILLED_BOUND_S = 0.010, 0.100
BOARD = ("board", "meter", "switch")
HOLDER = """
import sys
from pytest_mlbench import lease
with lease.hold(("board", "meter", "switch"), shares=("cpu",), timeout_s=10):
    print("held", flush=True)
    sys.stdin.readline()
"""


def taken_s(take: Callable[[], object], times: int) -> list[float]:
    """Return how long each of `times` runs took."""
    found = []
    for _ in range(times):
        begin = perf_counter()
        take()
        found.append(perf_counter() - begin)
    return found


def free() -> None:
    """Get a free board and give it back."""
    with lease.hold(BOARD, shares=("cpu",), timeout_s=0, case="benchmarks/leases"):
        pass


def bare() -> None:
    """Take one lock and give it back."""
    with FileLock(lease.state_dir() / "bare.lock"):
        pass


@contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the board."""
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def is_free() -> bool:
    """Tell whether the board can be had now."""
    try:
        free()
    except StageError:
        return False
    return True


def freed_s() -> float:
    """Kill a holder, and return how long it took until the board could be had."""
    with holder() as process:
        assert not is_free()
        begin = perf_counter()
        os.kill(process.pid, signal.SIGKILL)
        with lease.hold(BOARD, shares=("cpu",), timeout_s=10):
            return perf_counter() - begin


def main() -> int:
    """Print both, each with its bound; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlbench-leases-") as folder:
        os.environ["MLBENCH_STATE"] = str(Path(folder) / "state")
        free()  # makes the files
        leases, locks = taken_s(free, arguments.leases), taken_s(bare, arguments.leases)
        killed = [freed_s() for _ in range(arguments.kills)]
    ratio = median(leases) / median(locks)
    print(f"a free board, meter and switch: median {1e3 * median(leases):.2f} ms, most {1e3 * max(leases):.2f} ms")
    print(f"  bound {1e3 * FREE_BOUND_S:g} ms; {ratio:.1f} times one bare lock ({1e3 * median(locks):.2f} ms)")
    print(f"after kill -9 of its holder: median {1e3 * median(killed):.1f} ms, most {1e3 * max(killed):.1f} ms")
    print(f"  bound {1e3 * KILLED_BOUND_S:g} ms")
    good = median(leases) < FREE_BOUND_S and max(killed) < KILLED_BOUND_S
    print("both hold" if good else "a bound does NOT hold")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
