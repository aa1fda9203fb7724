"""Discrete agreement of two arrays of the same shape: the same first class, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.checks.distances import CHUNK_ELEMENTS, chunks

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BitDifference:
    """Where two arrays differ in their bytes; `first` is (sample, flat element)."""

    samples: int
    elements: int
    first: tuple[int, int] | None


def top1_agrees(found: Array, reference: Array) -> Flags | None:
    """Return for each sample whether both sides choose the same class; None when there is no class axis.

    The class axis is the only one beside the samples that is longer than 1, else the last; with further axes
    (one class per pixel) a sample agrees when all its positions do. Of equal scores the lower class is chosen, as
    numpy's argmax and accuracy.top1 do. An output of one whole number per sample is taken as the class itself.
    NaN never agrees.
    """
    per_sample = [size for size in found.shape[1:] if size != 1]
    if not per_sample:
        if found.dtype.kind not in "iu" or reference.dtype.kind not in "iu":
            return None
        equal: Flags = found.reshape(-1) == reference.reshape(-1)
        return equal
    classes = per_sample[0] if len(per_sample) == 1 else found.shape[-1]
    if classes < 2:
        return None
    parts = []
    for _, a, b in _raw_chunks(found, reference):
        one, other = (side.reshape(len(a), -1, classes) for side in (a, b))
        # argmax gives the place of a NaN, which is no choice.
        known = ~(np.isnan(one).any(axis=2) | np.isnan(other).any(axis=2))
        parts.append((known & (one.argmax(axis=2) == other.argmax(axis=2))).all(axis=1))
    return np.concatenate(parts)


def bit_difference(found: Array, reference: Array) -> BitDifference:
    """Compare the bytes of every element: -0.0 is not 0.0, and two NaN are equal when their payloads are.

    Both sides must have the same dtype and shape, and hold no objects.
    """
    samples = elements = 0
    first: tuple[int, int] | None = None
    width = found.dtype.itemsize
    for start, a, b in _raw_chunks(found, reference):
        one, other = (np.ascontiguousarray(side).view(np.uint8).reshape(len(a), -1, width) for side in (a, b))
        different = (one != other).any(axis=2)
        if not different.any():
            continue
        samples += int(different.any(axis=1).sum())
        elements += int(different.sum())
        if first is None:
            row, column = np.argwhere(different)[0]
            first = (start + int(row), int(column))
    return BitDifference(samples, elements, first)


@dataclass(frozen=True)
class NotFinite:
    """Where NaN, or an infinity against something else, was found; `first` is (sample, flat element)."""

    nan_found: int
    nan_reference: int
    infinity: int
    first: tuple[int, int] | None


def not_finite(found: Array, reference: Array) -> NotFinite:
    """Count NaN on either side and infinities that the other side does not have with the same sign."""
    counts = np.zeros(3, dtype=np.int64)
    first: tuple[int, int] | None = None
    for start, a, b in chunks(found, reference):
        # chunks() has zeroed the matching infinities, so that whatever is left has no partner.
        finite = np.isfinite(a) & np.isfinite(b)
        if finite.all():
            continue
        nan_a, nan_b = np.isnan(a), np.isnan(b)
        counts += (nan_a.sum(), nan_b.sum(), (~finite & ~nan_a & ~nan_b).sum())
        if first is None:
            row, column = np.argwhere(~finite)[0]
            first = (start + int(row), int(column))
    return NotFinite(int(counts[0]), int(counts[1]), int(counts[2]), first)


def _raw_chunks(found: Array, reference: Array) -> Iterator[tuple[int, Array, Array]]:
    step = max(1, CHUNK_ELEMENTS // max(1, found.size // max(1, len(found))))
    for start in range(0, len(found), step):
        shape = (len(found[start : start + step]), -1)
        yield (
            start,
            found[start : start + step].reshape(shape),
            reference[start : start + step].reshape(shape),
        )
