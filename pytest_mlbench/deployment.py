"""Put a case on its device: an agent that has the samples, the model in its framework, and a first call behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from pytest_mlbench import deploy, loading, provenance
from pytest_mlbench.devices.api import Remote
from pytest_mlbench.errors import InvalidCase, SuiteError
from pytest_mlbench.models import ModelFile
from pytest_mlbench.preparation import GENERATED, Preparation


@dataclass(frozen=True)
class Deployment:
    """The case's model, loaded in a fresh agent and given its samples; it ends with the agent."""

    agent: deploy.Agent
    loaded: loading.Loaded
    fitted: Mapping[str, Any]
    baseline: Mapping[str, Any]
    stages_ns: Mapping[str, int]
    origins: Mapping[str, Mapping[str, str]]  # of the user's own pre- and post-processing
    sources: Mapping[str, str]  # module -> file of what was imported and is not installed; told for a side only


class Deployer:
    """Puts one prepared case on its device."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._case = preparation.case
        self._framework = preparation.framework
        self._progress = preparation.progress
        self._suite = preparation.suite
        self._deadline = self._case.benchmark.timeout_s

    @contextmanager
    def deployed(self) -> Iterator[Deployment]:
        """Start an agent, load the model in it and run it once; leaving ends the agent."""
        artefact = self._preparation.ready()
        self._progress("start", 0.0)
        begin = perf_counter_ns()
        python = self._case.framework.python
        device = self._preparation.device
        with deploy.Agent(device, python, deploy.agent_sources(self._framework, device)) as agent:
            yield self._load(agent, artefact, {"start": perf_counter_ns() - begin})

    def _load(self, agent: deploy.Agent, artefact: ModelFile, stages_ns: dict[str, int]) -> Deployment:
        prepared, benchmark, deadline = self._preparation, self._case.benchmark, self._deadline
        trees = self._trees()
        origins = agent.call(
            "inputs",
            "functions",
            deadline,
            pre=benchmark.preprocess,
            post=benchmark.postprocess,
            paths=trees,
        )
        for name, array in prepared.samples.arrays.items() if prepared.samples else ():
            agent.send_array(name, array, deadline)
        try:
            agent.call("inputs", "steps", deadline, steps=prepared.steps, mapping=dict(prepared.dataset.inputs))
            baseline = agent.call("start", "baseline", deadline)
            self._progress("load", 0.0)
            path = "" if artefact.is_in_board else prepared.device.place(artefact.path)
            loaded = loading.load(agent, self._framework, path, prepared.loading, deadline)
            if prepared.samples is None:
                self._generate(agent)
            scenario = self._case.scenario
            fitted = agent.call(
                "inputs",
                "fit",
                deadline,
                batch=self._case.batch,
                boundary=scenario.boundary,
                seed=scenario.seed,
            )
        except SuiteError as error:
            raise SuiteError(str(error), file=self._suite, key=f"dataset.{prepared.dataset.name}") from None
        stages_ns.update({"import": loaded.import_ns, **loaded.stages_ns, "load": loaded.load_ns})
        first = agent.call("first", "first", deadline)
        if first is not None and not getattr(self._preparation.device, "emulated", False):
            stages_ns["first"] = first
        stages_ns = {**prepared.stages_ns, **stages_ns}
        return Deployment(agent, loaded, fitted, baseline, stages_ns, origins, self._sources(agent))

    def _sources(self, agent: deploy.Agent) -> dict[str, str]:
        """Return the modules of a side that the agent imported; InvalidCase when they are not its own."""
        side = self._preparation.side
        if side is None:
            return {}
        names = self._preparation.own_names
        told = agent.call("inputs", "sources", self._deadline, names=names)
        for here, there in zip(self._preparation.import_paths, self._trees(), strict=False):
            told = {name: _moved(file, there, here) for name, file in told.items()}
        loaded = {**self._preparation.source.made_by, **told}
        found = provenance.strays(loaded, side, self._suite)
        if found:
            raise InvalidCase(provenance.told(found, side))
        return loaded

    def _trees(self) -> list[str]:
        """Return where the agent looks for the suite's own functions: here, or copies on a machine of its own."""
        paths, device = self._preparation.import_paths, self._preparation.device
        if not isinstance(device, Remote):
            return paths
        benchmark = self._case.benchmark
        wanted = benchmark.preprocess is not None or benchmark.postprocess is not None
        return [device.place_tree(Path(path)) for path in paths] if wanted else []

    def _generate(self, agent: deploy.Agent) -> None:
        spec = self._preparation.dataset
        agent.call(
            "inputs",
            "generate",
            self._deadline,
            kind=spec.generate or "normal",
            count=max(spec.count or GENERATED.count or 0, self._case.batch),
            seed=spec.seed,
            shapes={name: list(shape) for name, shape in spec.shapes.items()},
            high=spec.high,
            batch=self._case.batch,
        )


def _moved(file: str, there: str, here: str) -> str:
    """Return the file here of which a copy was imported there; any other file as it is."""
    return here + file[len(there) :] if there != here and file.startswith(there + "/") else file
