"""What is read of a GPU and judged by: everything told, nothing told, and each thing that spoils a round."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields, replace

import pytest

from pytest_mlbench import nvml
from pytest_mlbench.errors import Unavailable
from pytest_mlbench.nvml import Gpu, GpuState, Nvml
from pytest_mlbench.testing.fake_nvml import FakeGpu, FakeNvml, Memory, Process

UUIDS = [f"GPU-{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "abc"]
CALM = GpuState(1410, 1215, 41, 300_000, True, 1 << 30, (), 0, 0, ())


def gpus(count: int = 3) -> list[FakeGpu]:
    return [FakeGpu(uuid=uuid, name=f"GPU {place}") for place, uuid in enumerate(UUIDS[:count])]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


# --- reading --------------------------------------------------------------------------------------------------


def test_a_gpu_and_its_state_are_read_whole():
    fake = FakeGpu(
        memory=Memory(80 << 30, 3 << 30, 77 << 30),
        temperature_c=55,
        reasons=0x4 | 0x20,
        violation_ns={0: 5_000, 1: 7_000},
        processes=[Process(900, None), Process(12, 1 << 20)],
        persistence=0,
    )
    found = Nvml(FakeNvml([fake]))
    assert found.gpu(fake) == Gpu(fake.uuid, "NVIDIA Fake 1", "580.65.06", 80 << 30, 1980, 2619)
    assert found.state(fake) == GpuState(
        sm_clock_mhz=1410,
        memory_clock_mhz=1215,
        temperature_c=55,
        power_limit_mw=300_000,
        persistence=False,
        used_bytes=3 << 30,
        reasons=("power_cap", "sw_thermal"),
        thermal_violation_ns=7_000,
        power_violation_ns=5_000,
        processes=(12, 900),
    )
    json.dumps(asdict(found.state(fake)))


def test_what_a_gpu_does_not_tell_is_none():
    functions = [name for name in dir(FakeNvml) if name.startswith("nvmlDeviceGet") and "Handle" not in name]
    silent = FakeGpu(unsupported=functions)
    found = Nvml(FakeNvml([silent]))
    assert all(value is None for value in vars(found.state(silent)).values())
    assert found.gpu(silent) == Gpu("", "", "580.65.06", None, None, None)
    assert found.process_bytes(silent, 1) is None


def test_a_library_too_old_to_know_a_function_tells_none():
    class Older(FakeNvml):
        nvmlDeviceGetCurrentClocksEventReasons = None

    library = Older()
    state = Nvml(library).state(library.gpus[0])
    assert state.reasons is None
    assert state.temperature_c == 41


def test_names_may_be_bytes_and_unknown_reasons_keep_their_bits():
    fake = FakeGpu(reasons=0x1 | 0x4000)
    fake.name = b"NVIDIA Older"
    found = Nvml(FakeNvml([fake]))
    assert found.gpu(fake).name == "NVIDIA Older"
    assert found.state(fake).reasons == ("idle", "0x4000")


def test_the_memory_of_a_process_is_its_own():
    fake = FakeGpu(processes=[Process(7, 100), Process(8, 900), Process(9, None)])
    found = Nvml(FakeNvml([fake]))
    assert [found.process_bytes(fake, pid) for pid in (7, 8, 9, 10)] == [100, 900, None, None]


# --- finding --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["GPU 0", "GPU 1", "GPU 2"]),
        ("2,0", ["GPU 2", "GPU 0"]),
        (f"{UUIDS[1]}", ["GPU 1"]),
        (" 1 , 2", ["GPU 1", "GPU 2"]),
        ("0,9,1", ["GPU 0"]),  # CUDA stops at the first that is not there
        ("-1", []),
        ("", []),
    ],
)
def test_gpus_are_counted_as_cuda_sees_them(monkeypatch, visible, names):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = Nvml(FakeNvml(gpus()))
    assert found.count() == len(names)
    assert [found.handle(place).name for place in range(len(names))] == names
    with pytest.raises(Unavailable):
        found.handle(len(names))


def test_a_gpu_that_is_not_there_is_told_with_those_that_are(monkeypatch):
    lists = "`nvidia-smi -L` lists them"
    for count, seen in ((0, "no GPU is"), (1, "1 GPU is"), (2, "2 GPUs are")):
        with pytest.raises(Unavailable) as caught:
            Nvml(FakeNvml(gpus(count))).handle(5)
        assert str(caught.value) == f"there is no GPU 5 on this machine: {seen} seen, counted from 0; {lists}"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(Unavailable) as caught:
        Nvml(FakeNvml(gpus())).handle(1)
    assert str(caught.value) == (
        "there is no GPU 1 on this machine: 1 GPU is seen, counted from 0 (CUDA_VISIBLE_DEVICES hides the rest); "
        + lists
    )
    with pytest.raises(
        Unavailable, match=r"^there is no GPU GPU-f on this machine \(NVML: Not Found\); `nvidia-smi -L`"
    ):
        Nvml(FakeNvml(gpus())).handle("GPU-f")


def test_without_a_driver_or_the_library_the_remedy_is_told(monkeypatch):
    with pytest.raises(Unavailable) as caught:
        nvml.connect(FakeNvml(failure="Driver Not Loaded"))
    assert str(caught.value) == (
        "no NVIDIA driver answers on this machine (NVML: Driver Not Loaded); install or load it"
    )
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Unavailable) as caught:
        nvml.connect()
    assert str(caught.value) == (
        "nvidia-ml-py is not installed, which tells the state of a GPU: pip install 'pytest-mlbench[nvidia]'"
    )


# --- judging --------------------------------------------------------------------------------------------------


def test_a_calm_round_and_one_that_tells_nothing_have_no_trouble():
    warmer = replace(CALM, sm_clock_mhz=1980, temperature_c=70, used_bytes=2 << 30, reasons=("power_cap",))
    silent = GpuState(**{one.name: None for one in fields(GpuState)})
    for before, after in ((CALM, CALM), (CALM, warmer), (silent, silent), (silent, CALM), (CALM, silent)):
        assert nvml.troubles(before, after) == []


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("hw_slowdown", "the hardware slowed the GPU down (heat or power)"),
        ("sw_thermal", "heat slowed the GPU down"),
        ("hw_thermal", "heat slowed the GPU down"),
        ("hw_power_brake", "the power supply slowed the GPU down"),
    ],
)
def test_a_gpu_that_is_slowed_down_at_either_end_is_unfit(reason, what):
    hot = replace(CALM, reasons=("power_cap", reason))
    for before, after in ((hot, CALM), (CALM, hot), (hot, hot)):
        assert nvml.troubles(before, after) == [
            f"{what}; cool it better, lower its power limit, or measure with pauses"
        ]


@pytest.mark.parametrize(
    "reason", ["idle", "application_clocks", "power_cap", "sync_boost", "display_clocks", "0x4000"]
)
def test_other_reasons_are_how_fast_the_gpu_is(reason):
    held = replace(CALM, reasons=(reason,), power_violation_ns=5_000_000)
    assert nvml.troubles(CALM, held) == []


def test_heat_between_the_readings_is_seen_by_its_counter():
    after = replace(CALM, thermal_violation_ns=12_000_000)
    told = ["heat slowed the GPU down for 12 ms; cool it better, lower its power limit, or measure with pauses"]
    assert nvml.troubles(CALM, after) == told
    assert nvml.troubles(CALM, replace(after, reasons=("hw_thermal",))) == told, "one thing is told once"
    assert nvml.troubles(after, after) == [], "what was before does not count"
    assert nvml.troubles(after, CALM) == [], "a driver that was loaded anew counts from nothing"
    assert nvml.troubles(replace(CALM, thermal_violation_ns=None), after) == []


def test_a_changed_power_limit_is_unfit():
    assert nvml.troubles(CALM, replace(CALM, power_limit_mw=250_500)) == [
        "the power limit of the GPU changed from 300 W to 250.5 W; stop what sets it"
    ]


def test_a_process_that_stays_on_the_gpu_is_unfit_and_one_that_goes_is_not():
    busy = replace(CALM, processes=(41, 77))
    assert nvml.troubles(busy, replace(busy, processes=(77, 900))) == [
        "other processes compute on the GPU (77); end them, or use another GPU"
    ]
    assert nvml.troubles(busy, replace(busy, processes=(900,))) == []
