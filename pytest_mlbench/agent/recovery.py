"""Bring a board back: resync, reset by itself, reset line, power, each tried only after the one before failed.

After each step the work that failed is done again, so that a step counts as one that helped only when it did. Every
step is written down with how long it took and what came of it: a result says what it took to get it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .board import BoardError, BoardLost, FlashError, WrongBoard

T = TypeVar("T")

MOST = 5  # steps that helped, in the life of one agent: a board that needs more is not fit to measure
NO_USE = (WrongBoard, FlashError, BoardLost)  # what no reset mends


class Notes(Protocol):
    """What a step is noted in, beside what goes over the line: a Transcript."""

    def note(self, line: str, /) -> None:
        """Add a line."""


@dataclass(frozen=True)
class Rung:
    """One step of the ladder. `go` returns within a deadline of its own, or raises BoardError."""

    name: str
    go: Callable[[], None]


class Recovery:
    """The ladder of one board."""

    def __init__(self, rungs: Sequence[Rung], settle: Callable[[], object], transcript: Notes) -> None:
        self.happened: list[dict[str, Any]] = []
        self._rungs = tuple(rungs)
        self._settle = settle  # makes sure that the board answers again; raises BoardError
        self._transcript = transcript

    def run(self, what: str, work: Callable[[], T]) -> T:
        """Do `work`, and again after each step of the ladder until it succeeds.

        Raises BoardLost, which tells every step, when none helps or too many had to.
        """
        try:
            return work()
        except NO_USE:
            raise
        except BoardError as error:
            first = problem = error
        helped = sum(step["helped"] for step in self.happened)
        if helped >= MOST:
            raise BoardLost(f"the board failed again after {helped} recoveries in one case: {problem}")
        tried: list[str] = []
        for rung in self._rungs:
            begin = time.monotonic_ns()
            self._transcript.note(f"recovery: {rung.name}, because {problem}")
            step: dict[str, Any] = {"step": rung.name, "what": what, "because": str(problem), "helped": False}
            self.happened.append(step)
            try:
                rung.go()
                self._settle()
                result = work()
            except NO_USE:
                raise
            except BoardError as error:
                problem = error
                tried.append(f"{rung.name}: {error}")
            else:
                step["helped"] = True
                return result
            finally:
                step["duration_ns"] = time.monotonic_ns() - begin
        raise BoardLost(f"{what}: {first}. Nothing brought the board back. " + "; ".join(tried))
