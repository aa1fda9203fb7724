"""Per-sample distances between two arrays of the same shape, in float64, a bounded chunk at a time.

Arrays are (samples, ...). Infinities of equal sign at the same place are equal and take no part; an infinity
against anything else is infinitely far; NaN on either side makes its sample NaN (and is outside every
tolerance). Integers beyond 2**53 are rounded by the conversion; only the bit-exact rule sees those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# 4 MB per float64 temporary: small enough to stay in a level-2 or -3 cache, large enough to vectorise.
CHUNK_ELEMENTS = 1 << 19


@dataclass(frozen=True)
class Elementwise:
    """How an output fares under NumPy's rule |a-b| <= atol + rtol*|b|.

    `worst` is (sample, flat element) of the one that needs the largest atol. The two tolerances are the least
    that would pass with the other left as it is, None when none would; without failures they are as given.
    """

    failing_samples: int
    failing_elements: int
    worst: tuple[int, int] | None
    smallest_atol: float | None
    smallest_rtol: float | None


def max_abs(found: Array, reference: Array) -> Floats:
    """Return max |a-b| of each sample."""
    return _per_sample(found, reference, _max_abs_chunk)


def sqnr_db(found: Array, reference: Array) -> Floats:
    """Return the signal-to-quantisation-noise ratio of each sample, 20 log10(||b|| / ||b-a||), in dB.

    inf for equal samples, -inf for a reference that is all zero and an output that is not.
    """
    return _per_sample(found, reference, _sqnr_chunk)


def cosine(found: Array, reference: Array) -> Floats:
    """Return the cosine similarity of each sample; exactly 1 for equal samples, 0 against a zero vector."""
    return _per_sample(found, reference, _cosine_chunk)


def elementwise(found: Array, reference: Array, rtol: float, atol: float) -> Elementwise:
    """Apply NumPy's rule |a-b| <= atol + rtol*|b| to every element."""
    samples = elements = 0
    worst, worst_need, need_rtol = None, -1.0, 0.0
    for start, a, b in chunks(found, reference):
        with np.errstate(all="ignore"):
            difference, size = np.abs(a - b), np.abs(b)
            outside = ~(difference <= atol + rtol * size) | ~np.isfinite(difference)
        rows, columns = np.nonzero(outside)
        if not rows.size:
            continue
        samples, elements = samples + int(np.unique(rows).size), elements + int(rows.size)
        distance, reach = difference[rows, columns], size[rows, columns]
        needs = _least_atol(distance, reach, rtol)
        largest = int(np.argmax(needs))
        if needs[largest] > worst_need:
            worst_need, worst = float(needs[largest]), (start + int(rows[largest]), int(columns[largest]))
        need_rtol = max(need_rtol, float(_least_rtol(distance, reach, atol).max()))
    if worst is None:
        return Elementwise(0, 0, None, atol, rtol)
    return Elementwise(samples, elements, worst, _reachable(worst_need), _reachable(need_rtol))


def farthest(found: Array, reference: Array) -> int:
    """Return the flat index of the element of one sample that differs most, NaN before all others."""
    for _, a, b in chunks(found[None], reference[None]):
        with np.errstate(all="ignore"):
            difference = np.abs(a - b)
        return int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
    return 0


def rounded_up(value: float, digits: int = 3) -> str:
    """Return `value` with few digits, never below it: an upper bound printed this way really holds."""
    return _rounded(value, digits, ROUND_CEILING)


def rounded_down(value: float, digits: int = 3) -> str:
    """Return `value` with few digits, never above it: a lower bound printed this way really holds."""
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    # From the shortest decimal that reads back as `value`; reading is monotone, so the side is kept.
    decimal = Context(prec=digits, rounding=rounding).create_decimal(repr(float(value)))
    return f"{float(decimal):.{digits}g}"


def chunks(found: Array, reference: Array) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield (index of the first sample, a, b) as (samples, elements) float64, equal infinities zeroed."""
    samples = len(found)
    per_sample = max(1, found.size // max(samples, 1))
    step = max(1, CHUNK_ELEMENTS // per_sample)
    for start in range(0, samples, step):
        with np.errstate(invalid="ignore"):  # converting a signalling NaN warns
            a = found[start : start + step].reshape(-1, per_sample).astype(np.float64)
            b = reference[start : start + step].reshape(-1, per_sample).astype(np.float64)
        same = (a == b) & np.isinf(a)
        if same.any():
            a[same] = b[same] = 0.0
        yield start, a, b


def _per_sample(found: Array, reference: Array, distance: Callable[[Floats, Floats], Floats]) -> Floats:
    parts = []
    with np.errstate(all="ignore"):
        for _, a, b in chunks(found, reference):
            parts.append(distance(a, b))
    return np.concatenate(parts) if parts else np.zeros(0)


def _max_abs_chunk(a: Floats, b: Floats) -> Floats:
    largest: Floats = np.abs(a - b).max(axis=1)
    return largest


def _log_norm(values: Floats) -> Floats:
    # Scaled by the largest element, so that squares neither overflow nor vanish.
    scale = np.abs(values).max(axis=1)
    safe = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
    scaled = values / safe[:, None]
    norms: Floats = np.log10(safe) + 0.5 * np.log10(np.einsum("ij,ij->i", scaled, scaled))
    return norms


def _sqnr_chunk(a: Floats, b: Floats) -> Floats:
    noise = b - a
    ratio = 20 * (_log_norm(b) - _log_norm(noise))
    ratio[~noise.any(axis=1)] = np.inf
    ratio[np.isinf(noise).any(axis=1)] = -np.inf
    ratio[np.isnan(noise).any(axis=1)] = np.nan
    return ratio


def _cosine_chunk(a: Floats, b: Floats) -> Floats:
    one, other = _unit(a), _unit(b)
    similarity: Floats = np.clip(np.einsum("ij,ij->i", one, other), -1.0, 1.0)
    similarity[~(a - b).any(axis=1)] = 1.0
    # An unmatched infinity has no direction: as bad as a vector that has none.
    unmatched = np.isinf(a).any(axis=1) | np.isinf(b).any(axis=1)
    similarity[unmatched] = 0.0
    similarity[np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1)] = np.nan
    return similarity


def _unit(values: Floats) -> Floats:
    scale = np.abs(values).max(axis=1, keepdims=True)
    scaled = values / np.where(scale > 0, scale, 1.0)
    norm = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    unit: Floats = scaled / np.where(norm > 0, norm, 1.0)
    return unit


def _least_atol(distance: Floats, size: Floats, rtol: float) -> Floats:
    with np.errstate(all="ignore"):
        allowed = rtol * size
        need = np.maximum(distance - allowed, 0.0)
        # The subtraction may round down; one step up makes the sum reach the distance again.
        need = np.where(need + allowed >= distance, need, np.nextafter(need, np.inf))
    need[~np.isfinite(distance) | ~np.isfinite(need)] = np.inf
    return need


def _least_rtol(distance: Floats, size: Floats, atol: float) -> Floats:
    with np.errstate(all="ignore"):
        need = (distance - atol) / size
        for _ in range(4):
            short = ~(atol + need * size >= distance)
            need = np.where(short, np.nextafter(need, np.inf), need)
        short = ~(atol + need * size >= distance)
    need[short | ~np.isfinite(distance) | ~np.isfinite(need)] = np.inf
    return need


def _reachable(value: float) -> float | None:
    return value if np.isfinite(value) else None
