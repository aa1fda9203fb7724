"""A net in plain numpy that can be made slower by a known share: what the gate's self-test measures.

It needs no framework and no file, so that the self-test runs wherever the agent does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..api import Node, Placement, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LAYERS = 4


def versions() -> dict[str, str]:
    """Name numpy, which computes."""
    return {"numpy": np.__version__}


def load(path: str, options: Mapping[str, Any]) -> ArithmeticSession:
    """Make the net; `width` is the size of its square layers, every `every`th call computes `extra` times more."""
    return ArithmeticSession(
        int(options.get("width", 64)), int(options.get("every", 33)), bool(options.get("extra", False))
    )


class ArithmeticSession:
    """Layers of matrix products; see agent/api.py."""

    def __init__(self, width: int, every: int, extra: bool) -> None:
        weights = np.random.default_rng(0).normal(size=(_LAYERS, width, width)).astype(np.float32) / width**0.5
        self.inputs = [TensorSpec("x", "float32", (1, width))]
        self.outputs = [TensorSpec("y", "float32", (1, width))]
        self._x = np.zeros((1, width), np.float32)
        self._y = self._x

        def compute() -> None:
            y = self._x
            for weight in weights:
                y = np.maximum(y @ weight, 0)
            self._y = y

        self.invoke: Callable[[], None] = repeating(compute, every, extra)

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Take the next input."""
        self._x = inputs["x"]

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the last output."""
        return {"y": self._y.copy()}

    def placement(self) -> Placement:
        """Tell that numpy computed everything."""
        nodes = tuple(Node(f"layer{index}", "MatMul", "cpu", "fp32", True) for index in range(_LAYERS))
        return Placement("numpy", nodes)

    def close(self) -> None:
        """There is nothing to free."""


def repeating(compute: Callable[[], Any], every: int, extra: bool) -> Callable[[], None]:
    """Return a call that computes, with `extra` every `every`th time once more.

    Without, it counts its calls all the same, so that nothing but the extra calls tells both forms apart.
    """
    left = every

    def call() -> None:
        nonlocal left
        compute()
        left -= 1
        if not left:
            left = every
            if extra:
                compute()

    return call
