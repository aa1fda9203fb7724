"""Run one case on its device: model file, agent, timed pass, accuracy pass, proof. Judging comes later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any

import numpy.typing as npt

from pytest_mlbench import assets, deploy, environment, measure, provenance, references, registry
from pytest_mlbench.checks import placement
from pytest_mlbench.errors import InvalidCase, SuiteError
from pytest_mlbench.matrix import Case
from pytest_mlbench.measure import ComplianceData
from pytest_mlbench.metrics.api import Measurement, Samples
from pytest_mlbench.models import ModelFile
from pytest_mlbench.preparation import GENERATED, Preparation
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
class Deployment:
    """The case's model, loaded in a fresh agent and given its samples; it ends with the agent."""

    agent: deploy.Agent
    loaded: deploy.Loaded
    fitted: Mapping[str, Any]
    baseline: Mapping[str, Any]
    stages_ns: Mapping[str, int]
    origins: Mapping[str, Mapping[str, str]]  # of the user's own pre- and post-processing
    sources: Mapping[str, str]  # module -> file of what was imported and is not installed; told for a side only


@dataclass(frozen=True)
class _Taken:
    """What the agent gave, before it is put in order."""

    passes: Passes
    counters: Mapping[str, Any]
    outputs: Mapping[str, npt.NDArray[Any]]
    accuracy_ns: int
    compliance: ComplianceData
    proof: Mapping[str, Any]


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
        before = environment.state()
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
        target = self._target(deployment)
        return Executed(
            measurement=measurement,
            compliance=taken.compliance,
            placement=summary,
            scenario=self._happened(taken),
            target=target,
            hashes=self._hashes(deployment, artefact),
            environment={"before": before, "after": environment.state()},
            fingerprint=self._fingerprint(target),
        )

    def measurement(
        self, deployment: Deployment, samples: Samples, counters: Mapping[str, Any], **more: Any
    ) -> Measurement:
        """Put together what a metric function is given."""
        return Measurement(
            case=self.case,
            samples=samples,
            stages_ns=dict(deployment.stages_ns),
            memory=measure.memory_of(deployment.baseline, counters, deployment.loaded.memory),
            model_bytes=self.size(),
            **more,
        )

    def _taken(self, deployment: Deployment) -> _Taken:
        """Take everything that needs the agent. The timed pass comes before the outputs, which need memory."""
        agent = deployment.agent
        target = measure.AgentTarget(agent, self._deadline)
        wanted = self.case.benchmark.expect.compliance
        agent.call("measure", "keep_timed", self._deadline, keep="timed_outputs" in wanted)
        passes = self._timed(target)
        counters = agent.call("counters", "counters", self._deadline)
        self._progress("accuracy", 0.0)
        begin = perf_counter_ns()
        outputs = measure.accuracy_pass(agent, self._accuracy_deadline(passes, deployment.fitted["samples"]))
        accuracy_ns = perf_counter_ns() - begin
        compliance = measure.compliance(agent, target, wanted, passes.samples.calls)
        self._progress("proof", 0.0)
        proof = agent.call("placement", "placement", self._deadline)
        return _Taken(passes, counters, outputs, accuracy_ns, compliance, proof)

    def _seeds(self) -> dict[str, int]:
        """Return every seed that had a part in this run: of the order of samples, generated data, a built model."""
        seeds = {"order": self.case.scenario.seed}
        if self.preparation.dataset.file is None:
            seeds["dataset"] = self.preparation.dataset.seed
        if self.case.model.build is not None:
            seeds["model"] = self.case.model.seed
        return seeds

    def _timed(self, target: measure.AgentTarget) -> Passes:
        scenario = self._scenarios.scenario(self.case.scenario.kind)
        return scenario.run(target, self.case.scenario, self.case.batch, lambda share: self._progress("measure", share))

    def _accuracy_deadline(self, passes: Passes, samples: int) -> float:
        """Return the stage's deadline plus ten times what the calls should take."""
        call_s = float(passes.samples.call_ns.mean()) / 1e9
        return self._deadline + 10 * call_s * samples / self.case.batch

    # --- deployment --------------------------------------------------------------------------------------

    @contextmanager
    def deployed(self) -> Iterator[Deployment]:
        """Start an agent, load the model in it and run it once; leaving ends the agent.

        Raises InvalidCase when the agent imported modules of this side from elsewhere.
        """
        artefact = self.preparation.ready()
        self._progress("start", 0.0)
        begin = perf_counter_ns()
        python = self.case.framework.python
        with deploy.Agent(self.preparation.device, python, deploy.agent_sources(self._framework)) as agent:
            yield self._load(agent, artefact, {"start": perf_counter_ns() - begin})

    def _load(self, agent: deploy.Agent, artefact: ModelFile, stages_ns: dict[str, int]) -> Deployment:
        prepared, benchmark, deadline = self.preparation, self.case.benchmark, self._deadline
        origins = agent.call(
            "inputs",
            "functions",
            deadline,
            pre=benchmark.preprocess,
            post=benchmark.postprocess,
            paths=prepared.import_paths,
        )
        for name, array in prepared.samples.arrays.items() if prepared.samples else ():
            agent.send_array(name, array, deadline)
        try:
            agent.call("inputs", "steps", deadline, steps=prepared.steps, mapping=dict(prepared.dataset.inputs))
            baseline = agent.call("start", "baseline", deadline)
            self._progress("load", 0.0)
            path = prepared.device.place(artefact.path)
            loaded = deploy.load(agent, self._framework, path, prepared.options, deadline)
            if prepared.samples is None:
                self._generate(agent)
            scenario = self.case.scenario
            fitted = agent.call(
                "inputs",
                "fit",
                deadline,
                batch=self.case.batch,
                boundary=scenario.boundary,
                seed=scenario.seed,
            )
        except SuiteError as error:
            raise SuiteError(str(error), file=self._suite, key=f"dataset.{prepared.dataset.name}") from None
        stages_ns.update({"import": loaded.import_ns, "load": loaded.load_ns})
        stages_ns["first"] = agent.call("first", "first", deadline)
        stages_ns = {**prepared.stages_ns, **stages_ns}
        return Deployment(agent, loaded, fitted, baseline, stages_ns, origins, self._sources(agent))

    def _sources(self, agent: deploy.Agent) -> dict[str, str]:
        """Return the modules of a side that the agent imported; InvalidCase when they are not its own."""
        side = self.preparation.side
        if side is None:
            return {}
        names = self.preparation.own_names
        loaded = {**self.preparation.source.made_by, **agent.call("inputs", "sources", self._deadline, names=names)}
        found = provenance.strays(loaded, side, self._suite)
        if found:
            raise InvalidCase(provenance.told(found, side))
        return loaded

    def _generate(self, agent: deploy.Agent) -> None:
        spec = self.preparation.dataset
        agent.call(
            "inputs",
            "generate",
            self._deadline,
            kind=spec.generate or "normal",
            count=max(spec.count or GENERATED.count or 0, self.case.batch),
            seed=spec.seed,
            shapes={name: list(shape) for name, shape in spec.shapes.items()},
            high=spec.high,
            batch=self.case.batch,
        )

    # --- facts -------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the bytes of the files that are loaded."""
        artefact = self.preparation.ready()
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

    def _target(self, deployment: Deployment) -> dict[str, Any]:
        """Return what computed: the agent's own word, and the device's."""
        versions, device = dict(deployment.loaded.versions), self.preparation.device
        return {**deployment.agent.hello, **device.facts(), "device": device.name, "versions": versions}

    def _hashes(self, deployment: Deployment, artefact: ModelFile) -> dict[str, str]:
        """Return the hash of everything that was measured or had a part in it."""
        prepared = self.preparation
        return {
            "suite": assets.sha256_of(self._suite),
            "model": prepared.source.sha256,
            "loaded": assets.sha256_of(artefact.path),
            "inputs": deployment.fitted["digest"],
            "dataset": prepared.samples.sha256 if prepared.samples else "",
            "agent": assets.key_of(*sorted(deploy.agent_sources(self._framework).items())),
            **{f"code.{name}": origin["sha256"] for name, origin in deployment.origins.items()},
            **{f"code.{name}": digest for name, digest in prepared.source.sources.items()},
        }

    def _fingerprint(self, target: Mapping[str, Any]) -> str:
        """Return the hash of the facts that must match before two records may be compared."""
        facts = ("device", "node", "processor", "machine", "cores_allowed", "python")
        return environment.fingerprint(
            {
                "target": {name: target.get(name) for name in facts},  # a user's device need not tell all of them
                "versions": target["versions"],
                "options": self.preparation.options,
                "scenario": vars(self.case.scenario),
                "axes": self.case.axes,
            }
        )


def variant(
    case: Case, *, framework: str | None = None, precision: str | None = None, batch: int | None = None
) -> Case:
    """Return the case of the same model with another framework (its word in the case id), precision or batch.

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
    precision = precision or case.precision
    axes = (case.model.name, case.framework.id, case.precision, case.device)
    rest = case.param[len("-".join(axes)) :]
    param = "-".join((case.model.name, chosen.id, precision, case.device)) + rest
    return replace(case, framework=chosen, precision=precision, batch=batch or case.batch, param=param)
