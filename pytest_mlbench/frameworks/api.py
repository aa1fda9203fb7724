"""What the host must know of a framework. The half that runs on the target is the adapter (agent/api.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Option:
    """One option a suite may set for a framework: its type, its choices or least value, and what it does."""

    type: type[int] | type[str] | type[bool]
    help: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    default: int | str | bool | None = None


@dataclass(frozen=True)
class Framework:
    """A framework as suites name it. Vendors register an instance under `mlbench.frameworks`."""

    name: str
    format: str  # the key under a model's `files` that this framework loads: "onnx", "tflite", ...
    adapter: str  # importable module whose source travels to the target
    module: str  # import name of the framework, looked for (not imported) before a case starts
    install: str  # the command that makes it available, printed in the skip reason
    distributions: tuple[str, ...] = ()  # packages whose versions tell cached artefacts apart (default: the module's)
    options: Mapping[str, Option] = field(default_factory=dict)
    compiles: bool = False  # the adapter has prepare(), whose artefact is cached by hash
    shipped: tuple[str, ...] = ()  # further importable modules the adapter needs on the target
    converts: tuple[str, ...] = ()  # precisions its adapter makes of the fp32 file while it loads (option `convert`)
    on_board: bool = False  # it drives a board that its device is connected to, and runs on no other device
