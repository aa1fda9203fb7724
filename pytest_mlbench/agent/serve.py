"""Let a worker answer the host's requests."""

from __future__ import annotations

from typing import Any

from .answer import answer
from .samples import Refused
from .worker import Worker


def serve(channel: Any, start: dict[str, Any]) -> None:
    """Answer until the verb `close`."""
    answer(channel, Worker(start.get("lock_file"), start.get("further_locks", ())), Refused)
