"""The adapter of tflite-runtime, the older name of LiteRT: the same API, in an environment of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .litert_adapter import LitertSession, package_versions

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "tflite_runtime"


def versions() -> dict[str, str]:
    """Name the installed tflite-runtime."""
    return package_versions(NAME)


def load(path: str, options: Mapping[str, Any]) -> LitertSession:
    """Load a TFLite file; `options` are those of pytest_mlbench.frameworks.litert."""
    return LitertSession(path, dict(options), NAME)
