"""Render a run as one JSON document on one line, for scripts."""

from __future__ import annotations

from typing import Any

from pytest_mlbench.stores.runfile import Run, dumps


def render(run: Run) -> str:
    """Return the run with the raw samples left out (they are in the run file)."""
    records: list[dict[str, Any]] = []
    for record in run.records:
        line = record.to_json()
        line.pop("kind")
        line.pop("samples")
        records.append(line)
    return dumps({"header": run.header, "records": records, "footer": run.footer})
