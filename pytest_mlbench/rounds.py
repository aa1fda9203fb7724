"""Take paired rounds: a fresh process of base and of candidate, timed in turn in short blocks on one machine."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pytest_mlbench import fitness
from pytest_mlbench.compare import Pairs
from pytest_mlbench.deployment import Deployment
from pytest_mlbench.devices.api import Accelerator, Remote
from pytest_mlbench.errors import InvalidCase, StageError, SuiteError, Unavailable
from pytest_mlbench.execute import Executor
from pytest_mlbench.measure import AgentTarget
from pytest_mlbench.metrics import calling, latency
from pytest_mlbench.metrics.api import Measurement, MetricFunction, Samples
from pytest_mlbench.record import Metric
from pytest_mlbench.scenarios.api import BLOCK_NS, BLOCK_SAMPLES, Block, WarmUp
from pytest_mlbench.scenarios.blocks import joined

# Blocks of one process in one round. The best of them is its value: what else runs on the machine only adds time.
BLOCKS, FEWEST_BLOCKS = 4, 2
OF_BEST_BLOCK = ("latency.min", "latency.mean", "latency.p50", "throughput")
_TAILS = ("latency.p90", "latency.p99", "latency.p90.upper99", "latency.p99.upper99")

SideName = Literal["base", "candidate"]
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Round:
    """One fresh process a side: the value of each metric, which side began, and what disturbed the round."""

    first: SideName
    base: Values
    candidate: Values
    troubles: tuple[str, ...]
    state: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what a record keeps of a round; its values stand in the comparisons."""
        return {"first": self.first, "troubles": list(self.troubles), "state": dict(self.state)}


def pairs(taken: Sequence[Round], metric: str) -> Pairs:
    """Return one metric's values over rounds."""
    return Pairs(
        tuple(one.base.get(metric) for one in taken),
        tuple(one.candidate.get(metric) for one in taken),
    )


