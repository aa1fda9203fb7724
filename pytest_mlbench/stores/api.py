"""What keeps runs for longer than one session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pytest_mlbench.record import Metric, Outcome
from pytest_mlbench.stores.runfile import Run


@dataclass(frozen=True)
class Added:
    """What became of a run that was given to a store: how many records it has, and whether it was there before."""

    records: int
    already: bool


@dataclass(frozen=True)
class KeptRun:
    """One run of a store. `dirty` is None when the run does not tell; `commit`, `branch`, `host` are then empty."""

    id: str
    started: datetime  # aware, UTC
    commit: str
    branch: str
    dirty: bool | None
    host: str


@dataclass(frozen=True)
class CaseKey:
    """What a history is kept under: records of one case may be compared when their fingerprints are equal."""

    case: str
    fingerprint: str  # empty for a case that never reached its target: a skip, for example


@dataclass(frozen=True)
class Point:
    """One record of a case. `metric` is None when the record has none of that name.

    `promoted` tells whether it may be a baseline: it passed, and no comparison of it found a regression, waived or not.
    """

    run: KeptRun
    started: datetime  # of the record, aware, UTC
    outcome: Outcome
    reason: str
    promoted: bool
    metric: Metric | None


@dataclass(frozen=True)
class Baseline:
    """The newest record of a case that later ones may be compared with, and all it measured."""

    run: KeptRun
    started: datetime
    metrics: Mapping[str, Metric]


class Store(Protocol):
    """Keeps runs. Vendors register `open_store(url, *, create, wait_s)` under `mlbench.stores`, by the URL's scheme.

    `cases` is a pattern: `*` and `?` as in file names, brackets stand for themselves. Everything raises
    HistoryError when the store cannot be reached, read or written, and leaves it as it was.
    """

    @property
    def place(self) -> str:
        """Tell people where it is; without a password."""

    def add(self, run: Run, file_sha256: str = "") -> Added:
        """Keep a run, whole or not at all; again is no change. RunFileError for what cannot be kept."""

    def runs(self, cases: str = "*", limit: int = 30) -> tuple[KeptRun, ...]:
        """Return the latest runs that have such a case, newest first."""

    def cases(self, runs: Sequence[KeptRun], cases: str = "*") -> tuple[CaseKey, ...]:
        """Return what these runs have, by case, the fingerprint measured last first."""

    def metric_names(self, run: KeptRun, cases: str = "*") -> tuple[str, ...]:
        """Return the names of the metrics that a run has of such cases, sorted."""

    def series(self, keys: Sequence[CaseKey], metric: str, limit: int = 30) -> Mapping[CaseKey, tuple[Point, ...]]:
        """Return the latest records of each key, oldest first. A resumed record counts once, where it was measured."""

    def latest(self, keys: Sequence[CaseKey]) -> Mapping[CaseKey, Baseline]:
        """Return the newest record of each key that may be a baseline; keys that have none are left out."""

    def close(self) -> None:
        """Let go of the store; it is not used afterwards."""
