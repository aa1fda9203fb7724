"""Run one case on its device: model file, agent, timed pass, accuracy pass, proof. Judging comes later."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench import assets, deploy, environment, measure, references, registry
from pytest_mlbench.checks import placement
from pytest_mlbench.deployment import Deployer, Deployment
from pytest_mlbench.devices.api import Accelerator, Remote
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.matrix import Case
from pytest_mlbench.measure import ComplianceData
from pytest_mlbench.metrics import emulated
from pytest_mlbench.metrics.api import Measurement, Samples
from pytest_mlbench.models import ModelFile
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.scenarios.api import Passes


@dataclass(frozen=True)
class Executed:
    """Everything one run of a case yielded."""

    measurement: Measurement
    compliance: ComplianceData
    placement: Mapping[str, Any]
    scenario: Mapping[str, Any]
    target: Mapping[str, Any]
    hashes: Mapping[str, str]
    environment: Mapping[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class _Taken:
    """What the agent gave, before it is put in order."""

    passes: Passes
    counters: Mapping[str, Any]
    outputs: Mapping[str, npt.NDArray[Any]]
    accuracy_ns: int
    compliance: ComplianceData
    proof: Mapping[str, Any]
    told: dict[str, Any]  # what the session knows of its target, asked last


class Executor:
    """Runs one prepared case."""

    def __init__(self, preparation: Preparation, scenarios: registry.Registry) -> None:
        self.preparation = preparation
        self.case = preparation.case
        self._scenarios = scenarios
        self._framework = preparation.framework
        self._progress = preparation.progress
        self._suite = preparation.suite
        self._deadline = self.case.benchmark.timeout_s

    def outputs(self) -> dict[str, npt.NDArray[Any]]:
        """Return this case's outputs over the data set, from the cache or by an accuracy pass alone."""
        self.preparation.ready()
        key = self.preparation.key()
        found = references.kept(key) if self.preparation.covers_outputs else None
        if found is not None:
            return found
        self._progress("reference", 0.0)
        with self.deployed() as deployment:
            outputs = measure.accuracy_pass(deployment.agent, self._deadline)
        if self.preparation.covers_outputs:
            references.keep(key, outputs)
        return outputs

    def run(self) -> Executed:
        """Measure the case. Stages in order: model, start, inputs, load, first, warm-up, measure, accuracy, proof."""
        artefact = self.preparation.ready()
        before = self._state()
        with self.deployed() as deployment:
            taken = self._taken(deployment)
        if self.preparation.covers_outputs:
            references.keep(self.preparation.key(), taken.outputs)
        summary = {**placement.summarise(taken.proof["nodes"]), "source": taken.proof["source"]}
        summary["notes"] = taken.proof["notes"]
        if taken.proof["reason"]:
            summary["reason"] = taken.proof["reason"]
        samples = self.preparation.samples
        measurement = self.measurement(
            deployment,
            taken.passes.samples,
            taken.counters,
            outputs=taken.outputs,
            labels=samples.labels if samples else None,
            facts={
                "placement": summary,
                "versions": dict(deployment.loaded.versions),
                "format": self._framework.format,
            },
        )
        target = self._target(deployment, taken.told)
        return Executed(
            measurement=measurement,
            compliance=taken.compliance,
            placement=summary,
            scenario=self._happened(taken),
            target=target,
            hashes=self._hashes(deployment, artefact),
            environment={"before": before, "after": self._state()},
            fingerprint=self._fingerprint(target),
        )

    def measurement(
        self, deployment: Deployment, samples: Samples, counters: Mapping[str, Any], **more: Any
    ) -> Measurement:
        """Put together what a metric function is given."""
        facts = {**more.pop("facts", {}), "emulated": self.emulated}
        facts["untimed"] = str(deployment.loaded.clock.get("reason", ""))
        facts["on_board"] = self._framework.on_board
        if isinstance(self.preparation.device, Accelerator):
            facts["places"] = self.preparation.device.places
            facts["device_memory"] = dict(counters.get("device_memory") or {})
        return Measurement(
            facts=facts,
            case=self.case,
            samples=samples,
            stages_ns=dict(deployment.stages_ns),
            memory={} if self._framework.on_board else self._memory(deployment, counters),
            model_bytes=self.size(),
            **more,
        )

    def counters(self, deployment: Deployment) -> dict[str, Any]:
        """Ask the agent for memory and processor use so far, and the device for what the process holds there."""
        found: dict[str, Any] = deployment.agent.call("counters", "counters", self._deadline)
        device = self.preparation.device
        if isinstance(device, Accelerator) and not found.get("device_memory"):
            used = device.process_bytes(int(deployment.agent.hello["pid"]))
            source = "NVML, what the process holds after the timed pass"
            found["device_memory"] = {"peak_bytes": used, "source": source}
        return found

    def _memory(self, deployment: Deployment, counters: Mapping[str, Any]) -> dict[str, int]:
        return measure.memory_of(deployment.baseline, counters, deployment.loaded.memory)

    def _taken(self, deployment: Deployment) -> _Taken:
        """Take everything that needs the agent. The timed pass comes before the outputs, which need memory."""
        agent = deployment.agent
        target = measure.AgentTarget(agent, self._deadline)
        wanted = self.case.benchmark.expect.compliance
        untimed = str(deployment.loaded.clock.get("reason", ""))
        if untimed and wanted:
            message = f"expect.compliance needs times: {untimed}; take it out, or measure in performance mode"
            raise SuiteError(message, file=self._suite, key=f"{self.case.benchmark.name}.expect.compliance")
        agent.call("measure", "keep_timed", self._deadline, keep="timed_outputs" in wanted)
        passes = nothing_timed(self.case.batch, untimed) if untimed else self._timed(target)
        counters = self.counters(deployment)
        self._progress("accuracy", 0.0)
        begin = perf_counter_ns()
        outputs = measure.accuracy_pass(agent, self._accuracy_deadline(passes, deployment.fitted["samples"]))
        accuracy_ns = perf_counter_ns() - begin
        compliance = measure.compliance(agent, target, wanted, passes.samples.calls)
        self._progress("proof", 0.0)
        proof = agent.call("placement", "placement", self._deadline)
        told = agent.call("placement", "facts", self._deadline)
        return _Taken(passes, counters, outputs, accuracy_ns, compliance, proof, told)

    def _seeds(self) -> dict[str, int]:
        """Return every seed that had a part in this run: of the order of samples, generated data, a built model."""
        seeds = {"order": self.case.scenario.seed}
        if self.preparation.dataset.file is None:
            seeds["dataset"] = self.preparation.dataset.seed
        if self.case.model.build is not None:
            seeds["model"] = self.case.model.seed
        return seeds

    def _timed(self, target: measure.AgentTarget) -> Passes:
        scenario, spec = self._scenarios.scenario(self.case.scenario.kind), self.case.scenario
        if self.emulated:
            # Instructions depend on the inputs: a count of samples, not a time here, makes two runs the same.
            few = max(1, spec.min_samples)
            spec = replace(spec, min_duration_s=0.0, warmup_s=0.0, max_samples=min(few, spec.max_samples or few))
        return scenario.run(target, spec, self.case.batch, lambda share: self._progress("measure", share))

    def emulated_time(self) -> float | None:
        """Return the metric emulated.time of a fresh process: what a comparison with a base needs of it."""
        with self.deployed() as deployment:
            samples = self._timed(measure.AgentTarget(deployment.agent, self._deadline)).samples
            found = emulated.measure(self.measurement(deployment, samples, {"memory": {}}))
        return found[0].value if found else None

    def _accuracy_deadline(self, passes: Passes, samples: int) -> float:
        """Return the stage's deadline plus ten times what the calls should take."""
        known = passes.samples.call_ns
        call_s = float(known.mean()) / 1e9 if known.size else 0.0
        return self._deadline + 10 * call_s * samples / self.case.batch

    def deployed(self) -> AbstractContextManager[Deployment]:
        """Start an agent, load the model in it and run it once; leaving ends the agent.

        Raises InvalidCase when the agent imported modules of this side from elsewhere.
        """
        return Deployer(self.preparation).deployed()

    def _state(self) -> dict[str, Any]:
        """Return the state of the machine that computes."""
        device = self.preparation.device
        if isinstance(device, Accelerator):
            return {**environment.state(), "accelerator": dict(device.reading())}
        return dict(device.state()) if isinstance(device, Remote) else environment.state()

    # --- facts -------------------------------------------------------------------------------------------

    @property
    def emulated(self) -> bool:
        """Tell whether the device counts instructions, so that its time is none of hardware."""
        return bool(getattr(self.preparation.device, "emulated", False))

    def size(self) -> int | None:
        """Return the bytes of the files that are loaded; None when the board has the model already."""
        artefact = self.preparation.ready()
        if artefact.is_in_board:
            return None
        size = artefact.path.stat().st_size
        if artefact.path.suffix == ".onnx":
            others = assets.external_data(artefact.path, suite=self._suite, root=artefact.path.parent)
            size += sum(other.stat().st_size for other in others)
        return size

    def _happened(self, taken: _Taken) -> dict[str, Any]:
        """Return the scenario as asked for and as it happened."""
        scenario = self.case.scenario
        happened = {
            **taken.passes.facts,
            "accuracy_ns": taken.accuracy_ns,
            "compliance_ns": taken.compliance.duration_ns,
            "used": taken.counters["used"],
            "seeds": self._seeds(),
        }
        return {**vars(scenario), "options": dict(scenario.options), "happened": happened}

    def _target(self, deployment: Deployment, told: dict[str, Any]) -> dict[str, Any]:
        """Return what computed: the agent's own word, and the device's. Of a board, what it told itself."""
        versions, device = dict(deployment.loaded.versions), self.preparation.device
        if self._framework.on_board:
            clock = deployment.loaded.clock
            recovered = told.pop("recovered", [])
            return {
                "device": device.name,
                **device.facts(),
                "clock": clock["name"],
                "clock_resolution_ns": clock["tick_ns"],
                "emulated": self.emulated,
                "firmware": dict(told),
                "recovered": recovered,
                "versions": {name: version for name, version in versions.items() if name != "numpy"},
                "agent": dict(deployment.agent.hello),
            }
        return {**deployment.agent.hello, **device.facts(), "device": device.name, "versions": versions}

    def _hashes(self, deployment: Deployment, artefact: ModelFile) -> dict[str, str]:
        """Return the hash of everything that was measured or had a part in it."""
        prepared = self.preparation
        return {
            "suite": assets.sha256_of(self._suite),
            "model": prepared.source.sha256,
            "loaded": "" if artefact.is_in_board else assets.sha256_of(artefact.path),
            "inputs": deployment.fitted["digest"],
            "dataset": prepared.samples.sha256 if prepared.samples else "",
            "agent": assets.key_of(*sorted(deploy.agent_sources(self._framework, prepared.device).items())),
            **{f"code.{name}": origin["sha256"] for name, origin in deployment.origins.items()},
            **{f"code.{name}": digest for name, digest in prepared.source.sources.items()},
        }

    def _fingerprint(self, target: Mapping[str, Any]) -> str:
        """Return the hash of the facts that must match before two records may be compared."""
        facts: tuple[str, ...] = ("device", "node", "processor", "machine", "cores_allowed", "python")
        if self._framework.on_board:  # whatever machine it is wired to
            facts = ("device", "clock", "clock_resolution_ns", "emulated", *self.preparation.device.facts())
        if isinstance(self.preparation.device, Accelerator):
            facts = (*facts, "gpu_name", "gpu_driver")
        return environment.fingerprint(
            {
                "target": {name: target.get(name) for name in facts},  # a user's device need not tell all of them
                "versions": target["versions"],
                "options": self.preparation.options,
                "scenario": vars(self.case.scenario),
                "axes": self.case.axes,
            }
        )


