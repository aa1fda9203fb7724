"""The contract between the agent and a framework adapter.

An adapter is one module (standard library, numpy and its framework only) that travels to the target. It has

    NAME: str                                             # the import name of the framework
    def versions() -> dict[str, str]                      # {"onnxruntime": "1.31.1"}; may import the framework
    def load(path: str, options: dict) -> Session         # the timed stage "load"

and, when a model must be compiled before it can be loaded (this runs in a process of its own, so that the
compiler's memory and time do not count as the model's),

    def prepare(path: str, out_dir: str, options: dict) -> str   # path of the artefact, given to load()
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    `shape` has -1 for a dimension that is free. `dtype` is numpy's name. `scale` and `zero_point` are set
    for a tensor that holds quantised values: real = (stored - zero_point) * scale.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class Node:
    """One executed node: its operator, where it ran and in which precision it computed."""

    name: str
    op: str
    where: str  # "cpu", or a provider's or delegate's own name, lower case
    precision: str  # fp32, fp16, bf16, int8, int64, ... ; "unknown" when the framework does not tell
    compute: bool  # does the arithmetic a model is named for: convolution, matrix product, ... (not a cast or copy)


@dataclass(frozen=True)
class Placement:
    """Which nodes ran where and in what precision, as the framework itself reports after optimisation."""

    source: str  # the instrument, for example "onnxruntime profiler" or "openvino get_runtime_model()"
    nodes: tuple[Node, ...] = ()
    reason: str = ""  # why nodes is empty, when it is
    notes: dict[str, Any] = field(default_factory=dict)  # for example {"tuning": "none"}


@dataclass(frozen=True)
class TargetClock:
    """A clock of the target's own, for a session whose calls this process cannot time: a board at the end of a line.

    Such a session has an attribute `clock`, and a method `time_calls(calls: int) -> int` that makes so many calls of
    what is bound and returns their nanoseconds by that clock. Only the boundary `invoke` can be timed so. It may have

        stages_ns: dict[str, int]           # parts of load() that are stages of their own, such as "flash"
        def facts(self) -> dict[str, Any]   # what identifies the target, for the record; asked at the end
    """

    name: str  # as the record says it: "m-lap-us of the board"
    tick_ns: int  # its resolution; readings differ by whole ticks
    reason: str = ""  # why it cannot time anything, "" when it can


class Session(Protocol):
    """One model loaded in one framework. Methods are called from one thread, in the order below.

    One on a GPU may have `device_memory() -> dict`: {"peak_bytes": the most of the device's memory that the model
    held, "source": what told it}; {} when it cannot tell.

    bind() and fetch() stay outside the timed region of the boundary `invoke`, inside that of
    `set_invoke_get`; invoke() is always inside, so it does nothing but compute.
    """

    @property
    def inputs(self) -> list[TensorSpec]: ...

    @property
    def outputs(self) -> list[TensorSpec]: ...

    def bind(self, inputs: dict[str, np.ndarray]) -> None:
        """Make `inputs` (name -> batch, already of the model's dtype, C-contiguous) the next call's input.

        The framework may keep a reference to the arrays: the caller keeps them alive and unchanged until
        the next bind(). A batch size that the model cannot take raises ValueError.
        """

    def invoke(self) -> None:
        """Compute, and return when the outputs are complete."""

    def fetch(self) -> dict[str, np.ndarray]:
        """Copy the outputs of the last invoke() (name -> array of the model's own dtype)."""

    def placement(self) -> Placement:
        """Tell what ran where and in which precision; may be slow and may use a second session."""

    def close(self) -> None:
        """Free the model."""
