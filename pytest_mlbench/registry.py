"""Nouns by entry point: frameworks, devices, scenarios, metrics, loaded when first named."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from pytest_mlbench import labfile, near
from pytest_mlbench.boards import Boards, folders
from pytest_mlbench.devices.api import Device, DeviceType, Numbered, numbered_word
from pytest_mlbench.devices.choice import choice
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.lab import ANY, Lab, unknown_device
from pytest_mlbench.metrics.api import MetricFunction
from pytest_mlbench.scenarios.api import Scenario


@lru_cache(maxsize=16)
def _entry_points(group: str) -> Mapping[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def names(group: str) -> tuple[str, ...]:
    """Return the names registered in `mlbench.<group>`, without loading them."""
    return tuple(_entry_points(f"mlbench.{group}"))


def load(group: str, name: str) -> Any:
    """Load what is registered as `name` in `mlbench.<group>`; the error names the group and a near match."""
    entries = _entry_points(f"mlbench.{group}")
    if name not in entries:
        raise SuiteError(near.unknown(group.removesuffix("s"), name, entries) + f" (entry-point group mlbench.{group})")
    try:
        return entries[name].load()
    except Exception as error:  # a vendor's own code: importing it may raise anything
        raise MlbenchError(
            f"{group.removesuffix('s')} {name!r} ({entries[name].value}) cannot be loaded: {error}; "
            "reinstall the package that provides it"
        ) from error


class Registry:
    """What suites may name on this installation, and with a lab file at this site."""

    def __init__(self, lab: Path | None = None, root: Path | None = None) -> None:
        """Take the devices of the file `lab`; `root` is the project, whose own boards it may name."""
        self._lab_file = lab
        self._root = root

    @cached_property
    def frameworks(self) -> Mapping[str, Framework]:
        """Return every framework's description; none of the frameworks themselves is imported."""
        return {name: self._framework(name) for name in names("frameworks")}

    def _framework(self, name: str) -> Framework:
        framework: Any = load("frameworks", name)
        if not isinstance(framework, Framework):
            kind = type(framework).__name__
            raise MlbenchError(f"framework {name!r} is registered as a {kind}, expected a Framework: tell its vendor")
        return framework

    @cached_property
    def _registered(self) -> tuple[Mapping[str, Device | DeviceType], Mapping[str, str]]:
        """Return what is registered as a device, and why the rest is not: only who names it is told."""
        found: dict[str, Device | DeviceType] = {}
        broken: dict[str, str] = {}
        for name in names("devices"):
            try:
                found[name] = load("devices", name)
            except MlbenchError as error:
                broken[name] = str(error)
        return found, broken

    @cached_property
    def device_types(self) -> Mapping[str, DeviceType]:
        """Return the types of device that a lab file may name."""
        return {name: one for name, one in self._registered[0].items() if _is_type(one)}

    @cached_property
    def lab(self) -> Lab:
        """Return the devices of this site; none without a lab file. Raises SuiteError for a wrong file."""
        if self._lab_file is None:
            return Lab()
        devices = [name for name in names("devices") if name not in self.device_types]
        known = labfile.LabKnown(self.device_types, devices, self.boards, self._registered[1])
        return labfile.load_lab(self._lab_file, known)

    @cached_property
    def boards(self) -> Boards:
        """Return the public descriptions of boards that are found here, by name."""
        return Boards(folders(self._root))

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """Return what a suite may write in `device`: registered names, the lab's, and `any.TAG` for its tags."""
        plain = (name for name in names("devices") if name not in self.device_types)
        return (*plain, *(f"{name}.0" for name in self.numbered), *self.lab.words())

    @property
    def numbered(self) -> Mapping[str, Numbered]:
        """Return the types whose devices this machine counts by itself."""
        return {name: one for name, one in self.device_types.items() if isinstance(one, Numbered)}

    def counted(self) -> tuple[str, ...]:
        """Return the numbered devices that this machine has: `cuda.0`, `cuda.1`, ..."""
        return tuple(f"{name}.{place}" for name, one in self.numbered.items() for place in range(one.present()))

    def device(self, name: str) -> Device:
        """Return the device of that name: registered, of the lab, or for `any.TAG` the choice of those with the tag.

        Raises SuiteError for a name that is none of `devices`.
        """
        counted = numbered_word(name, self.numbered)
        if counted is not None and name not in self.lab.devices:
            return self.numbered[counted[0]].numbered(name, counted[1])
        if name in self.devices and name not in self.lab.words():
            device: Device = load("devices", name)
            return device
        if name in self.lab.devices:
            return self._of_lab(name)
        tagged = self.lab.tags().get(name.removeprefix(ANY), ())
        if name.startswith(ANY) and tagged:
            return choice(name, tuple(self._of_lab(one) for one in tagged))
        raise SuiteError(unknown_device(name, self.devices, self.device_types, self.lab))

    def _of_lab(self, name: str) -> Device:
        entry = self.lab.devices[name]
        device = self.device_types[entry.type].make(entry)
        if device.resources[: len(entry.resources)] != entry.resources or device.name != name:
            raise MlbenchError(
                f"device type {entry.type!r} made {device.name!r} with the resources {', '.join(device.resources)} of "
                f"{name!r}, which must come first: {', '.join(entry.resources)}; tell its vendor"
            )
        return device

    def scenario(self, name: str) -> Scenario:
        """Return the scenario registered as `name`."""
        scenario: Scenario = load("scenarios", name)
        return scenario

    def metrics(self) -> Mapping[str, MetricFunction]:
        """Return every registered metric function by its name."""
        return {name: load("metrics", name) for name in names("metrics")}