def nothing_timed(batch: int, reason: str) -> Passes:
    """Return the timed pass of a target that cannot be timed."""
    none = np.zeros(0, dtype=np.int64)
    return Passes(Samples(none, none, none, 1, batch, 0.0), {"untimed": reason})


def variant(
    case: Case,
    *,
    framework: str | None = None,
    precision: str | None = None,
    batch: int | None = None,
    device: str | None = None,
) -> Case:
    """Return the case of the same model with another framework (its word in the case id), precision, batch or device.

    Raises SuiteError when the benchmark's framework axis has no such word.
    """
    chosen = case.framework
    if framework is not None:
        axis = case.benchmark.framework
        matching = [spec for spec in axis if framework == spec.id] or [spec for spec in axis if framework == spec.name]
        if not matching:
            known = ", ".join(spec.id for spec in case.benchmark.framework)
            raise SuiteError(f"reference framework {framework!r} is not among {known}", file=case.suite.path)
        chosen = matching[0]
    precision, device = precision or case.precision, device or case.device
    axes = (case.model.name, case.framework.id, case.precision, case.device)
    rest = case.param[len("-".join(axes)) :]
    param = "-".join((case.model.name, chosen.id, precision, device)) + rest
    batch = batch or case.batch
    return replace(case, framework=chosen, precision=precision, batch=batch, device=device, param=param)
