"""The object behind the fixture `mlbench`: run one case, judge it, and draft its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mlbench import case_lease, references, registry, verdict, waivers
from pytest_mlbench.against_base import AgainstBase, Judged, facts_of, invalid
from pytest_mlbench.devices.api import Device, Remote
from pytest_mlbench.errors import BoardFailed, InvalidCase, MlbenchError, StageError, SuiteError, Unavailable
from pytest_mlbench.execute import Executed, Executor, variant
from pytest_mlbench.gate import compared_metrics
from pytest_mlbench.judge import judge
from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics import calling
from pytest_mlbench.metrics.api import MetricFunction
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.provenance import Side
from pytest_mlbench.record import CheckResult, Metric, Outcome, Record
from pytest_mlbench.stores.runfile import encode_samples

if TYPE_CHECKING:
    from pytest_mlbench.session import MlbenchSession

T = TypeVar("T")
_WORST_FIRST: tuple[Outcome, ...] = ("invalid", "fail", "insufficient")


class Bench:
    """One case bound to its device. `run()` may be called once."""

    KEY: ClassVar[pytest.StashKey[Bench]] = pytest.StashKey()

    def __init__(self, session: MlbenchSession, case: Case, device: Device, model: Path | None) -> None:
        self.case = case
        self.device = device  # of a choice, the one that the lease chose
        self.record: Record | None = None
        self.resumed = False
        self._session = session
        self._given = device
        self._held: case_lease.Held | None = None
        self._model = model
        self._started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._begin = perf_counter()
        self._outputs: Mapping[str, npt.NDArray[Any]] | None = None

    @property
    def outputs(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the outputs of the accuracy pass: name -> (samples, ...), dequantised."""
        if self._outputs is None and self.resumed:
            self._outputs = self._under_lease(self._executor(self.case).outputs)
        if self._outputs is None:
            raise MlbenchError("mlbench.outputs is there after mlbench.run()")
        return self._outputs

    def run(self, *, reference: Mapping[str, npt.NDArray[Any]] | None = None) -> Record:
        """Measure the case, hold the suite's expectations, and return its record for further assertions.

        `reference` gives outputs to compare with, in place of the suite's. The test fails at the first call
        when an expectation does not hold, is skipped when the framework is not installed, and names the
        stage when one fails.
        """
        if self.record is not None:
            raise MlbenchError("mlbench.run() was called twice; one test is one measurement")
        failure = ""
        try:
            self.record = self._measured(reference)
        except Unavailable as error:
            self.record = self._draft("skip", str(error))
        except StageError as error:
            self.record = self._draft("error", str(error), stage=error.stage)
            if isinstance(error, BoardFailed):
                self.record = self._of_board(self.record, error)
            failure = f"error({error.stage}): {self.case.id}: {error.message}\n{error.detail.strip()}".strip()
        except SuiteError as error:
            self.record = self._draft("error", str(error), stage="suite")
            failure = f"error(suite): {self.case.id}: {error}"
        except InvalidCase as error:
            self.record = self._draft("invalid", str(error))
        except OSError as error:  # of the files we keep: the cache, the locks, an agent's log
            reason = (
                f"{error}; free space or make the folder writable, or choose another one: "
                "MLBENCH_CACHE for made files, MLBENCH_STATE for locks, TMPDIR for temporary ones"
            )
            self.record = self._draft("error", f"files: {reason}", stage="files")
            failure = f"error(files): {self.case.id}: {reason}"
        if self._held is not None and not self.resumed:
            self.record = self._of_lease(self.record, self._held)
        # Raised here and not where it was caught, so that pytest prints the message and no chain behind it.
        if self.record.outcome == "skip":
            pytest.skip(self.record.reason)
        if self.record.outcome != "pass":
            pytest.fail(failure or f"{self.record.outcome}: {self.case.id}:\n{self.record.reason}", pytrace=False)
        return self.record

    def _of_board(self, record: Record, error: BoardFailed) -> Record:
        """Keep what was tried to bring a board back; one that nothing brought back is out of use from now on."""
        if error.is_lost:
            self._session.quarantine.add(self.device.name, self.case.id, str(error))
        recovered = [dict(step) for step in error.happened]
        return replace(record, target={"device": self.device.name, "recovered": recovered})

    def _of_lease(self, record: Record, held: case_lease.Held) -> Record:
        """Keep what was held, and what it took to keep a machine of its own going."""
        target, steps = record.target, [dict(step) for step in held.recovery.happened]
        if steps:
            target = {"device": self.device.name, **target, "recovered": steps}
        return replace(record, lease=held.to_json(), target=target)

    def traffic(self) -> list[tuple[str, str]]:
        """Return what went over the line to a machine of its own, as a titled section of a report; bounded."""
        text = self.device.transcript() if isinstance(self.device, Remote) else ""
        return [(f"mlbench: requests to {self.device.name}", text)] if text else []

    # --- parts -----------------------------------------------------------------------------------------

    def _executor(self, case: Case, side: Side | None = None) -> Executor:
        gate = self._session.gate
        if gate is not None and side is None:
            side = gate.side("candidate")
        pythons = self._session.options.pythons if self.device.is_host else {}  # they are this machine's
        python = case.framework.python or pythons.get(case.framework.name)
        case = replace(case, framework=replace(case.framework, python=python))
        framework = self._session.registry.frameworks[case.framework.name]
        model = (
            self._model
            if (side is None or side.name == "candidate")
            and (case.model, case.framework.name, case.precision)
            == (self.case.model, self.case.framework.name, self.case.precision)
            else None
        )
        progress = self._session.progress
        preparation = Preparation(
            case,
            framework,
            self.device if case.device == self.case.device else self._session.registry.device(case.device),
            lambda stage, share: progress.update(self.case.id, stage, share),
            model,
            side,
        )
        return Executor(preparation, self._session.registry)

    def _under_lease(self, work: Callable[[], T]) -> T:
        with case_lease.leased(
            self._given,
            self.case.id,
            timeout_s=self._session.options.lease_timeout_s,
            waiting=self._session.progress.say,
            quarantined=self._session.quarantine.check,
        ) as held:
            self._held, self.device = held, held.device
            return held.recovery.run(work, self._session.options.lease_timeout_s)

    def _measured(self, reference: Mapping[str, npt.NDArray[Any]] | None) -> Record:
        if reference is not None and not {"*", self.case.precision} & set(self.case.benchmark.expect.equivalence):
            raise SuiteError(
                f"mlbench.run(reference=...) is compared by nothing: say how close {self.case.precision} must be, "
                f"for example expect.equivalence.{self.case.precision} = {{ rtol = 1e-4, atol = 1e-5 }}",
                file=self.case.suite.path,
                key=f"{self.case.benchmark.name}.expect.equivalence",
            )
        return self._under_lease(lambda: self._measured_alone(reference))

    def _measured_alone(self, reference: Mapping[str, npt.NDArray[Any]] | None) -> Record:
        executor = self._executor(self.case)
        identity = executor.preparation.identity()
        resumed = self._session.resumed(self.case.id, identity)
        if resumed is not None:
            self.resumed = True
            return resumed
        executed = executor.run()
        self._outputs = executed.measurement.outputs
        metrics = self._metrics(executed)
        checks = judge(
            self.case,
            executed,
            metrics,
            lambda: reference if reference is not None else self._reference(),
            lambda other: self._executor(other).outputs(),
        )
        judged = self._against_base(executor, executed, metrics)
        if judged is not None:
            checks += judged.checks
        record = self._judged(executed, metrics, checks, identity)
        return record if judged is None else self._with_verdict(record, judged)

    def _against_base(self, executor: Executor, executed: Executed, metrics: list[Metric]) -> Judged | None:
        gate = self._session.gate
        if gate is None:
            return None
        if self._model is not None:
            reason = "the fixture mlbench_model gives the candidate's model; the base's cannot be had from it"
            found = tuple(invalid(name, reason, metrics) for name in compared_metrics(self.case, 0.0))
            return Judged(found, facts_of(gate.checkout))
        functions = self._functions()
        return AgainstBase(gate, executor, executed, metrics, functions, self._executor).judged()

    def _with_verdict(self, record: Record, judged: Judged) -> Record:
        """Add the comparisons to a record, and what they make of its outcome."""
        today = datetime.now(timezone.utc).date()
        comparisons = tuple(waivers.apply(one, self._session.waivers, self.case.id) for one in judged.comparisons)
        gate = self._session.gate
        strict = gate is not None and gate.options.strict
        told = verdict.lines(self.case.id, comparisons, judged.facts, today)
        found = verdict.outcome(comparisons, strict=strict)
        outcome: Outcome = next((word for word in _WORST_FIRST if word in (record.outcome, found)), "pass")
        reason = "\n".join(filter(None, [record.reason, *(told if found != "pass" else ())]))
        return replace(record, outcome=outcome, reason=reason, comparisons=comparisons, base=judged.facts)

    def _reference(self) -> Mapping[str, npt.NDArray[Any]] | None:
        wanted = self.case.benchmark.reference
        if wanted is None:
            raise SuiteError(
                'compares with nothing: the benchmark has no "reference", nor was mlbench.run(reference=...) given one',
                file=self.case.suite.path,
                key=f"{self.case.benchmark.name}.expect.equivalence",
            )
        if wanted.file is not None:
            return references.from_file(wanted.file, self.case.suite.path)
        other = self._reference_case()
        return None if other is None or other.id == self.case.id else self._executor(other).outputs()

    def _reference_case(self) -> Case | None:
        wanted = self.case.benchmark.reference
        if wanted is None or wanted.file is not None:
            return None
        other = variant(self.case, framework=wanted.framework, precision=wanted.precision)
        takes = getattr(self.device, "frameworks", ())
        if takes and other.framework.name not in takes:  # a board's reference is computed on the host
            return variant(other, device=case_lease.HOST)
        return other

    def _functions(self) -> dict[str, MetricFunction]:
        functions = dict(self._session.registry.metrics())
        folder = self.case.suite.path.parent
        for reference in self.case.benchmark.metrics:
            functions[reference] = registry.function(reference, folder)
        return functions

    def _metrics(self, executed: Executed) -> list[Metric]:
        found: dict[str, Metric] = {}
        for name, function in self._functions().items():
            for metric in calling.call(name, function, executed.measurement):
                if metric.name in found:
                    message = f"metric function {name} gave {metric.name}, which is there already; rename it"
                    raise StageError(calling.STAGE, message)
                found[metric.name] = metric
        return list(found.values())

    def _draft(self, outcome: Outcome, reason: str, *, stage: str = "") -> Record:
        return Record(
            case=self.case.id,
            node="",
            axes=dict(self.case.axes),
            outcome=outcome,
            reason=reason,
            stage=stage,
            started=self._started,
            wall_s=perf_counter() - self._begin,
        )

    def _judged(self, executed: Executed, metrics: list[Metric], checks: list[CheckResult], identity: str) -> Record:
        bad = [check for check in checks if check.outcome != "pass"]
        outcome: Outcome = next((word for word in _WORST_FIRST if any(c.outcome == word for c in bad)), "pass")
        reason = "\n".join(f"{check.name}: {check.message}" for check in bad)
        samples = executed.measurement.samples
        other = self._reference_case()
        kept: dict[str, Any] = {}
        if samples is not None and samples.sample_ns.size:
            kept = {
                "sample_ns": encode_samples(samples.sample_ns),
                "block_starts": np.asarray(samples.block_starts).tolist(),
                "calls": samples.calls,
                "batch": samples.batch,
                "clock_ns": samples.clock_ns,
            }
            if samples.calls > 1 and len(samples.single_ns):  # else they are the same readings
                kept["single_ns"] = encode_samples(samples.single_ns)
        return replace(
            self._draft(outcome, reason),
            metrics=tuple(metrics),
            checks=tuple(checks),
            samples=kept,
            scenario=dict(executed.scenario),
            placement=dict(executed.placement),
            stages_ns=dict(executed.measurement.stages_ns),
            reference=other.id if other is not None else "",
            target=dict(executed.target),
            hashes={**executed.hashes, "identity": identity},
            environment=dict(executed.environment),
            fingerprint=executed.fingerprint,
        )