@dataclass
class Pairing:
    """Two revisions of one case, and how their rounds are taken.

    `seconds` bounds the measuring of one side over `planned` rounds; slow models get fewer blocks, never fewer
    than two, so that drift inside a round falls on both sides.
    """

    base: Executor
    candidate: Executor
    metrics: Sequence[str]
    functions: Mapping[str, MetricFunction]
    rng: random.Random
    seconds: float
    planned: int
    progress: Callable[[str, float], None] = field(default=lambda stage, share: None)
    calls: int | None = None  # in one sample, the same for both sides in all rounds
    blocks: int = BLOCKS
    sources: dict[SideName, Mapping[str, str]] = field(default_factory=dict)  # what each side imported of its own
    unmeasured: dict[str, str] = field(default_factory=dict)  # metric -> why a round had no value of it
    _processor: str | None = None

    def take(self, number: int, stage: str) -> list[Round]:
        """Take `number` rounds; which side begins alternates, from a side drawn by the seed."""
        begins: SideName = self.rng.choice(("base", "candidate"))
        taken = []
        for index in range(number):
            self.progress(stage, index / number)
            taken.append(self._round(begins))
            begins = "candidate" if begins == "base" else "base"
        return taken

    def _round(self, first: SideName) -> Round:
        order: tuple[SideName, SideName] = (first, "candidate" if first == "base" else "base")
        if self.candidate.preparation.framework.on_board:
            return self._round_of_board(order)
        executors = {"base": self.base, "candidate": self.candidate}
        before, read = self._probe(), self._reading()
        with ExitStack() as stack:
            sides: dict[SideName, _Process] = {}
            for name in order:
                with _of(name):
                    deployment = stack.enter_context(executors[name].deployed())
                    self.sources[name] = deployment.sources
                    sides[name] = _Process(executors[name], deployment)
                    self._plan(sides[name].warm_up())
            for block in range(self.blocks):
                # ABBA: a steady drift of the machine falls on both sides alike.
                for name in order if block % 2 == 0 else reversed(order):
                    with _of(name):
                        sides[name].time_block(self.calls or 1)
            singles = (self.calls or 1) > 1 and set(_TAILS) & set(self.metrics)
            for name in order if singles else ():
                with _of(name):
                    sides[name].time_singles()
            values = {}
            for name in order:
                with _of(name):
                    values[name] = self._values(sides[name])
            read_after = self._reading()  # while the last block still shows in clocks and heat
            after = self._probe() if self._is_elsewhere else None  # what ended there is counted with no process of ours
        self._processor = self._processor or before.processor
        # Rounds are compared with each other, so what counts is the processor of the first.
        state = fitness.between(replace(before, processor=self._processor), after or self._probe())
        threads, cores = int(self.candidate.preparation.options.get("threads") or 1), self._cores()
        told = [*fitness.troubles(state, cores, min(threads, cores)), *self._unfit(read, read_after)]
        both = {"accelerator": {"before": read, "after": read_after}} if read else {}
        return Round(first, values["base"], values["candidate"], tuple(told), {**asdict(state), **both})

    def _reading(self) -> Mapping[str, Any]:
        """Read the state of the device that computes beside the processor; {} where the processor does."""
        device = self.candidate.preparation.device
        return dict(device.reading()) if isinstance(device, Accelerator) else {}

    def _unfit(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        device = self.candidate.preparation.device
        return device.unfit(before, after) if isinstance(device, Accelerator) else []

    @property
    def _is_elsewhere(self) -> bool:
        return isinstance(self.candidate.preparation.device, Remote)

    def _probe(self) -> fitness.Probe:
        """Read the counters of the machine that computes."""
        device = self.candidate.preparation.device
        return fitness.probe(*device.machine()) if isinstance(device, Remote) else fitness.probe()

    def _cores(self) -> int:
        """Return the cores that a process may use on the machine that computes."""
        device = self.candidate.preparation.device
        return int(device.facts().get("cores_allowed") or 1) if isinstance(device, Remote) else _cores()

    def _round_of_board(self, order: tuple[SideName, SideName]) -> Round:
        """Flash and time one side, then the other: there is one board, and its time is its own."""
        executors = {"base": self.base, "candidate": self.candidate}
        before, values = fitness.probe(), {}
        for name in order:
            with _of(name), executors[name].deployed() as deployment:
                self.sources[name] = deployment.sources
                process = _Process(executors[name], deployment)
                self._plan(process.warm_up())
                for _ in range(self.blocks):
                    process.time_block(self.calls or 1)
                if (self.calls or 1) > 1 and set(_TAILS) & set(self.metrics):
                    process.time_singles()
                values[name] = self._values(process)
        state = fitness.between(before, fitness.probe())
        return Round(order[0], values["base"], values["candidate"], (), asdict(state))

    def _plan(self, warm: WarmUp) -> None:
        """Settle how many calls make a sample and how many blocks a process gets, once, from the first warm-up."""
        if self.calls is not None:
            return
        self.calls = warm.calls
        block_s = max(BLOCK_NS, BLOCK_SAMPLES * warm.calls * warm.call_ns) / 1e9
        if self.planned * BLOCKS * block_s > self.seconds:
            self.blocks = FEWEST_BLOCKS

    def _values(self, process: _Process) -> dict[str, float | None]:
        found: dict[str, float | None] = dict.fromkeys(self.metrics)
        for name in self.metrics:
            if name in OF_BEST_BLOCK:
                metrics = [_named(latency.measure(one), name) for one in process.measurements()]
                values = [self._value(metric) for metric in metrics if metric is not None]
                known = [value for value in values if value is not None]
                if known:
                    found[name] = max(known) if name == "throughput" else min(known)
        rest = set(self.metrics) - set(OF_BEST_BLOCK)
        if rest:
            found |= self._of_functions(process.measurement(), rest)
        return found

    def _of_functions(self, whole: Measurement, wanted: set[str]) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        failure: StageError | None = None
        for name, function in self.functions.items():
            try:
                given = calling.call(name, function, whole)
            except StageError as error:  # it may need what a round has not, outputs for one
                failure = failure or error
                continue
            found |= {metric.name: self._value(metric) for metric in given if metric.name in wanted}
        if failure is not None and wanted - set(found):
            message = f"{failure.message} (in a round of the comparison, which takes no outputs and has no labels)"
            raise StageError(failure.stage, message, failure.detail)
        return found

    def _value(self, metric: Metric) -> float | None:
        if metric.value is None:
            self.unmeasured[metric.name] = metric.reason
        return metric.value


class _Process:
    """One side's process in one round."""

    def __init__(self, executor: Executor, deployment: Deployment) -> None:
        self._executor = executor
        self._deployment = deployment
        self._scenario = executor.case.scenario
        self._target = AgentTarget(deployment.agent, executor.case.benchmark.timeout_s)
        self._blocks: list[Block] = []
        self._singles: list[Block] = []
        self._calls = 1
        self._clock_ns = 0.0
        self._counters: Mapping[str, Any] | None = None

    def warm_up(self) -> WarmUp:
        warm = self._target.warm_up(self._scenario.warmup_s, self._scenario.warmup_samples)
        self._clock_ns = warm.clock_ns
        return warm

    def time_block(self, calls: int) -> None:
        self._calls = calls
        self._target.warm_up(0.0, 1)  # the other side ran in between: its data, not ours, is in the caches
        self._blocks.append(self._target.block(calls, max_samples=1 << 31))

    def time_singles(self) -> None:
        self._singles.append(self._target.block(1, max_samples=1 << 31))

    def measurements(self) -> list[Measurement]:
        """Return one measurement a block."""
        return [self._measurement([block], []) for block in self._blocks]

    def measurement(self) -> Measurement:
        """Return what the whole process measured."""
        return self._measurement(self._blocks, self._singles)

    def _measurement(self, blocks: list[Block], singles: list[Block]) -> Measurement:
        sample_ns, starts = joined(blocks)
        single_ns = sample_ns if self._calls == 1 else np.zeros(0, dtype=np.int64)
        if singles:
            single_ns, _ = joined(singles)
        samples = Samples(sample_ns, starts, single_ns, self._calls, self._executor.case.batch, self._clock_ns)
        if self._counters is None:
            self._counters = self._executor.counters(self._deployment)
        return self._executor.measurement(self._deployment, samples, self._counters or {})


@contextmanager
def failures_of_base() -> Iterator[None]:
    """Make a failure of the base's own process one of the comparison: what the candidate measured stands."""
    try:
        yield
    except StageError as error:
        raise InvalidCase(f"the base failed in stage {error}") from None
    except (SuiteError, Unavailable) as error:
        raise InvalidCase(f"the base cannot be run: {error}") from None


def _of(name: SideName) -> AbstractContextManager[None]:
    """Let a failure of the base's process be one of the comparison, and the candidate's one of the case."""
    return failures_of_base() if name == "base" else nullcontext()


def _named(metrics: Sequence[Metric], name: str) -> Metric | None:
    return next((metric for metric in metrics if metric.name == name), None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
