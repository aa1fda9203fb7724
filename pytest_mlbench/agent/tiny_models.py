"""The models of MLPerf Tiny that a board may have built in, by the id it answers to `profile`.

Sizes from mlcommons/tiny: benchmark/api and the reference submissions. Results are real numbers in text.
"""

from __future__ import annotations

from .api import TensorSpec

MODELS: dict[str, tuple[TensorSpec, TensorSpec]] = {
    "kws01": (TensorSpec("input", "int8", (1, 49, 10, 1)), TensorSpec("results", "float32", (1, 12))),
    "ic01": (TensorSpec("input", "uint8", (1, 32, 32, 3)), TensorSpec("results", "float32", (1, 10))),
    "vww01": (TensorSpec("input", "uint8", (1, 96, 96, 3)), TensorSpec("results", "float32", (1, 2))),
    "ad01": (TensorSpec("input", "float32", (1, 640)), TensorSpec("results", "float32", (1, 1))),
}
