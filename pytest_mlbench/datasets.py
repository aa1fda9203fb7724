"""Read a data set's samples and labels from its npz file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench import assets
from pytest_mlbench.errors import AssetError
from pytest_mlbench.spec import DatasetSpec


@dataclass(frozen=True)
class Samples:
    """Raw samples by array name, each (samples, ...), and their labels if there are any."""

    arrays: Mapping[str, npt.NDArray[Any]]
    labels: npt.NDArray[np.int64] | None = None
    sha256: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def read(dataset: DatasetSpec, suite: Path) -> Samples | None:
    """Return the samples of a file data set, or None for one that is generated on the target.

    Raises AssetError when the file is missing, altered or no npz of plain arrays of equal length.
    """
    if dataset.file is None:
        return None
    found = assets.check(dataset.file, suite=suite, expected_sha256=dataset.sha256)
    arrays = read_arrays(dataset.file, suite)
    labels = arrays.pop(dataset.labels, None)
    if labels is not None and labels.dtype.kind not in "iub":
        raise AssetError(
            f"array {dataset.labels!r} of {dataset.file} holds {labels.dtype}, expected class numbers (integers); "
            "correct it, or name the array of labels with `labels`",
            file=suite,
            key=f"dataset.{dataset.name}.labels",
        )
    wanted = set(dataset.inputs.values())
    if wanted:
        missing = sorted(wanted - set(arrays))
        if missing:
            raise AssetError(
                f"file {dataset.file} has no array {', '.join(map(repr, missing))}; it has {', '.join(arrays)}",
                file=suite,
                key=f"dataset.{dataset.name}.inputs",
            )
        arrays = {name: array for name, array in arrays.items() if name in wanted}
    if not arrays:
        raise AssetError(f"file {dataset.file} holds no samples besides the labels", file=suite)
    _check_lengths(dataset, {**arrays, **({dataset.labels: labels} if labels is not None else {})}, suite)
    if dataset.count is not None:
        arrays = {name: array[: dataset.count] for name, array in arrays.items()}
        labels = labels[: dataset.count] if labels is not None else None
    return Samples(arrays, labels.astype(np.int64) if labels is not None else None, found)


def read_arrays(path: Path, suite: Path) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of an npz file; AssetError when it is damaged or holds pickled objects."""
    try:
        # Opened here, since numpy.load leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zlib.error, BadZipFile, MemoryError, tokenize.TokenError, ...: no list is complete
        raise AssetError(
            f"file {path} is damaged or no npz of plain arrays ({type(error).__name__}: {error}); "
            "write it again with numpy.savez",
            file=suite,
        ) from None


def _check_lengths(dataset: DatasetSpec, arrays: Mapping[str, npt.NDArray[Any]], suite: Path) -> None:
    lengths = {name: (array.shape[0] if array.ndim else 0) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise AssetError(
            f"the arrays of {dataset.file} must share their first dimension, the samples; found {told}",
            file=suite,
        )