def _is_type(found: object) -> TypeGuard[DeviceType]:
    return hasattr(found, "settings") and hasattr(found, "make")


def function(reference: str, folder: Path) -> Callable[..., Any]:
    """Import a suite's own `module:function`, with the suite's folder first on the module path.

    A module beside the suite is kept under a name of its own, since another suite's may have the same.
    """
    module_name, _, name = reference.partition(":")
    file = folder / (module_name.replace(".", "/") + ".py")
    sys.path.insert(0, str(folder))
    try:
        module = _beside(module_name, file) if file.is_file() else importlib.import_module(module_name)
    except ImportError as error:
        raise SuiteError(
            f"{reference!r}: {error}; the module is looked for beside the suite and in this environment"
        ) from None
    except Exception as error:  # the suite's own code: it may raise anything
        raise SuiteError(f"{reference!r}: importing it raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder))
    try:
        found: Callable[..., Any] = getattr(module, name)
    except AttributeError:
        known = [word for word in vars(module) if not word.startswith("_")]
        raise SuiteError(f"{reference!r}: " + near.unknown("function", name, known)) from None
    return found


def _beside(name: str, file: Path) -> ModuleType:
    own_name = f"mlbench_suite_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}_{name}"
    if own_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(own_name, file)
        assert spec is not None, "the file ends in .py"
        assert spec.loader is not None, "the file ends in .py"
        module = importlib.util.module_from_spec(spec)
        sys.modules[own_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[own_name]
            raise
    return sys.modules[own_name]


def missing(framework: Framework, python: Path | None) -> str | None:
    """Say why a framework cannot be used, with the line that installs it; None when it can be looked for there."""
    if python is not None:
        return None if python.exists() else f"interpreter {python} for {framework.name} does not exist"
    try:
        found = importlib.util.find_spec(framework.module) is not None
    except ModuleNotFoundError:  # of the package that a dotted name begins with
        found = False
    return None if found else f"{framework.name} is not installed: {framework.install}"


def version(framework: Framework) -> str:
    """Return the installed versions of a framework's packages in this environment; empty when one is unknown."""
    packages = framework.distributions or (framework.module,)
    try:
        return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    except importlib.metadata.PackageNotFoundError:
        return ""
