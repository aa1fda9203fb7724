"""The Wilson score interval of a proportion."""

from __future__ import annotations

import math
from statistics import NormalDist


def z_value(confidence: float) -> float:
    """Return the two-sided normal quantile: 1.96 for 0.95. ValueError when outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a fraction within (0, 1), got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval (low, high) of a proportion, without continuity correction.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    ValueError unless 0 <= successes <= n and n > 0.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n > 0, got {successes} of {n}")
    z2 = z_value(confidence) ** 2
    centre = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2) / (n + z2) * math.sqrt(successes * (n - successes) / n + z2 / 4)
    # At 0 and n successes the formula gives 0 and 1 exactly; say so in spite of rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high
