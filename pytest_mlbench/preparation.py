"""Get ready what a case runs on: options, samples, the model's file, and hashes of all of it. Nothing is timed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy.typing as npt

from pytest_mlbench import assets, datasets, deploy, loading, provenance, registry
from pytest_mlbench.agent.preprocess import apply_steps
from pytest_mlbench.devices.api import Accelerator, Device
from pytest_mlbench.errors import SuiteError, Unavailable
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import Case
from pytest_mlbench.models import ModelFile, ModelMaker, sidecar
from pytest_mlbench.provenance import Side
from pytest_mlbench.references import OutputKey
from pytest_mlbench.spec import DatasetSpec

GENERATED = DatasetSpec(name="generated", generate="normal", count=16)
Progress = Callable[[str, float], None]


@dataclass
class Preparation:
    """What a case needs before an agent can load it, made when it is first asked for.

    `model` overrides the file a suite names; the device comes from the fixture; `side` tells where the suite's
    own modules must come from when two revisions are compared.
    """

    case: Case
    framework: Framework
    device: Device
    progress: Progress = field(default=lambda stage, share: None)
    model: Path | None = None
    side: Side | None = None

    def __post_init__(self) -> None:
        self.suite = self.case.suite.path
        self.dataset = (
            self.case.suite.datasets[self.case.benchmark.dataset] if self.case.benchmark.dataset else GENERATED
        )
        self.samples: datasets.Samples | None = None
        self.stages_ns: dict[str, int] = {}
        self.import_paths = self.side.paths(self.suite) if self.side is not None else [str(self.suite.parent)]
        self._changed_names = provenance.first_names(self.side.changed) if self.side is not None else []
        self._artefact: ModelFile | None = None
        if not self.device.is_host and self.case.framework.python is not None:
            raise SuiteError(
                f"`python` names an interpreter of this machine, and {self.device.name} is another machine; leave it "
                "out, and name the interpreter there with `python` of the device in the lab file (a second device of "
                "the same host may have another one)",
                file=self.suite,
                key=f"{self.case.benchmark.name}.framework",
            )
        reason = registry.missing(self.framework, self.case.framework.python) if self.device.is_host else None
        if reason is not None:
            raise Unavailable(reason)
        absent = self.device.absent() if isinstance(self.device, Accelerator) else ""
        if absent:
            raise Unavailable(f"{self.device.name}: {absent}")

    @property
    def options(self) -> dict[str, Any]:
        """Return the framework's options: its defaults, the suite's, the threads axis, and the batch."""
        chosen = {name: option.default for name, option in self.framework.options.items() if option.default is not None}
        chosen.update(self.case.framework.options)
        if self.case.threads is not None:
            chosen["threads"] = self.case.threads
        return {**chosen, **self._added(), "batch": self.case.batch, "shapes": self._shapes()}

    def _added(self) -> dict[str, Any]:
        """Return what an adapter is told besides: which device, and a precision to make while it loads."""
        device = dict(self.device.adapter_options()) if isinstance(self.device, Accelerator) else {}
        files = self.case.model.files.get(self.framework.format, {})
        converts = self.case.precision in self.framework.converts and self.case.precision not in files
        return {**device, **({"convert": self.case.precision} if converts and self.model is None else {})}

    @property
    def _images(self) -> Mapping[str, Path]:
        return self.case.model.files.get(self.framework.format, {})

    @property
    def loading(self) -> dict[str, Any]:
        """Return the options an adapter loads with: for a board also how to reach it, which identifies nothing.

        Raises SuiteError for a device that reaches no board.
        """
        if not self.framework.on_board:
            return self.options
        connection = dict(self.device.connection()) if self.device.frameworks else {}
        if not connection:
            message = f"{self.framework.name} is what a board has built in, and {self.device.name} reaches none"
            raise SuiteError(message, file=self.suite)
        more = {"emulated": self.device.emulated, "echo": self.device.is_host}
        return {**self.options, "connection": {**connection, **more}, "sidecar": self._sidecar()}

    def _sidecar(self) -> str:
        image = self.ready()
        beside = None if image.is_in_board else sidecar(image.path)
        if beside is None:
            return ""
        try:
            text = beside.read_text(encoding="utf-8")
            told = json.loads(text)
        except ValueError as error:
            raise SuiteError(f"is no JSON: {error}; make it anew with the image", file=beside) from None
        if not isinstance(told, dict):
            raise SuiteError("expected a JSON object with `inputs` and `outputs`", file=beside)
        return text

    def _shapes(self) -> dict[str, list[int]]:
        """Return whole input shapes, as far as the suite tells them, for frameworks that compile for a shape."""
        if self.dataset.file is None:
            return {name: [self.case.batch, *shape] for name, shape in self.dataset.shapes.items()}
        if self.samples is None or self.case.benchmark.preprocess is not None:
            return {}
        by_array = {array: name for name, array in self.dataset.inputs.items()}
        return {
            by_array.get(name, name): [self.case.batch, *self._prepared_shape(name, array)]
            for name, array in self.samples.arrays.items()
        }

    def _prepared_shape(self, name: str, array: npt.NDArray[Any]) -> tuple[int, ...]:
        """Return the shape of one sample after the declared steps; SuiteError when they do not fit the data."""
        try:
            return tuple(apply_steps(array[:1], self.steps).shape[1:])
        except (ValueError, TypeError) as error:
            raise SuiteError(
                f"array {name!r}: {error}; correct `preprocess` or the data",
                file=self.suite,
                key=f"dataset.{self.dataset.name}.preprocess",
            ) from None

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Return the declared steps of pre-processing for the framework's format."""
        steps = self.dataset.preprocess
        return [dict(step) for step in steps.get(self.framework.format, steps.get("*", ()))]

    def ready(self) -> ModelFile:
        """Read the samples and make the model's file, once."""
        if self._artefact is None:
            self.samples = datasets.read(self.dataset, self.suite)
            self._artefact = self._model_file()
        return self._artefact

    def _model_file(self) -> ModelFile:
        paths, names = self.import_paths, self._changed_names
        maker = ModelMaker(self.case, self.framework, self.device, perf_counter_ns, paths, names)
        if self.model is not None:
            source = ModelFile(self.model, assets.check(self.model, suite=self.suite), origin="fixture mlbench_model")
        else:
            self.progress("model", 0.0)
            source = maker.resolve()
        self.source = source
        artefact = maker.compile(source, self.options)
        self.stages_ns.update({name: ns for name, ns in artefact.stages_ns.items()})
        if artefact.stages_ns:
            self.stages_ns["prepare"] = sum(artefact.stages_ns.values())
        return artefact

    @property
    def _functions(self) -> list[str | None]:
        return [self.case.benchmark.preprocess, self.case.benchmark.postprocess]

    @property
    def own_names(self) -> list[str]:
        """Return the first names of the modules that must come from this revision, or may have to."""
        return sorted({*provenance.own_modules(self.import_paths), *self._changed_names})

    @property
    def covers_outputs(self) -> bool:
        """Tell whether key() holds all that the outputs depend on.

        It does not know what is installed in another environment, which modules of a revision the suite's functions
        import, nor what a board has built in.
        """
        if (self.device.is_host and self.case.framework.python is not None) or (
            self.side is not None and any(self._functions)
        ):
            return False
        return self.model is not None or not self.framework.on_board or bool(self._images)

    def key(self) -> OutputKey:
        """Return what this case's outputs are kept under; needs the model file to be resolved."""
        samples, functions = self.samples, self._functions
        code = [assets.sha256_of(path) for path in sorted(self.suite.parent.glob("*.py"))] if any(functions) else []
        spec = self.dataset
        generated = [spec.generate, spec.count, spec.seed, sorted(spec.shapes.items()), spec.high]
        python = self.case.framework.python
        return OutputKey(
            model_sha256=self.source.sha256,
            framework=self.framework.name,
            version=self._version(python),
            adapter_sha256=assets.key_of(*sorted(deploy.agent_sources(self.framework, self.device).items())),
            options=json.dumps(self.options, sort_keys=True, default=str),
            dataset=samples.sha256 if samples else json.dumps(generated, default=str),
            prepared=json.dumps([self.steps, sorted(spec.inputs.items()), spec.count, functions, code]),
            target=json.dumps(self.device.facts(), sort_keys=True, default=str),
        )

    def _version(self, python: Path | None) -> str:
        if self.device.is_host:
            return registry.version(self.framework) if python is None else str(python)
        return loading.versions_there(self.device, self.framework, self.case.benchmark.timeout_s)

    def identity(self) -> str:
        """Return a hash of everything this case's record depends on; makes the model's file if need be."""
        self.ready()
        return assets.key_of(
            self.key().digest,
            assets.sha256_of(self.suite),
            sorted(vars(self.case.scenario).items(), key=str),
            provenance.digest(self.side) if self.side is not None and any(self._functions) else "",
            uuid.uuid4().hex if self.ready().is_in_board else "",  # nobody knows whether it is still the same
        )
