"""GPUs as devices: their words and names, what they hold, what is missing, and what a case learns of them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pytest_mlbench import registry, rounds
from pytest_mlbench.agent.adapters import cuda_device
from pytest_mlbench.checks import placement
from pytest_mlbench.devices.api import Accelerator, Numbered, numbered_word
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.devices.cuda import TYPE, CudaDevice
from pytest_mlbench.errors import SuiteError, Unavailable
from pytest_mlbench.execute import Executor
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.lab import LabDevice
from pytest_mlbench.matrix import Case, expand
from pytest_mlbench.metrics import latency, memory
from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.rounds import Pairing
from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, ModelSpec, ScenarioSpec, SuiteSpec
from pytest_mlbench.suitefile import Known, suite_from_tables
from pytest_mlbench.tables import Traits
from pytest_mlbench.testing.fake_nvml import FakeGpu, FakeNvml, Process

VENDOR = Path(__file__).parents[1] / "vendor"
UUID = "GPU-aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
OTHER = "GPU-bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
PLAIN = Framework("torch", "onnx", "a", "json", "pip install torch")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def two() -> FakeNvml:
    return FakeNvml([FakeGpu(uuid=UUID, name="First"), FakeGpu(uuid=OTHER, name="Second")])


def gpu(which: int | str = 0, name: str = "cuda.0", **more) -> CudaDevice:
    return CudaDevice(name, which, library=two(), **more)


# --- the device -------------------------------------------------------------------------------------------------


def test_it_is_an_accelerator_and_the_processor_is_none():
    assert isinstance(gpu(), Accelerator)
    assert not isinstance(Cpu(), Accelerator)
    assert isinstance(TYPE, Numbered)
    assert gpu().verified == TYPE.verified == "own simulator", "until a run on hardware says otherwise"


def test_it_holds_the_gpu_whatever_its_name_and_the_processor_that_launches():
    assert gpu().resources == ("cuda.0", f"gpu.{UUID}", "cpu")
    assert gpu(UUID, "left", wired=("meter1",)).resources == ("left", "meter1", f"gpu.{UUID}", "cpu")
    assert gpu(1, "cuda.1").resources == ("cuda.1", f"gpu.{OTHER}", "cpu")


def test_what_identifies_it_is_the_gpu_its_driver_and_the_processor():
    facts = gpu(1).facts()
    assert (facts["gpu_name"], facts["gpu_uuid"], facts["gpu_driver"]) == ("Second", OTHER, "580.65.06")
    assert facts["processor"] == Cpu().facts()["processor"]
    json.dumps(dict(facts))


def test_an_adapter_is_shown_this_gpu_alone():
    assert gpu(1).adapter_options() == {"device": "cuda:0", "visible": OTHER}


def test_its_agents_and_files_are_those_of_this_machine(tmp_path):
    assert gpu().gateway(None) == Cpu().gateway(None)
    assert gpu().place(tmp_path / "m.onnx") == str(tmp_path / "m.onnx")
    assert gpu().connection() == {}


def test_without_a_gpu_it_says_why_and_holds_its_name():
    absent = CudaDevice("cuda.7", 7, library=two())
    reason = "there is no GPU 7 on this machine: 2 GPUs are seen, counted from 0; `nvidia-smi -L` lists them"
    assert absent.probe() == absent.absent() == reason
    assert absent.resources == ("cuda.7", "cpu")
    for use in (absent.facts, absent.adapter_options, absent.reading):
        with pytest.raises(Unavailable) as caught:
            use()
        assert str(caught.value) == f"cuda.7: {reason}"
    assert gpu().probe() == ""


def test_readings_are_plain_and_judged():
    library = two()
    device = CudaDevice("cuda.0", 0, library=library)
    before = device.reading()
    library.gpus[0].reasons = 0x40
    library.gpus[0].processes = [Process(5, 1 << 20)]
    after = device.reading()
    assert json.loads(json.dumps(before))["temperature_c"] == 41
    assert device.unfit(before, before) == []
    assert device.unfit(before, after) == [
        "heat slowed the GPU down; cool it better, lower its power limit, or measure with pauses"
    ]
    assert device.process_bytes(5) == 1 << 20
    assert device.process_bytes(6) is None


# --- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("cuda.0", ("cuda", 0)),
        ("cuda.12", ("cuda", 12)),
        *((word, None) for word in ("cuda", "cuda.", "cuda.01", "cuda.123", "cuda.-1", "rocm.0", "cuda.0.1", "cuda.²")),
    ],
)
def test_a_numbered_word_is_a_type_and_a_place(word, found):
    assert numbered_word(word, ("cuda",)) == found


def test_the_registry_makes_gpus_by_number():
    found = registry.Registry()
    assert "cuda.0" in found.devices
    assert "cuda" in found.device_types
    for place in (0, 3):
        device = found.device(f"cuda.{place}")
        assert (device.name, device.which) == (f"cuda.{place}", place)
    with pytest.raises(SuiteError, match=r'"cuda" is a type of device'):
        found.device("cuda")
    with pytest.raises(SuiteError, match=r"cuda\.x"):
        found.device("cuda.x")


def entry(**settings) -> LabDevice:
    return LabDevice("left", "cuda", Path("lab.toml"), settings={"index": None, "uuid": None, **settings})


def test_a_lab_file_names_a_gpu_by_uuid_or_index():
    assert TYPE.make(entry(uuid=UUID)).which == UUID
    assert TYPE.make(entry(index=0)).which == 0
    assert TYPE.make(entry(index=2)).name == "left"


@pytest.mark.parametrize("settings", [{}, {"index": 0, "uuid": UUID}])
def test_a_lab_file_that_names_none_or_two_is_refused(settings):
    with pytest.raises(SuiteError) as caught:
        TYPE.make(entry(**settings))
    assert str(caught.value) == (
        "lab.toml: device.left.uuid: give either `uuid` or `index`, which says what GPU it is; `nvidia-smi -L` lists "
        "them"
    )


def known(**more) -> Known:
    frameworks = {"torch": PLAIN, "litert": replace(PLAIN, name="litert")}
    traits = {"cuda.0": Traits(frameworks=gpu().frameworks), "cuda.5": Traits(frameworks=gpu().frameworks)}
    return Known(
        frameworks=frameworks,
        devices=("cpu", "cuda.0"),
        scenarios=("single_stream",),
        metrics={},
        device_types=("cuda",),
        numbered=("cuda",),
        traits=lambda device: traits.get(device, Traits()),
        **more,
    )


def cases(tmp_path, devices, **keys):
    model = {"name": "net", "files": {"onnx": {"fp32": "net.onnx"}}}
    base = {"name": "b", "model": ["net"], "framework": ["torch"], "precision": ["fp32"], "device": devices, **keys}
    tables = {"mlbench": 1, "model": [model], "benchmark": [base]}
    suite = suite_from_tables(tables, tmp_path / "bench_g.toml", known())
    return expand(suite, suite.benchmarks[0], known())


def test_ids_hold_the_word_of_any_place(tmp_path):
    found = cases(tmp_path, ["cpu", "cuda.0", "cuda.5"])
    assert [case.param for case in found] == ["net-torch-fp32-cpu", "net-torch-fp32-cuda.0", "net-torch-fp32-cuda.5"]


def test_frameworks_that_know_no_gpu_are_skipped_there(tmp_path):
    found = cases(tmp_path, ["cpu", "cuda.0"], framework=["torch", "litert"])
    assert [case.skip for case in found] == [None, None, None, "cuda.0 takes torch, onnxruntime_gpu only"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cuda:0", 'write "cuda.0": a case id holds no ":"'),
        ("cuda:12", 'write "cuda.12": a case id holds no ":"'),
        ("cuda", '"cuda" is a type of device'),
        ("cuda.x", '"cuda.x"'),
    ],
)
def test_other_words_are_refused_with_the_right_one(tmp_path, word, message):
    with pytest.raises(SuiteError) as caught:
        cases(tmp_path, [word])
    assert str(caught.value).startswith(f"{tmp_path / 'bench_g.toml'}: benchmark[0].device[0]: ")
    assert message in str(caught.value)


# --- a case on it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnCpu(CudaDevice):
    """A GPU for everything but the adapter, which computes on the processor."""

    places: tuple[str, ...] = ("cpu",)
    frameworks: tuple[str, ...] = ()

    def adapter_options(self):
        return {}


class Heating(dict):
    """Counts 5 ms of heat more at each reading."""

    def __getitem__(self, policy):
        self.update({policy: self.get(policy, 0) + 5_000_000})
        return self.get(policy)


@pytest.fixture
def executor(tmp_path, monkeypatch):
    """Return a function that makes a case of the framework with faults on a device."""
    for name in ("state", "cache"):
        monkeypatch.setenv(f"MLBENCH_{name.upper()}", str(tmp_path / name))
    monkeypatch.syspath_prepend(str(VENDOR))
    from mlbench_faulty import FRAMEWORK

    (tmp_path / "model.json").write_text(json.dumps({"weights": [[1.0, -1.0], [0.5, 0.25]]}), encoding="utf-8")
    (tmp_path / "bench_x.toml").touch()

    def make(device, **options) -> Executor:
        model = ModelSpec("net", files={"faulty": {"fp32": tmp_path / "model.json"}})
        framework = FrameworkSpec("faulty", "faulty", options)
        benchmark = BenchmarkSpec("b", ("net",), (framework,), ("fp32",), ("cuda.0",), timeout_s=20)
        whole = SuiteSpec("x", tmp_path / "bench_x.toml", {"net": model}, {}, (benchmark,))
        scenario = ScenarioSpec(min_duration_s=0.02, min_samples=8, warmup_s=0.0, warmup_samples=2)
        case = Case(whole, benchmark, model, framework, "fp32", "cuda.0", 1, None, scenario, "net-faulty-fp32-cuda.0")
        return Executor(Preparation(case, FRAMEWORK, device), registry.Registry())

    return make


def test_a_case_without_its_gpu_is_not_available(executor):
    with pytest.raises(Unavailable) as caught:
        executor(CudaDevice("cuda.0", 0, library=FakeNvml(failure="Driver Not Loaded")))
    assert str(caught.value) == (
        "cuda.0: no NVIDIA driver answers on this machine (NVML: Driver Not Loaded); install or load it"
    )


def test_adapters_are_given_the_device_and_it_tells_cases_apart(executor):
    on_gpu, on_cpu = executor(gpu()).preparation, executor(Cpu()).preparation
    assert on_gpu.options == {**on_cpu.options, "device": "cuda:0", "visible": UUID}


def test_a_record_holds_the_gpu_its_state_and_its_memory(executor):
    device = OnCpu("cuda.0", 0, library=two())
    executed = executor(device).run()
    assert executed.target["gpu_name"] == "First"
    for when in ("before", "after"):
        assert executed.environment[when]["accelerator"]["power_limit_mw"] == 300_000
        assert "load" in executed.environment[when]
    metrics = {metric.name: metric for metric in memory.measure(executed.measurement)}
    told = metrics["memory.device_peak"]
    assert told.value is None
    assert (
        told.reason == "neither the framework nor NVML tells what the process holds there (in a container NVML may not)"
    )


def test_the_driver_is_part_of_what_makes_records_comparable(executor):
    def fingerprint(library):
        return executor(OnCpu("cuda.0", 0, library=library)).run().fingerprint

    assert fingerprint(two()) == fingerprint(two())
    assert fingerprint(two()) != fingerprint(FakeNvml(two().gpus, driver="581.1"))


def test_memory_that_nvml_tells_is_the_agents_own(executor):
    class Telling(FakeNvml):
        def nvmlDeviceGetComputeRunningProcesses(self, handle):
            import psutil

            children = psutil.Process().children(recursive=True)
            return [Process(child.pid, 300 << 20) for child in children] + [Process(1, 900 << 20)]

    executed = executor(OnCpu("cuda.0", 0, library=Telling())).run()
    metrics = {metric.name: metric for metric in memory.measure(executed.measurement)}
    told = metrics["memory.device_peak"]
    assert (told.value, told.unit, told.direction) == (300 << 20, "bytes", "lower")
    assert told.note == "NVML, what the process holds after the timed pass"


def test_without_a_device_of_its_own_there_is_no_such_metric(executor):
    measurement = executor(Cpu()).run().measurement
    assert "memory.device_peak" not in {metric.name for metric in memory.measure(measurement)}
    told = replace(measurement, facts={**measurement.facts, "device_memory": {"peak_bytes": 7, "source": "torch"}})
    assert isinstance(told, Measurement)
    found = {metric.name: metric for metric in memory.measure(told)}["memory.device_peak"]
    assert (found.value, found.note) == (7, "torch")


def paired(executor, device):
    functions = {"latency": latency.measure, "memory": memory.measure}
    base, candidate = executor(device), executor(device)
    return Pairing(base, candidate, ("latency.p50",), functions, random.Random(1), 100.0, 1)


def test_a_round_keeps_the_state_of_the_gpu(executor, monkeypatch):
    monkeypatch.setattr(rounds, "BLOCKS", 2)
    (calm,) = paired(executor, OnCpu("cuda.0", 0, library=two())).take(1, "screen")
    assert not [one for one in calm.troubles if "GPU" in one]
    assert calm.to_json()["state"]["accelerator"]["before"]["temperature_c"] == 41
    (plain,) = paired(executor, Cpu()).take(1, "screen")
    assert "accelerator" not in plain.to_json()["state"]


def test_heat_during_a_round_is_its_trouble(executor):
    library = two()
    library.gpus[0].violation_ns = Heating()
    (hot,) = paired(executor, OnCpu("cuda.0", 0, library=library)).take(1, "screen")
    told = [one for one in hot.troubles if "GPU" in one]
    assert told == ["heat slowed the GPU down for 5 ms; cool it better, lower its power limit, or measure with pauses"]


# --- where nodes ran --------------------------------------------------------------------------------------------


def summary(*where: str, compute: bool = True):
    nodes = [
        {"name": f"n{place}", "op": "Conv", "where": word, "precision": "fp32", "compute": compute}
        for place, word in enumerate(where)
    ]
    return placement.summarise(nodes)


def test_nodes_on_the_device_pass():
    found = placement.check_device(summary("cuda", "tensorrt", "cuda"), "cuda.0", ("cuda", "tensorrt"))
    assert (found.name, found.outcome) == ("placement.device", "pass")
    assert found.message == "every computing node ran on cuda.0"


def test_computing_nodes_on_the_processor_fail_by_name():
    found = placement.check_device(summary("cuda", "cpu", "cuda", "cpu"), "cuda.0", ("cuda", "tensorrt"))
    assert found.outcome == "fail"
    assert found.message == (
        "labelled cuda.0 but computing nodes ran elsewhere (cpu 50 %): n1 (Conv), n3 (Conv); use operators that it "
        'has, or accept it with expect.placement = { cpu = "<= ..." }'
    )


def test_nothing_told_proves_nothing():
    for nodes in (summary(), summary("cuda", compute=False)):
        found = placement.check_device(nodes, "cuda.0", ("cuda",))
        assert found.outcome == "invalid"
        assert found.message.startswith("nothing proves that cuda.0 computed (")


# --- the adapters' half -----------------------------------------------------------------------------------------


def test_the_process_is_set_to_its_gpu_before_cuda_starts(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.setenv(name, "as it was")
    environment = cuda_device.os.environ
    assert cuda_device.select({}) == "cpu"
    assert environment["CUDA_VISIBLE_DEVICES"] == environment["NVIDIA_TF32_OVERRIDE"] == "as it was"
    assert cuda_device.select({"device": "cuda:0", "visible": OTHER}) == "cuda:0"
    assert environment["CUDA_VISIBLE_DEVICES"] == OTHER
    assert environment["NVIDIA_TF32_OVERRIDE"] == "0", "fp32 is not computed in TF32"
