"""Expand a benchmark into cases: model x framework x precision x device (x batch, threads, scenario). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, ModelSpec, ScenarioSpec, SuiteSpec


@dataclass(frozen=True)
class Case:
    """One expanded combination. `benchmark` is the benchmark with this case's overrides already applied."""

    suite: SuiteSpec
    benchmark: BenchmarkSpec
    model: ModelSpec
    framework: FrameworkSpec
    precision: str
    device: str
    batch: int
    threads: int | None
    scenario: ScenarioSpec
    param: str  # "digits_cnn-onnxruntime-int8-cpu": pytest's parameter id
    skip: str | None = None  # reason of an exclusion

    @property
    def id(self) -> str:
        """Return the case id used in records and history: `digits/classify[...]`, free of paths."""
        return f"{self.suite.name}/{self.benchmark.name}[{self.param}]"

    @property
    def axes(self) -> dict[str, object]:
        """Return the value of each axis, as kept in the record."""
        return {
            "model": self.model.name,
            "framework": self.framework.id,
            "precision": self.precision,
            "device": self.device,
            "batch": self.batch,
            "threads": self.threads,
            "scenario": self.scenario.kind,
        }
