"""The command `mlbench`: verbs that need no pytest session. Measuring is `pytest --mlbench`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pytest_mlbench import (
    __version__,
    compare_command,
    devices_command,
    doctor,
    export,
    freeze,
    history,
    new_command,
    scaffold,
)
from pytest_mlbench.errors import MlbenchError


def parser() -> argparse.ArgumentParser:
    """Return the command's parser; each verb's module registers itself."""
    made = argparse.ArgumentParser(
        prog="mlbench",
        description="Help for suites of machine-learning benchmarks. To measure, run: pytest --mlbench suites/",
    )
    made.add_argument("--version", action="version", version=f"pytest-mlbench {__version__}")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    scaffold.add_init(verbs)
    new_command.add_new(verbs)
    doctor.add_doctor(verbs)
    devices_command.add_devices(verbs)
    freeze.add_freeze(verbs)
    history.add_import(verbs)
    history.add_history(verbs)
    compare_command.add_compare(verbs)
    export.add_export(verbs)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; an error is one message on standard error and exit code 2."""
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except MlbenchError as error:
        print(f"mlbench: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read this has seen enough: `mlbench history | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tells of it once more at its end
        return 141  # as of a program that SIGPIPE ended: 0 would say that a verdict was good
    return code
