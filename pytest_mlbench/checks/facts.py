"""Numbers as JSON values for `CheckResult.facts`, and counted words."""

from __future__ import annotations

import math


def number(value: float) -> float | str:
    """Return `value` as a float, or as "inf", "-inf" or "nan", which strict JSON has no number for."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def plural(count: int, word: str) -> str:
    """Return "1 sample" or "2 samples"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
