"""The exceptions of this package. Each message says what failed, where, what was expected and the remedy.

MlbenchError
├── SuiteError         a suite, data set or option is wrong (bad input; never measured)
│   └── AssetError     a file named by a suite is missing, truncated, altered or out of bounds
├── Unavailable        this case cannot run here, through no fault of the suite (a skip with its reason)
├── StageError         a stage of one case failed on the target (an error of that case; the run goes on)
│   ├── BoardFailed    a board did not answer as it must, or could not be flashed
│   └── AgentLost      the agent died, hung past its deadline or was killed
│       └── Unreachable    a machine of its own does not answer, or its connection broke
├── BaseError          the base revision, its files or its environment cannot be had (bad input; never measured)
├── InvalidCase        what was measured must not be believed (for example it ran in another precision)
├── HistoryError       the history cannot be opened, read or written (infrastructure)
└── RunFileError       the run file cannot be written or read (infrastructure)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MlbenchError(Exception):
    """Base of everything this package raises on purpose."""


class SuiteError(MlbenchError):
    """Report bad input with its place: the file, the key path inside it, what was expected, the remedy."""

    def __init__(self, message: str, *, file: Path | str | None = None, key: str | None = None) -> None:
        self.file = str(file) if file is not None else None
        self.key = key
        place = ": ".join(part for part in (self.file, key) if part)
        super().__init__(f"{place}: {message}" if place else message)


class AssetError(SuiteError):
    """Report a file that a suite names and that is missing, truncated, altered or outside its folder."""


class Unavailable(MlbenchError):
    """Say why a case cannot run here and what would make it run; shown as a skip."""


class StageError(MlbenchError):
    """Report the failure of one stage of one case.

    `stage` is the word shown to users (start, inputs, prepare, load, first, accuracy, warm-up, measure, ...);
    `detail` holds what the target printed, for example the framework's traceback.
    """

    def __init__(self, stage: str, message: str, detail: str = "") -> None:
        self.stage = stage
        self.message = message
        self.detail = detail
        super().__init__(f"{stage}: {message}")


class BoardFailed(StageError):
    """Report a board that failed, with the traffic on its line as `detail` and the steps of recovery as `happened`.

    `is_lost`: no step brought it back, so it is of no use for the rest of the session.
    """

    def __init__(
        self,
        stage: str,
        message: str,
        detail: str = "",
        happened: tuple[Mapping[str, Any], ...] = (),
        *,
        is_lost: bool = False,
    ) -> None:
        self.happened = happened
        self.is_lost = is_lost
        super().__init__(stage, message, detail)


class AgentLost(StageError):
    """Report an agent that ended, crashed or passed its deadline while it worked on a stage."""


class Unreachable(AgentLost):
    """Report a machine that does not answer or whose connection broke: nothing that it refused, so power may help."""


class BaseError(MlbenchError):
    """Report a base revision that cannot be found or checked out, or whose environment cannot be made."""


class InvalidCase(MlbenchError):
    """Report a measurement that must not be believed."""


class HistoryError(MlbenchError):
    """Report a history that cannot be opened, read or written; it is left as it was."""


class RunFileError(MlbenchError):
    """Report a run file that cannot be written or read."""
