"""A pytest plugin (`-p mlbench_untold`) for tests of the gate on a machine where other tests run too.

The gate withdraws a red verdict when other processes disturbed the rounds. With this plugin it looks for them on a
machine whose kernel tells nothing, as some do, so that a verdict does not depend on what else runs here.
"""

from __future__ import annotations

from pathlib import Path

from pytest_mlbench import fitness
from pytest_mlbench.machine import Machine

NOWHERE = Path(__file__).with_name("no-such-folder")


def pytest_configure() -> None:
    fitness.Machine = lambda: Machine(NOWHERE)  # type: ignore[attr-defined]
