"""The frozen values a suite is parsed into. `suitefile.py` reads them from TOML or from a Python suite.

Durations are seconds or nanoseconds as the name says, sizes bytes, tolerances plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Limit:
    """A fixed bound on a metric: `text` as written ("<= 5 ms"), `value` in the metric's own unit."""

    op: str  # "<=", "<", ">=", ">", "=="
    value: float
    unit: str  # the unit as written, "" for plain numbers
    text: str

    def holds(self, found: float) -> bool:
        """Tell whether `found` (same unit as `value`) is inside the bound; NaN never is."""
        return {
            "<=": found <= self.value,
            "<": found < self.value,
            ">=": found >= self.value,
            ">": found > self.value,
            "==": found == self.value,
        }[self.op]


@dataclass(frozen=True)
class Quantize:
    """How a precision is made from another file of the same model."""

    source: str  # precision it is made from
    how: str  # "static_qdq" or "float16"
    calibration: Path | None = None  # npz of float inputs, one array per model input
    per_channel: bool = True


@dataclass(frozen=True)
class ModelSpec:
    """One model: files by format and precision, or a `module:function` that builds them from a seed."""

    name: str
    task: str | None = None
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)  # absolute
    quantize: Mapping[str, Quantize] = field(default_factory=dict)  # ONNX only
    sha256: Mapping[str, str] = field(default_factory=dict)  # absolute path as text -> hex digest
    build: str | None = None  # "module:function", called as function(path, seed) to write an fp32 ONNX file
    seed: int = 0


@dataclass(frozen=True)
class DatasetSpec:
    """Where samples come from and how they are prepared.

    Either `file` (npz; arrays share their first dimension, the samples) or `generate` (seeded random
    inputs of the model's own shapes; `count` samples; no labels, so no accuracy).
    `inputs` maps model input -> array name; empty means: the only array that is not the labels, or arrays
    named as the inputs. `preprocess` maps a model format ("onnx", "tflite", "*" for all) to steps.
    """

    name: str
    file: Path | None = None
    sha256: str | None = None
    labels: str = "y"
    inputs: Mapping[str, str] = field(default_factory=dict)
    preprocess: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    count: int | None = None  # use only the first `count` samples; for generated data, how many
    generate: str | None = None  # "normal", "uniform" or "integers"
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # per sample, for free dimensions
    inputs_sha256: Mapping[str, str] = field(default_factory=dict)  # format -> digest of pre-processed tensors
    high: int = 2  # generated integer inputs (token ids) lie in 0 to high - 1


@dataclass(frozen=True)
class FrameworkSpec:
    """A framework as one value of the framework axis."""

    name: str  # registered name
    id: str  # word in the case id; differs from name when one framework appears with several options
    options: Mapping[str, Any] = field(default_factory=dict)
    python: Path | None = None  # interpreter of the environment it lives in; None: this one


@dataclass(frozen=True)
class ScenarioSpec:
    """A scenario with its bounds. A run ends when both minima are reached, or either maximum is."""

    kind: str = "single_stream"
    min_duration_s: float = 1.0
    max_duration_s: float = 60.0
    min_samples: int = 64
    max_samples: int | None = None
    warmup_s: float = 0.2
    warmup_samples: int = 5
    seed: int = 0
    boundary: str = "invoke"  # "invoke", "set_invoke_get" or "end_to_end"
    options: Mapping[str, Any] = field(default_factory=dict)  # of a vendor's scenario

    @property
    def word(self) -> str:
        """Return what tells scenarios of one benchmark apart: the kind, and the boundary unless it is `invoke`."""
        return self.kind if self.boundary == "invoke" else f"{self.kind}.{self.boundary}"


@dataclass(frozen=True)
class Tolerance:
    """How close outputs must be to the reference; every rule that is set must hold for every sample."""

    rtol: float | None = None  # elementwise, NumPy's rule: |a-b| <= atol + rtol*|b|
    atol: float | None = None
    max_abs: Limit | None = None
    sqnr_db: Limit | None = None
    cosine: Limit | None = None
    top1_agreement: Limit | None = None  # share of samples, the only rule over all samples
    bit_exact: bool = False


@dataclass(frozen=True)
class MaxDrop:
    """The largest accepted loss of top-1 against another precision of the same model and framework."""

    source: str  # precision
    points: float  # percentage points


@dataclass(frozen=True)
class Regression:
    """How much worse than the base revision a metric may be. Worse is what the metric's direction says.

    `margin` is relative (0.03 is 3 %), for accuracies absolute (0.005 is half a percentage point). A change of
    less than `ignore_below`, in the metric's own unit, is never a regression.
    """

    margin: float
    ignore_below: float = 0.0


@dataclass(frozen=True)
class Reference:
    """What outputs are compared with: another case of the same model (empty: the same value as the case's own)."""

    framework: str | None = None  # the word in the case id
    precision: str | None = None
    file: Path | None = None  # npz of outputs, name -> (samples, ...)


@dataclass(frozen=True)
class Expect:
    """What must hold for a case. `limits` maps a metric's name to its bounds."""

    limits: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    max_drop: MaxDrop | None = None
    equivalence: Mapping[str, Tolerance] = field(default_factory=dict)  # by precision, "*" for all
    placement: Mapping[str, Limit] = field(default_factory=dict)  # "cpu" or "int8" -> share of compute nodes
    compliance: tuple[str, ...] = ()  # "repeat_sample", "timed_outputs", "batch_invariance"
    regressions: Mapping[str, Regression] = field(default_factory=dict)  # by metric; empty: the session's default
    unchanged: Mapping[str, Tolerance] = field(default_factory=dict)  # by precision, "*" for all: against the base


@dataclass(frozen=True)
class Price:
    """A declared price of the machine, with its date, for cost per inference."""

    usd_per_hour: float
    date: str  # ISO day
    source: str = ""


@dataclass(frozen=True)
class BenchmarkSpec:
    """One [[benchmark]]: its axes, what is taken out or added, how it is measured and what must hold."""

    name: str
    model: tuple[str, ...]
    framework: tuple[FrameworkSpec, ...]
    precision: tuple[str, ...]
    device: tuple[str, ...]
    batch: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()  # empty: the framework's `threads` option, or its default
    scenario: tuple[ScenarioSpec, ...] = (ScenarioSpec(),)
    exclude: tuple[Mapping[str, Any], ...] = ()  # axis values + "reason"
    include: tuple[Mapping[str, Any], ...] = ()  # whole extra cases: model, framework, precision, device
    override: tuple[Mapping[str, Any], ...] = ()  # {"when": axis values, "set": keys of this class}
    dataset: str | None = None
    reference: Reference | None = None
    expect: Expect = field(default_factory=Expect)
    executed_precision: str | None = None  # acknowledges another executed precision than the axis says
    price: Price | None = None
    metrics: tuple[str, ...] = ()  # further metric functions, "module:function"
    preprocess: str | None = None  # "module:function", run (and in end_to_end timed) in the agent
    postprocess: str | None = None
    timeout_s: float = 120.0  # deadline of one stage on the target
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class SuiteSpec:
    """One suite file."""

    name: str
    path: Path
    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, DatasetSpec]
    benchmarks: tuple[BenchmarkSpec, ...]
    offered: Mapping[str, str] = field(default_factory=dict)  # devices of packages: name -> what installs it
