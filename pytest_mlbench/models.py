"""Find or make the file of a model that a case loads: named, built from a seed, converted, compiled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_mlbench import assets, deploy, loading, provenance, registry
from pytest_mlbench.devices.api import Device, Remote
from pytest_mlbench.devices.cpu import DEVICE as CPU
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


BOARD = "{board}"  # in the path of an image: the name of the device's board type
_BOARD_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class ModelFile:
    """A file a framework can be given, its hash, and the stages it took to make it (empty when cached).

    A model that a board has built in, and that no image is named for, has neither: see `is_in_board`.
    """

    path: Path
    sha256: str
    stages_ns: Mapping[str, int] = field(default_factory=dict)
    origin: str = "file"
    sources: Mapping[str, str] = field(default_factory=dict)  # hashes of the suite's own code that made it
    made_by: Mapping[str, str] = field(default_factory=dict)  # module -> file of that code

    @property
    def is_in_board(self) -> bool:
        """Tell whether there is no file: the board runs what it has."""
        return not self.sha256


def sidecar(image: Path) -> Path | None:
    """Return the file beside a board's image that tells its tensors (frameworks/firmware.py), None without one."""
    beside = (image.with_name(image.name + ".json"), image.with_suffix(".json"))
    return next((path for path in beside if path.is_file()), None)


Clock = Callable[[], int]


class ModelMaker:
    """Makes what is not there yet, each in an agent of its own, and keeps it by hash."""

    def __init__(
        self,
        case: Case,
        framework: Framework,
        device: Device,
        clock: Clock,
        import_paths: list[str],
        own_names: Sequence[str] = (),
    ) -> None:
        self._import_paths = import_paths
        self._own_names = own_names  # of modules that count as the suite's own wherever they are loaded from
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
        if named is None and self._framework.on_board and not model.files.get(form):
            return ModelFile(Path(), "", origin="in the board already")
        if named is not None and self._framework.on_board:
            return self._image(named)
        if named is not None:
            digest = assets.check(named, suite=self._suite, expected_sha256=model.sha256.get(str(named)))
            return ModelFile(named, digest)
        if model.build is not None and form == "onnx" and precision == "fp32":
            return self._build(model.build)
        if precision in self._framework.converts and "fp32" in model.files.get(form, {}):
            return replace(self._precision("fp32"), origin=f"{precision} from fp32 while loading")
        recipe = model.quantize.get(precision)
        if recipe is None or form != "onnx":
            raise SuiteError(f"model {model.name!r} has no {precision} file for {form}", file=self._suite)
        return self._convert(recipe, precision)

    def _image(self, named: Path) -> ModelFile:
        """Return the image for the device's board; its sidecar counts as part of it."""
        expected = self._case.model.sha256.get(str(named))
        if BOARD in str(named):
            board = str(self._device.facts().get("board") or "")
            if not _BOARD_NAME.fullmatch(board):
                message = f"the path {named} is for a board type, and the device {self._device.name} names none; "
                raise SuiteError(message + "give it a `board` in the lab file, or the suite one path", file=self._suite)
            named = Path(str(named).replace(BOARD, board))
            expected = self._case.model.sha256.get(str(named), expected)
        digest = assets.check(named, suite=self._suite, expected_sha256=expected)
        beside = sidecar(named)
        return ModelFile(named, digest if beside is None else assets.key_of(digest, assets.sha256_of(beside)))

    def _build(self, reference: str) -> ModelFile:
        """Let the suite's own function write its model, unless it did and none of the modules it took changed."""
        key = assets.key_of("build", reference, self._import_paths, self._case.model.seed, *self._own_names)
        folder = assets.cached("models", key)
        path, manifest = folder / f"{self._case.model.name}.onnx", folder / "sources.json"
        stages: dict[str, int] = {}
        with assets.cache_lock(folder):
            made_by = provenance.read_manifest(manifest) if path.is_file() else None
            if made_by is None:
                manifest.unlink(missing_ok=True)
                begin = self._clock()
                made_by = self._run_builder(reference, path)
                stages["build"] = self._clock() - begin
                provenance.write_manifest(manifest, made_by)
            found = assets.check(path, suite=self._suite, root=folder)
        sources = {name: assets.sha256_of(Path(file)) for name, file in made_by.items()}
        sources = {reference: sources.pop(reference.partition(":")[0], ""), **sources}
        return ModelFile(path, found, stages, f"built by {reference}", sources, made_by)

    def _run_builder(self, reference: str, path: Path) -> dict[str, str]:
        """Build in an agent of its own; returns the modules it imported that are not installed ones."""
        deadline = self._case.benchmark.timeout_s
        paths = self._import_paths
        with self._agent(None) as agent:
            agent.call(
                "build", "build", deadline, reference=reference, paths=paths, out=str(path), seed=self._case.model.seed
            )
            names = [reference.partition(":")[0].partition(".")[0], *provenance.own_modules(paths), *self._own_names]
            loaded: dict[str, str] = agent.call("build", "sources", deadline, names=names)
        return loaded

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
        how = f"{recipe.how} from {recipe.source}"
        return replace(source, path=path, sha256=assets.sha256_of(path), stages_ns=stages, origin=how)

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
            path = self._made(stage, framework, source, folder, options)
            done.write_text(path.name, encoding="utf-8")
            return path, {stage: self._clock() - begin}

    def _made(self, stage: str, framework: Framework, source: Path, folder: Path, options: Mapping[str, Any]) -> Path:
        """Let the adapter make the artefact in `folder`; a target of its own makes it there, and sends it."""
        device, deadline = self._device_of(framework), self._case.benchmark.timeout_s
        with self._agent(framework) as agent:
            if not isinstance(device, Remote):
                return loading.prepare(agent, framework, stage, str(source), str(folder), options, deadline)
            made = loading.prepare(agent, framework, stage, device.place(source), device.scratch(), options, deadline)
            return device.fetch(str(made), folder)

    def _version(self, framework: Framework) -> str:
        """Return the framework's version: read here when it lives in this environment, else asked for there."""
        here = self._python(framework) is None and self._device_of(framework).is_host
        found = registry.version(framework) if here else ""
        if found:
            return found
        with self._agent(framework) as agent:
            return str(sorted(loading.versions(agent, framework, self._case.benchmark.timeout_s).items()))

    def _python(self, framework: Framework | None) -> Path | None:
        return self._case.framework.python if framework is self._framework else None

    def _agent(self, framework: Framework | None) -> deploy.Agent:
        return deploy.Agent(self._device_of(framework), self._python(framework), deploy.agent_sources(framework))

    def _device_of(self, framework: Framework | None) -> Device:
        """Return where something is made: what a suite's own code makes or we convert, on this machine."""
        return self._device if framework is self._framework or self._device.is_host else CPU
