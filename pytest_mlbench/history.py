"""The verbs around the history: `mlbench import FILE...` and `mlbench history [CASES]`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mlbench.errors import RunFileError

if TYPE_CHECKING:
    from pytest_mlbench.stores.api import Store

# Modules that do the work are imported by the verbs: numpy and SQLAlchemy take longer than other verbs do.

_DB_HELP = "sqlite:///FILE or postgresql://USER@HOST/NAME (default: MLBENCH_HISTORY, else .mlbench/history.db)"
_FORMATS = ("run", "pytest-benchmark", "pyperf", "google-benchmark")
_MOST_RUNS = 1000


def add_import(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `import`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "import",
        help="keep runs, or other tools' results, in the history",
        description="Keep run files in the history, or what pytest-benchmark, pyperf and Google Benchmark wrote. A run "
        "that is there already stays as it is.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a run file, or another tool's JSON")
    parser.add_argument("--format", choices=_FORMATS, help="of the files (default: recognised by what is in them)")
    parser.add_argument("--db", metavar="URL", help=_DB_HELP)
    parser.set_defaults(run=run_import)


def add_history(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `history`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "history",
        help="show what the history has: cases by runs, or the trend of one case",
        description="Show the latest runs of the cases that fit, or the trend of one case with its steps.",
    )
    parser.add_argument(
        "cases", nargs="?", default="*", metavar="CASES", help="a case id; * and ? as in file names (default: all)"
    )
    parser.add_argument("--metric", default="latency.p50", metavar="NAME", help="what is shown (default: latency.p50)")
    parser.add_argument("--limit", type=_limit, default=30, metavar="N", help="latest runs at most (default: 30)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for scripts")
    parser.add_argument("--db", metavar="URL", help=_DB_HELP)
    parser.set_defaults(run=run_history)


def run_import(arguments: argparse.Namespace) -> int:
    """Keep each file that can be; the others are told on standard error, and make the exit code 2."""
    from pytest_mlbench import assets
    from pytest_mlbench.checks.facts import plural
    from pytest_mlbench.importers import read
    from pytest_mlbench.stores.url import history_url, open_store

    store: Store | None = None
    failed = False
    try:
        for path in arguments.files:
            try:
                run = read(path, arguments.format)
                store = store or open_store(history_url(arguments.db), create=True)
                added = store.add(run, assets.sha256_of(path) if path.is_file() else "")
            except RunFileError as error:
                told = str(error)
                print(f"mlbench: {told if str(path) in told else f'{path}: {told}'}", file=sys.stderr)
                failed = True
            else:
                became = "was there before" if added.already else f"kept, {plural(added.records, 'record')}"
                print(f"{path}: run {run.header['id']} {became}")
        if store is not None:
            print(f"history: {store.place}")
    finally:
        if store is not None:
            store.close()
    return 2 if failed else 0


def run_history(arguments: argparse.Namespace) -> int:
    """Print what the history has of the cases that were asked for."""
    from pytest_mlbench.reporters import history as reporter
    from pytest_mlbench.stores.url import history_url, open_store
    from pytest_mlbench.trend import look_up

    store = open_store(history_url(arguments.db), create=False)
    try:
        found = look_up(store, arguments.cases, arguments.metric, arguments.limit)
    finally:
        store.close()
    if arguments.format == "json":
        print(json.dumps(reporter.document(store.place, found)))
        return 0
    width = shutil.get_terminal_size().columns
    print("\n".join(reporter.trends(found) if found.case else reporter.overview(found, width)))
    return 0


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= _MOST_RUNS:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {_MOST_RUNS}, found {text[:20]!r}")
    return number
