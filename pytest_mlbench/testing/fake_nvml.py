"""NVIDIA's management library without a GPU: the functions of pynvml that nvml.py calls, on GPUs made by a test.

The same contract test holds it and, where there is a GPU, the real library (tests/contract/test_nvml.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

_NOT_SUPPORTED = "Not Supported"
_NOT_FOUND = "Not Found"
_INVALID = "Invalid Argument"


class NVMLError(Exception):
    """What every function raises; its text is NVML's own word for what went wrong."""


@dataclass
class Memory:
    """Bytes of a GPU's memory."""

    total: int
    used: int
    free: int


@dataclass
class Violation:
    """For how long a limit held the clock down: both in ns."""

    referenceTime: int
    violationTime: int


@dataclass
class Process:
    """A process that computes on a GPU; `usedGpuMemory` is None where the driver does not tell."""

    pid: int
    usedGpuMemory: int | None


@dataclass
class FakeGpu:
    """One GPU. A test changes its fields as a run goes on; `unsupported` names functions it does not have."""

    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    name: str = "NVIDIA Fake 1"
    memory: Memory = field(default_factory=lambda: Memory(16 << 30, 1 << 30, 15 << 30))
    clocks_mhz: dict[int, int] = field(default_factory=lambda: {1: 1410, 2: 1215})  # by NVML_CLOCK_SM, NVML_CLOCK_MEM
    max_clocks_mhz: dict[int, int] = field(default_factory=lambda: {1: 1980, 2: 2619})
    temperature_c: int = 41
    power_limit_mw: int = 300_000
    persistence: int = 1
    reasons: int = 0
    violation_ns: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})  # by NVML_PERF_POLICY_POWER, ..._THERMAL
    processes: list[Process] = field(default_factory=list)
    unsupported: Collection[str] = ()


class FakeNvml:
    """Stands in for the module pynvml: give it to nvml.connect() or to CudaDevice as `library`.

    `failure` is the text with which nvmlInit fails, as "Driver Not Loaded"; "" lets it work.
    """

    NVMLError = NVMLError
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    NVML_PERF_POLICY_POWER = 0
    NVML_PERF_POLICY_THERMAL = 1

    def __init__(self, gpus: Sequence[FakeGpu] | None = None, *, driver: str = "580.65.06", failure: str = "") -> None:
        self.gpus = [FakeGpu()] if gpus is None else list(gpus)
        self.driver = driver
        self.failure = failure
        self.calls: list[str] = []
        self._ready = False

    def _told(self, function: str, handle: FakeGpu | None = None) -> None:
        self.calls.append(function)
        if not self._ready:
            raise NVMLError("Uninitialized")
        if handle is not None and function in handle.unsupported:
            raise NVMLError(_NOT_SUPPORTED)

    def nvmlInit(self) -> None:
        """Make the library ready, or fail as it does without a driver."""
        self.calls.append("nvmlInit")
        if self.failure:
            raise NVMLError(self.failure)
        self._ready = True

    def nvmlSystemGetDriverVersion(self) -> str:
        """Return the version of the driver."""
        self._told("nvmlSystemGetDriverVersion")
        return self.driver

    def nvmlDeviceGetCount(self) -> int:
        """Return the number of GPUs."""
        self._told("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        """Return a GPU by its place on the bus."""
        self._told("nvmlDeviceGetHandleByIndex")
        if not 0 <= index < len(self.gpus):
            raise NVMLError(_INVALID)
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        """Return a GPU by its UUID."""
        self._told("nvmlDeviceGetHandleByUUID")
        found = [gpu for gpu in self.gpus if gpu.uuid == uuid]
        if not found:
            raise NVMLError(_NOT_FOUND)
        return found[0]

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:
        """Return the UUID."""
        return self._of("nvmlDeviceGetUUID", handle, lambda: handle.uuid)

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        """Return the name of the product."""
        return self._of("nvmlDeviceGetName", handle, lambda: handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> Memory:
        """Return total, used and free memory."""
        return self._of("nvmlDeviceGetMemoryInfo", handle, lambda: handle.memory)

    def nvmlDeviceGetClockInfo(self, handle: FakeGpu, type: int) -> int:
        """Return the present clock in MHz."""
        return self._of("nvmlDeviceGetClockInfo", handle, lambda: handle.clocks_mhz[type])

    def nvmlDeviceGetMaxClockInfo(self, handle: FakeGpu, type: int) -> int:
        """Return the highest clock in MHz."""
        return self._of("nvmlDeviceGetMaxClockInfo", handle, lambda: handle.max_clocks_mhz[type])

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:
        """Return degrees Celsius."""
        return self._of("nvmlDeviceGetTemperature", handle, lambda: handle.temperature_c)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        """Return milliwatts."""
        return self._of("nvmlDeviceGetEnforcedPowerLimit", handle, lambda: handle.power_limit_mw)

    def nvmlDeviceGetPersistenceMode(self, handle: FakeGpu) -> int:
        """Return 1 when the driver stays loaded without a client."""
        return self._of("nvmlDeviceGetPersistenceMode", handle, lambda: handle.persistence)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeGpu) -> int:
        """Return the bits of what holds the clock down just now."""
        return self._of("nvmlDeviceGetCurrentClocksEventReasons", handle, lambda: handle.reasons)

    def nvmlDeviceGetViolationStatus(self, device: FakeGpu, perfPolicyType: int) -> Violation:
        """Return for how long a limit has held the clock down."""
        function = "nvmlDeviceGetViolationStatus"
        return self._of(function, device, lambda: Violation(1, device.violation_ns[perfPolicyType]))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[Process]:
        """Return the processes that compute."""
        return self._of("nvmlDeviceGetComputeRunningProcesses", handle, lambda: list(handle.processes))

    def _of(self, function: str, handle: FakeGpu, value: Callable[[], T]) -> T:
        self._told(function, handle)
        return value()
