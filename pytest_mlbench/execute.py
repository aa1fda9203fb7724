"""Run one case on its device: model file, agent, timed pass, accuracy pass, proof. Judging comes later."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy.typing as npt

from pytest_mlbench import assets, datasets, deploy, environment, measure, references, registry
from pytest_mlbench.agent.preprocess import apply_steps
from pytest_mlbench.checks import placement
from pytest_mlbench.devices.api import Device
from pytest_mlbench.errors import SuiteError, Unavailable
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import Case
from pytest_mlbench.measure import ComplianceData
from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.models import ModelFile, ModelMaker
from pytest_mlbench.references import OutputKey
from pytest_mlbench.scenarios.api import Passes
from pytest_mlbench.spec import DatasetSpec

GENERATED = DatasetSpec(name="generated", generate="normal", count=16)
Progress = Callable[[str, float], None]


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

    hello: Mapping[str, Any]
    loaded: deploy.Loaded
    fitted: Mapping[str, Any]
    baseline: Mapping[str, Any]
    passes: Passes
    counters: Mapping[str, Any]
    outputs: Mapping[str, npt.NDArray[Any]]
    accuracy_ns: int
    compliance: ComplianceData
    proof: Mapping[str, Any]


@dataclass
class Executor:
    """Runs one case. `model` overrides the file a suite names; the device comes from the fixture."""

    case: Case
    framework: Framework
    device: Device
    scenario_registry: registry.Registry
    progress: Progress = field(default=lambda stage, share: None)
    model: Path | None = None

    def __post_init__(self) -> None:
        self._bench = self.case.benchmark
        self._suite = self.case.suite.path
        self._deadline = self._bench.timeout_s
        self._dataset = self.case.suite.datasets[self._bench.dataset] if self._bench.dataset else GENERATED
        self._stages: dict[str, int] = {}
        self._samples: datasets.Samples | None = None
        self._artefact: ModelFile | None = None
        reason = registry.missing(self.framework, self.case.framework.python)
        if reason is not None:
            raise Unavailable(reason)

    # --- what is run -----------------------------------------------------------------------------------

    @property
    def options(self) -> dict[str, Any]:
        """Return the framework's options: its defaults, the suite's, the threads axis, and the batch."""
        chosen = {name: option.default for name, option in self.framework.options.items() if option.default is not None}
        chosen.update(self.case.framework.options)
        if self.case.threads is not None:
            chosen["threads"] = self.case.threads
        return {**chosen, "batch": self.case.batch, "shapes": self._shapes()}

    def _shapes(self) -> dict[str, list[int]]:
        """Return whole input shapes, as far as the suite tells them, for frameworks that compile for a shape."""
        if self._dataset.file is None:
            return {name: [self.case.batch, *shape] for name, shape in self._dataset.shapes.items()}
        if self._samples is None or self._bench.preprocess is not None:
            return {}
        by_array = {array: name for name, array in self._dataset.inputs.items()}
        return {
            by_array.get(name, name): [self.case.batch, *self._prepared_shape(name, array)]
            for name, array in self._samples.arrays.items()
        }

    def _prepared_shape(self, name: str, array: npt.NDArray[Any]) -> tuple[int, ...]:
        """Return the shape of one sample after the declared steps; SuiteError when they do not fit the data."""
        try:
            return tuple(apply_steps(array[:1], self._steps).shape[1:])
        except (ValueError, TypeError) as error:
            raise SuiteError(
                f"array {name!r}: {error}; correct `preprocess` or the data",
                file=self._suite,
                key=f"dataset.{self._dataset.name}.preprocess",
            ) from None

    @property
    def _steps(self) -> list[dict[str, Any]]:
        steps = self._dataset.preprocess
        return [dict(step) for step in steps.get(self.framework.format, steps.get("*", ()))]

    def _ready(self) -> ModelFile:
        """Read the samples and make the model's file, once."""
        if self._artefact is None:
            self._samples = datasets.read(self._dataset, self._suite)
            self._artefact = self._model_file()
        return self._artefact

    def _model_file(self) -> ModelFile:
        maker = ModelMaker(self.case, self.framework, self.device, perf_counter_ns)
        if self.model is not None:
            source = ModelFile(self.model, assets.check(self.model, suite=self._suite), origin="fixture mlbench_model")
        else:
            self.progress("model", 0.0)
            source = maker.resolve()
        self._source = source
        artefact = maker.compile(source, self.options)
        self._stages.update({name: ns for name, ns in artefact.stages_ns.items()})
        if artefact.stages_ns:
            self._stages["prepare"] = sum(artefact.stages_ns.values())
        return artefact

    def key(self) -> OutputKey:
        """Return what this case's outputs are kept under; needs the model file to be resolved."""
        samples = self._samples
        functions = [self._bench.preprocess, self._bench.postprocess]
        code = [assets.sha256_of(path) for path in sorted(self._suite.parent.glob("*.py"))] if any(functions) else []
        spec = self._dataset
        generated = [spec.generate, spec.count, spec.seed, sorted(spec.shapes.items()), spec.high]
        return OutputKey(
            model_sha256=self._source.sha256,
            framework=self.framework.name,
            version=registry.version(self.framework) or str(self.case.framework.python),
            adapter_sha256=assets.key_of(*sorted(deploy.agent_sources(self.framework).items())),
            options=json.dumps(self.options, sort_keys=True, default=str),
            dataset=samples.sha256 if samples else json.dumps(generated, default=str),
            prepared=json.dumps([self._steps, sorted(spec.inputs.items()), spec.count, functions, code]),
            target=json.dumps(self.device.facts(), sort_keys=True, default=str),
        )

    def identity(self) -> str:
        """Return a hash of everything this case's record depends on; makes the model's file if need be."""
        self._ready()
        return assets.key_of(
            self.key().digest,
            assets.sha256_of(self._suite),
            sorted(vars(self.case.scenario).items(), key=str),
        )

    # --- runs ------------------------------------------------------------------------------------------

    def outputs(self) -> dict[str, npt.NDArray[Any]]:
        """Return this case's outputs over the data set, from the cache or by an accuracy pass alone."""
        artefact = self._ready()
        found = references.kept(self.key()) if self.case.framework.python is None else None
        if found is not None:
            return found
        self.progress("reference", 0.0)
        with self._started() as agent:
            self._load(agent, artefact)
            outputs = measure.accuracy_pass(agent, self._deadline)
        references.keep(self.key(), outputs)
        return outputs

    def run(self) -> Executed:
        """Measure the case. Stages in order: model, start, inputs, load, first, warm-up, measure, accuracy, proof."""
        artefact = self._ready()
        before = environment.state()
        with self._started() as agent:
            taken = self._taken(agent, artefact)
        references.keep(self.key(), taken.outputs)
        summary = {**placement.summarise(taken.proof["nodes"]), "source": taken.proof["source"]}
        summary["notes"] = taken.proof["notes"]
        if taken.proof["reason"]:
            summary["reason"] = taken.proof["reason"]
        measurement = Measurement(
            case=self.case,
            samples=taken.passes.samples,
            stages_ns=dict(self._stages),
            memory=measure.memory_of(taken.baseline, taken.counters, taken.loaded.memory),
            model_bytes=self._size(artefact),
            outputs=taken.outputs,
            labels=self._samples.labels if self._samples else None,
            facts={"placement": summary, "versions": dict(taken.loaded.versions), "format": self.framework.format},
        )
        target = self._target(taken)
        return Executed(
            measurement=measurement,
            compliance=taken.compliance,
            placement=summary,
            scenario=self._happened(taken),
            target=target,
            hashes=self._hashes(taken),
            environment={"before": before, "after": environment.state()},
            fingerprint=self._fingerprint(target),
        )

    def _taken(self, agent: deploy.Agent, artefact: ModelFile) -> _Taken:
        """Take everything that needs the agent. The timed pass comes before the outputs, which need memory."""
        loaded, fitted, baseline = self._load(agent, artefact)
        target = measure.AgentTarget(agent, self._deadline)
        wanted = self._bench.expect.compliance
        agent.call("measure", "keep_timed", self._deadline, keep="timed_outputs" in wanted)
        passes = self._timed(target)
        counters = agent.call("counters", "counters", self._deadline)
        self.progress("accuracy", 0.0)
        begin = perf_counter_ns()
        outputs = measure.accuracy_pass(agent, self._accuracy_deadline(passes, fitted["samples"]))
        accuracy_ns = perf_counter_ns() - begin
        compliance = measure.compliance(agent, target, wanted, passes.samples.calls)
        self.progress("proof", 0.0)
        proof = agent.call("placement", "placement", self._deadline)
        return _Taken(agent.hello, loaded, fitted, baseline, passes, counters, outputs, accuracy_ns, compliance, proof)

    def _seeds(self) -> dict[str, int]:
        """Return every seed that had a part in this run: of the order of samples, generated data, a built model."""
        seeds = {"order": self.case.scenario.seed}
        if self._dataset.file is None:
            seeds["dataset"] = self._dataset.seed
        if self.case.model.build is not None:
            seeds["model"] = self.case.model.seed
        return seeds

    def _timed(self, target: measure.AgentTarget) -> Passes:
        scenario = self.scenario_registry.scenario(self.case.scenario.kind)
        return scenario.run(target, self.case.scenario, self.case.batch, lambda share: self.progress("measure", share))

    def _accuracy_deadline(self, passes: Passes, samples: int) -> float:
        """Return the stage's deadline plus ten times what the calls should take."""
        call_s = float(passes.samples.call_ns.mean()) / 1e9
        return self._deadline + 10 * call_s * samples / self.case.batch

    def _started(self) -> deploy.Agent:
        self.progress("start", 0.0)
        begin = perf_counter_ns()
        agent = deploy.Agent(self.device, self.case.framework.python, deploy.agent_sources(self.framework))
        self._started_at = begin
        return agent

    def _load(
        self, agent: deploy.Agent, artefact: ModelFile
    ) -> tuple[deploy.Loaded, Mapping[str, Any], Mapping[str, Any]]:
        self._stages["start"] = perf_counter_ns() - self._started_at
        deadline = self._deadline
        self._origins = agent.call(
            "inputs",
            "functions",
            deadline,
            pre=self._bench.preprocess,
            post=self._bench.postprocess,
            paths=[str(self._suite.parent)],
        )
        for name, array in self._samples.arrays.items() if self._samples else ():
            agent.send_array(name, array, deadline)
        try:
            agent.call("inputs", "steps", deadline, steps=self._steps, mapping=dict(self._dataset.inputs))
            baseline = agent.call("start", "baseline", deadline)
            self.progress("load", 0.0)
            path = self.device.place(artefact.path)
            loaded = deploy.load(agent, self.framework, path, self.options, deadline)
            if self._samples is None:
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
            raise SuiteError(str(error), file=self._suite, key=f"dataset.{self._dataset.name}") from None
        self._stages.update({"import": loaded.import_ns, "load": loaded.load_ns})
        self._stages["first"] = agent.call("first", "first", deadline)
        return loaded, fitted, baseline

    def _generate(self, agent: deploy.Agent) -> None:
        spec = self._dataset
        agent.call(
            "inputs",
            "generate",
            self._deadline,
            kind=spec.generate or "normal",
            count=max(spec.count or 16, self.case.batch),
            seed=spec.seed,
            shapes={name: list(shape) for name, shape in spec.shapes.items()},
            high=spec.high,
            batch=self.case.batch,
        )

    def _size(self, artefact: ModelFile) -> int:
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

    def _target(self, taken: _Taken) -> dict[str, Any]:
        """Return what computed: the agent's own word, and the device's."""
        versions = dict(taken.loaded.versions)
        return {**taken.hello, **self.device.facts(), "device": self.device.name, "versions": versions}

    def _hashes(self, taken: _Taken) -> dict[str, str]:
        """Return the hash of everything that was measured or had a part in it."""
        return {
            "suite": assets.sha256_of(self._suite),
            "model": self._source.sha256,
            "loaded": assets.sha256_of(self._ready().path),
            "inputs": taken.fitted["digest"],
            "dataset": self._samples.sha256 if self._samples else "",
            "agent": assets.key_of(*sorted(deploy.agent_sources(self.framework).items())),
            **{f"code.{name}": origin["sha256"] for name, origin in self._origins.items()},
            **{f"code.{name}": digest for name, digest in self._source.sources.items()},
        }

    def _fingerprint(self, target: Mapping[str, Any]) -> str:
        """Return the hash of the facts that must match before two records may be compared."""
        facts = ("device", "node", "processor", "machine", "cores_allowed", "python")
        return environment.fingerprint(
            {
                "target": {name: target.get(name) for name in facts},  # a user's device need not tell all of them
                "versions": target["versions"],
                "options": self.options,
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
