"""Outputs of other cases to compare with: taken from a file, from the cache, or by running that case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pytest_mlbench import assets, datasets
from pytest_mlbench.errors import AssetError

Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class OutputKey:
    """Everything the outputs of a case depend on."""

    model_sha256: str
    framework: str
    version: str
    adapter_sha256: str
    options: str
    dataset: str
    prepared: str
    target: str

    @property
    def digest(self) -> str:
        """Return the name of the cache entry."""
        return assets.key_of(json.dumps(vars(self), sort_keys=True))


def keep(key: OutputKey, outputs: Outputs) -> None:
    """Keep the outputs of a case for those that name it as their reference."""
    assets.write_arrays(assets.cached("outputs", key.digest) / "outputs.npz", outputs)


def kept(key: OutputKey) -> dict[str, npt.NDArray[Any]] | None:
    """Return the kept outputs, or None when there are none that can be read."""
    path = assets.cached("outputs", key.digest) / "outputs.npz"
    try:
        return datasets.read_arrays(path, path)
    except AssetError:
        return None


def from_file(path: Path, suite: Path) -> dict[str, npt.NDArray[Any]]:
    """Return reference outputs from an npz the suite names: output name -> (samples, ...)."""
    assets.check(path, suite=suite)
    return datasets.read_arrays(path, suite)
