"""Have an agent load a model, make one, or tell versions: what it is asked of a framework."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_mlbench.deploy import Agent, agent_sources, target_module
from pytest_mlbench.devices.api import Device
from pytest_mlbench.errors import Unavailable
from pytest_mlbench.frameworks.api import Framework

_versions_there: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Loaded:
    """A model loaded by a framework on a device."""

    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    import_ns: int
    load_ns: int
    memory: Mapping[str, int]
    clock: Mapping[str, Any] = field(default_factory=dict)  # the target's own, which times the calls; {}: the agent's
    stages_ns: Mapping[str, int] = field(default_factory=dict)  # parts of loading that are stages of their own


def load(agent: Agent, framework: Framework, path: str, options: Mapping[str, Any], deadline_s: float) -> Loaded:
    """Import the framework in the agent and load the model; Unavailable when it is not installed there."""
    with _naming_install(framework, agent):
        found = agent.call(
            "load",
            "load",
            deadline_s,
            adapter=target_module(framework.adapter),
            framework=framework.module,
            path=path,
            options=dict(options),
        )
    return Loaded(
        inputs=tuple(found["inputs"]),
        outputs=tuple(found["outputs"]),
        versions=found["versions"],
        import_ns=found["import_ns"],
        load_ns=found["load_ns"],
        memory=found["memory"],
        clock=found["clock"],
        stages_ns=found["stages_ns"],
    )


def prepare(
    agent: Agent,
    framework: Framework,
    stage: str,
    source: str,
    folder: str,
    options: Mapping[str, Any],
    deadline_s: float,
) -> Path:
    """Compile or convert a model into `folder`, both paths of the target.

    Unavailable when what that takes is not installed there.
    """
    with _naming_install(framework, agent):
        path = agent.call(
            stage,
            "prepare",
            deadline_s,
            adapter=target_module(framework.adapter),
            path=source,
            out_dir=folder,
            options=dict(options),
        )
    return Path(path)


def versions(agent: Agent, framework: Framework, deadline_s: float) -> dict[str, str]:
    """Return the framework's versions on the target; Unavailable when it is not installed there."""
    with _naming_install(framework, agent):
        found: dict[str, str] = agent.call("load", "versions", deadline_s, adapter=target_module(framework.adapter))
    return found


def versions_there(device: Device, framework: Framework, deadline_s: float) -> str:
    """Return the framework's versions on another machine as text, asked for once a session."""
    key = (device.name, framework.name)
    if key not in _versions_there:
        with Agent(device, None, agent_sources(framework)) as agent:
            _versions_there[key] = str(sorted(versions(agent, framework, deadline_s).items()))
    return _versions_there[key]


@contextlib.contextmanager
def _naming_install(framework: Framework, agent: Agent) -> Iterator[None]:
    """Add the line that installs a framework to the reason why it is not available."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(f"{error}: {agent.install_line(framework)}") from None
