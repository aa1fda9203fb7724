"""Measurements made up for the metric tests: readings are the argument, everything else is plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics.api import Measurement, Samples
from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, ModelSpec, Price, ScenarioSpec, SuiteSpec

# The machines that run this are shared: how long one example took says nothing.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


def make_samples(
    sample_ns: Any = (100, 200, 300),
    *,
    blocks: Any = (0,),
    single_ns: Any = None,
    calls: int = 1,
    batch: int = 1,
    clock_ns: float = 1.0,
) -> Samples:
    readings = np.asarray(sample_ns, dtype=np.int64)
    singles = readings if single_ns is None else np.asarray(single_ns, dtype=np.int64)
    starts = np.asarray(blocks, dtype=np.int64)
    return Samples(readings, starts, singles, calls=calls, batch=batch, clock_ns=clock_ns)


def make_case(*, kind: str = "single_stream", task: str | None = None, price: Price | None = None) -> Case:
    model, framework = ModelSpec("digits", task=task), FrameworkSpec("onnxruntime", "onnxruntime")
    benchmark = BenchmarkSpec("classify", ("digits",), (framework,), ("fp32",), ("cpu",), price=price)
    suite = SuiteSpec("digits", Path("bench_digits.toml"), {"digits": model}, {}, (benchmark,))
    scenario = ScenarioSpec(kind=kind)
    return Case(suite, benchmark, model, framework, "fp32", "cpu", 1, None, scenario, "digits-onnxruntime-fp32-cpu")


def make_measurement(samples: Samples | None = None, **changes: Any) -> Measurement:
    case = make_case(**{key: changes.pop(key) for key in ("kind", "task", "price") if key in changes})
    plain = Measurement(case, samples, stages_ns={}, memory={}, model_bytes=None)
    return replace(plain, **changes)


@pytest.fixture
def samples() -> Callable[..., Samples]:
    """Return a maker of readings."""
    return make_samples


@pytest.fixture
def measurement() -> Callable[..., Measurement]:
    """Return a maker of measurements; kind, task and price go to the case."""
    return make_measurement
