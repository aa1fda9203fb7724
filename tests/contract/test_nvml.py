"""One contract for NVML: the fake that tests use, and the real library where there is a GPU."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from pathlib import Path

import pytest

import pytest_mlbench.nvml
from pytest_mlbench.errors import Unavailable
from pytest_mlbench.nvml import REASONS, Nvml, connect
from pytest_mlbench.testing.fake_nvml import FakeNvml

SOURCE = Path(pytest_mlbench.nvml.__file__).read_text(encoding="utf-8")
# What nvml.py names of the library: functions in quotes or called on it, constants and the exception.
USED = sorted(set(re.findall(r"\bnvml[A-Z]\w+", SOURCE)) | set(re.findall(r"\bNVML(?:_\w+|Error)\b", SOURCE)))


@pytest.fixture(params=["fake", "real"])
def library(request):
    if request.param == "fake":
        return FakeNvml()
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVIDIA driver answers here ({error}), so the real library is not tried")
    if not count:
        pytest.skip("no GPU is here, so the real library is not tried")
    return pynvml


@pytest.fixture
def gpu(library):
    found = Nvml(library)
    return found, found.handle(0)


def test_used_names_are_found_in_the_source():
    assert "nvmlDeviceGetViolationStatus" in USED
    assert "NVML_PERF_POLICY_THERMAL" in USED
    assert len(USED) > 15


@pytest.mark.parametrize("name", USED)
def test_the_fake_has_what_is_used_as_the_real_one_has_it(name, require):
    require("pynvml")
    import pynvml

    real, fake = getattr(pynvml, name), getattr(FakeNvml(), name)
    if name.startswith("NVML_"):
        assert fake == real
    elif name.startswith("nvml"):
        given = [one for one in inspect.signature(real).parameters.values() if one.default is inspect.Parameter.empty]
        assert [one.name for one in given] == list(inspect.signature(fake).parameters)
    else:
        assert issubclass(fake, Exception)
        assert issubclass(real, Exception)


def test_the_reasons_are_the_real_librarys_bits(require):
    require("pynvml")
    import pynvml

    names = {
        "idle": "GpuIdle",
        "application_clocks": "ApplicationsClocksSetting",
        "power_cap": "SwPowerCap",
        "hw_slowdown": "HwSlowdown",
        "sync_boost": "SyncBoost",
        "sw_thermal": "SwThermalSlowdown",
        "hw_thermal": "HwThermalSlowdown",
        "hw_power_brake": "HwPowerBrakeSlowdown",
        "display_clocks": "DisplayClockSetting",
    }
    assert {bit: getattr(pynvml, f"nvmlClocksEventReason{names[word]}") for bit, word in REASONS.items()} == {
        bit: bit for bit in REASONS
    }


def test_a_gpu_says_who_it_is(gpu):
    found, handle = gpu
    told = found.gpu(handle)
    assert re.fullmatch(r"(GPU|MIG)-[0-9a-fA-F-]+", told.uuid)
    assert told.name
    assert re.fullmatch(r"\d+(\.\d+)+", told.driver)
    assert told.memory_bytes > 1 << 28
    assert told.max_sm_clock_mhz is None or told.max_sm_clock_mhz > 100


def test_a_gpu_is_found_again_by_its_uuid(gpu):
    found, handle = gpu
    uuid = found.gpu(handle).uuid
    assert found.gpu(found.handle(uuid)).uuid == uuid


def test_a_state_has_plain_values(gpu):
    found, handle = gpu
    state = found.state(handle)
    assert 0 <= state.temperature_c < 150
    assert state.power_limit_mw is None or state.power_limit_mw > 1000
    assert state.persistence in (True, False, None)
    assert state.reasons is None or all(isinstance(one, str) for one in state.reasons)
    assert state.used_bytes <= found.gpu(handle).memory_bytes
    assert state.thermal_violation_ns is None or state.thermal_violation_ns >= 0


def test_what_is_not_there_is_told(gpu):
    found, handle = gpu
    assert found.process_bytes(handle, 2**30) is None
    count = found.count()
    with pytest.raises(Unavailable, match=rf"there is no GPU {count} on this machine: .* seen, counted from 0"):
        found.handle(count)
    nobody = "GPU-ffffffff-ffff-ffff-ffff-ffffffffffff"
    with pytest.raises(Unavailable, match=rf"there is no GPU {nobody} on this machine \(NVML: .+\)"):
        found.handle(nobody)


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is an NVIDIA driver")  # noqa: PTH110
def test_the_real_library_without_a_driver_is_no_traceback():
    with pytest.raises(Unavailable) as caught:
        connect()
    assert re.fullmatch(r"no NVIDIA driver answers on this machine \(NVML: .+\); install or load it", str(caught.value))
