"""The published JSON Schemas of what this package writes."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any


def load_schema(name: str = "run-1") -> dict[str, Any]:
    """Return a schema by name: `run-1` describes each line of a run file of schema 1."""
    file = importlib.resources.files(__name__) / f"{name}.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema
