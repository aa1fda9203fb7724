"""Find or make the file of a model that a case loads: named, built from a seed, converted, compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_mlbench import assets, deploy, registry
from pytest_mlbench.devices.api import Device
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.matrix import Case
from pytest_mlbench.spec import Quantize

_PRECISION_MAKER = Framework(
    name="onnx_precision",
    format="onnx",
    adapter="pytest_mlbench.agent.onnx_precision",
    module="onnx",
    distributions=("onnx", "onnxruntime"),
    install="pip install 'pytest-mlbench[onnxruntime]'",
)


@dataclass(frozen=True)
class ModelFile:
    """A file a framework can be given, its hash, and the stages it took to make it (empty when cached)."""

    path: Path
    sha256: str
    stages_ns: Mapping[str, int] = field(default_factory=dict)
    origin: str = "file"
    sources: Mapping[str, str] = field(default_factory=dict)  # the suite's own code that made it


Clock = Callable[[], int]


class ModelMaker:
    """Makes what is not there yet, each in an agent of its own, and keeps it by hash."""

    def __init__(self, case: Case, framework: Framework, device: Device, clock: Clock) -> None:
        self._case = case
        self._framework = framework
        self._device = device
        self._clock = clock
        self._suite = case.suite.path

    def resolve(self) -> ModelFile:
        """Return the file for the case's framework and precision, before compilation."""
        return self._precision(self._case.precision)

    def _precision(self, precision: str) -> ModelFile:
        model, form = self._case.model, self._framework.format
        named = model.files.get(form, {}).get(precision)
        if named is not None:
            digest = assets.check(named, suite=self._suite, expected_sha256=model.sha256.get(str(named)))
            return ModelFile(named, digest)
        if model.build is not None and form == "onnx" and precision == "fp32":
            return self._build(model.build)
        recipe = model.quantize.get(precision)
        if recipe is None or form != "onnx":
            raise SuiteError(f"model {model.name!r} has no {precision} file for {form}", file=self._suite)
        return self._convert(recipe, precision)

    def _build(self, reference: str) -> ModelFile:
        module = reference.partition(":")[0]
        source = self._suite.parent / (module.replace(".", "/") + ".py")
        digest = assets.sha256_of(source) if source.is_file() else ""
        key = assets.key_of("build", reference, digest, self._case.model.seed)
        folder = assets.cached("models", key)
        path = folder / f"{self._case.model.name}.onnx"
        stages: dict[str, int] = {}
        with assets.cache_lock(folder):
            if not path.is_file():
                with self._agent(None) as agent:
                    begin = self._clock()
                    agent.call(
                        "build",
                        "build",
                        self._case.benchmark.timeout_s,
                        reference=reference,
                        paths=[str(self._suite.parent)],
                        out=str(path),
                        seed=self._case.model.seed,
                    )
                    stages["build"] = self._clock() - begin
        found = assets.check(path, suite=self._suite, root=folder)
        return ModelFile(path, found, stages, f"built by {reference}", {reference: digest})

    def _convert(self, recipe: Quantize, precision: str) -> ModelFile:
        source = self._precision(recipe.source)
        calibration = ""
        if recipe.calibration is not None:
            calibration = assets.check(recipe.calibration, suite=self._suite)
        maker = assets.sha256_of(Path(__file__).parent / "agent" / "onnx_precision.py")
        options = {
            "how": recipe.how,
            "calibration": str(recipe.calibration) if recipe.calibration else None,
            "per_channel": recipe.per_channel,
            # onnxruntime's x86 kernels take uint8 activations where they leave int8 ones in fp32.
            "activations": "uint8",
        }
        made_from = (source.sha256, calibration, maker, recipe.how, recipe.per_channel, options["activations"])
        path, stages = self._prepared("convert", _PRECISION_MAKER, source.path, options, made_from)
        stages = {**source.stages_ns, **stages}
        return ModelFile(path, assets.sha256_of(path), stages, f"{recipe.how} from {recipe.source}", source.sources)

    def compile(self, source: ModelFile, options: Mapping[str, Any]) -> ModelFile:
        """Return the compiled artefact of a framework that compiles, cached by model, options and version."""
        if not self._framework.compiles:
            return source
        made_from = (
            source.sha256,
            sorted(options.items(), key=str),
            sorted(self._device.facts().items(), key=str),
            sorted(deploy.agent_sources(self._framework).items()),
        )
        path, stages = self._prepared("compile", self._framework, source.path, options, made_from)
        return replace(source, path=path, stages_ns={**source.stages_ns, **stages})

    def _prepared(
        self, stage: str, framework: Framework, source: Path, options: Mapping[str, Any], made_from: tuple[object, ...]
    ) -> tuple[Path, dict[str, int]]:
        """Let the adapter's prepare() fill a cache folder, unless an earlier run did."""
        version = self._version(framework)
        folder = assets.cached(stage, assets.key_of(stage, version, *made_from))
        done = folder / ".artefact"
        with assets.cache_lock(folder):
            if done.is_file() and (folder / done.read_text(encoding="utf-8")).is_file():
                return folder / done.read_text(encoding="utf-8"), {}
            begin = self._clock()
            deadline = self._case.benchmark.timeout_s
            with self._agent(framework) as agent:
                path = deploy.prepare(agent, framework, stage, source, folder, options, deadline)
            done.write_text(path.name, encoding="utf-8")
            return path, {stage: self._clock() - begin}

    def _version(self, framework: Framework) -> str:
        """Return the framework's version: read here when it lives in this environment, else asked for there."""
        found = registry.version(framework) if self._python(framework) is None else ""
        if found:
            return found
        with self._agent(framework) as agent:
            return str(sorted(deploy.versions(agent, framework, self._case.benchmark.timeout_s).items()))

    def _python(self, framework: Framework | None) -> Path | None:
        return self._case.framework.python if framework is self._framework else None

    def _agent(self, framework: Framework | None) -> deploy.Agent:
        return deploy.Agent(self._device, self._python(framework), deploy.agent_sources(framework))
