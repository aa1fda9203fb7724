"""pytest fixtures of a case. A conftest.py or a suite may override mlbench_device and mlbench_model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mlbench.bench import Bench
from pytest_mlbench.collect import case_of
from pytest_mlbench.devices.api import Device
from pytest_mlbench.devices.choice import Choice
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.matrix import Case
from pytest_mlbench.registry import Registry
from pytest_mlbench.session import KEY

DEVICE_MEMBERS = ("name", "resources", "is_host", "gateway", "place", "facts")


@pytest.fixture
def mlbench_case(request: pytest.FixtureRequest) -> Case:
    """Return the case of this item: one combination of model, framework, precision and device."""
    case = getattr(request, "param", None) or case_of(request.node)
    if case is None:
        pytest.fail("mlbench fixtures need the marker: @pytest.mark.mlbench(model=[...], ...)", pytrace=False)
    return case


@pytest.fixture
def mlbench_device(mlbench_case: Case, request: pytest.FixtureRequest) -> Device:
    """Return the device the case runs on. Override it to give a device of your own."""
    try:
        return request.config.stash[KEY].registry.device(mlbench_case.device)
    except MlbenchError as error:
        pytest.fail(f"device {mlbench_case.device!r}: {error}", pytrace=False)


@pytest.fixture
def mlbench_model() -> Path | None:
    """Return the model file to load instead of the suite's, or None. Override it to give one you made."""
    return None


@pytest.fixture
def mlbench(
    request: pytest.FixtureRequest,
    mlbench_case: Case,
    mlbench_device: Device | str,
    mlbench_model: Path | str | None,
) -> Bench:
    """Return the case, ready to run: `mlbench.run()` measures it and holds its expectations."""
    session = request.config.stash[KEY]
    try:
        device = _device(session.registry, mlbench_device)
    except MlbenchError as error:
        pytest.fail(f"fixture mlbench_device: {error}", pytrace=False)
    model = None if mlbench_model is None else Path(mlbench_model)
    bench = Bench(session, mlbench_case, device, model)
    request.node.stash[Bench.KEY] = bench
    return bench


def _device(registry: Registry, given: Device | str) -> Device:
    """Return the device a fixture gave: the registered one of that name, or an object that has all it takes."""
    if isinstance(given, str):
        return registry.device(given)
    if isinstance(given, Choice):
        return given
    missing = [name for name in DEVICE_MEMBERS if not hasattr(given, name)]
    if missing:
        raise MlbenchError(
            f"{type(given).__name__} has no {', '.join(missing)}; a device has {', '.join(DEVICE_MEMBERS)} "
            "(pytest_mlbench.devices.api.Device), or give the name of a registered one"
        )
    return given
