"""What NVIDIA's management library tells of a GPU: who it is, its clocks, heat and limits, and what slows it down.

Read through nvidia-ml-py (module pynvml), or anything with the same functions. A value that a GPU or its driver does
not tell is None, never an error.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mlbench.errors import Unavailable

INSTALL = "pip install 'pytest-mlbench[nvidia]'"

# Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference, clocks event reasons), by names of our own.
REASONS = {
    0x01: "idle",
    0x02: "application_clocks",
    0x04: "power_cap",
    0x08: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}
# Those that mean that the GPU is unwell. At its power limit a GPU may be all day: that is how fast it is.
UNFIT = {
    "hw_slowdown": "the hardware slowed the GPU down (heat or power)",
    "sw_thermal": "heat slowed the GPU down",
    "hw_thermal": "heat slowed the GPU down",
    "hw_power_brake": "the power supply slowed the GPU down",
}


@dataclass(frozen=True)
class Gpu:
    """Which GPU it is, and with which driver."""

    uuid: str
    name: str
    driver: str
    memory_bytes: int | None
    max_sm_clock_mhz: int | None
    max_memory_clock_mhz: int | None


@dataclass(frozen=True)
class GpuState:
    """What changes from minute to minute; None where it is not told. Serialise it with dataclasses.asdict."""

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    power_limit_mw: int | None
    persistence: bool | None
    used_bytes: int | None
    reasons: tuple[str, ...] | None  # why the clock is not higher just now
    thermal_violation_ns: int | None  # for how long heat held the clock down, since the driver was loaded
    power_violation_ns: int | None
    processes: tuple[int, ...] | None  # that compute on it, as far as this process may see them


class Nvml:
    """The library, initialised; every reader is one query or a few."""

    def __init__(self, library: Any) -> None:
        """Initialise `library`; Unavailable, with the remedy, when there is no driver."""
        self._library = library
        try:
            library.nvmlInit()
        except library.NVMLError as error:
            raise Unavailable(f"no NVIDIA driver answers on this machine (NVML: {error}); install or load it") from None

    def count(self) -> int:
        """Return how many GPUs CUDA sees."""
        return len(_visible(os.environ.get("CUDA_VISIBLE_DEVICES"), int(self._tell("nvmlDeviceGetCount") or 0)))

    def handle(self, which: int | str) -> Any:
        """Return the handle of a GPU by its place among those that are visible, or by UUID; Unavailable without it.

        Places are counted as CUDA counts with CUDA_DEVICE_ORDER=PCI_BUS_ID; CUDA_VISIBLE_DEVICES is heeded.
        """
        library = self._library
        try:
            if isinstance(which, str):
                return library.nvmlDeviceGetHandleByUUID(which)
            visible = _visible(os.environ.get("CUDA_VISIBLE_DEVICES"), int(library.nvmlDeviceGetCount()))
            if which >= len(visible):
                raise Unavailable(_absent(which, len(visible)))
            one = visible[which]
            by_uuid = isinstance(one, str)
            return library.nvmlDeviceGetHandleByUUID(one) if by_uuid else library.nvmlDeviceGetHandleByIndex(one)
        except library.NVMLError as error:
            raise Unavailable(
                f"there is no GPU {which} on this machine (NVML: {error}); `nvidia-smi -L` lists them"
            ) from None

    def gpu(self, handle: Any) -> Gpu:
        """Return who a GPU is."""
        library = self._library
        memory = self._tell("nvmlDeviceGetMemoryInfo", handle)
        return Gpu(
            uuid=_text(self._tell("nvmlDeviceGetUUID", handle)),
            name=_text(self._tell("nvmlDeviceGetName", handle)),
            driver=_text(self._tell("nvmlSystemGetDriverVersion")),
            memory_bytes=None if memory is None else int(memory.total),
            max_sm_clock_mhz=self._tell("nvmlDeviceGetMaxClockInfo", handle, library.NVML_CLOCK_SM),
            max_memory_clock_mhz=self._tell("nvmlDeviceGetMaxClockInfo", handle, library.NVML_CLOCK_MEM),
        )

    def state(self, handle: Any) -> GpuState:
        """Return how a GPU is just now."""
        library = self._library
        memory = self._tell("nvmlDeviceGetMemoryInfo", handle)
        persistence = self._tell("nvmlDeviceGetPersistenceMode", handle)
        processes = self._tell("nvmlDeviceGetComputeRunningProcesses", handle)
        return GpuState(
            sm_clock_mhz=self._tell("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_SM),
            memory_clock_mhz=self._tell("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_MEM),
            temperature_c=self._tell("nvmlDeviceGetTemperature", handle, library.NVML_TEMPERATURE_GPU),
            power_limit_mw=self._tell("nvmlDeviceGetEnforcedPowerLimit", handle),
            persistence=None if persistence is None else bool(persistence),
            used_bytes=None if memory is None else int(memory.used),
            reasons=_reasons(self._tell("nvmlDeviceGetCurrentClocksEventReasons", handle)),
            thermal_violation_ns=self._violation(handle, library.NVML_PERF_POLICY_THERMAL),
            power_violation_ns=self._violation(handle, library.NVML_PERF_POLICY_POWER),
            processes=None if processes is None else tuple(sorted(int(one.pid) for one in processes)),
        )

    def process_bytes(self, handle: Any, pid: int) -> int | None:
        """Return the memory a process holds on a GPU; None where it is not told, as in most containers."""
        found = self._tell("nvmlDeviceGetComputeRunningProcesses", handle) or ()
        used = [one.usedGpuMemory for one in found if one.pid == pid and one.usedGpuMemory is not None]
        return int(max(used)) if used else None

    def _violation(self, handle: Any, policy: int) -> int | None:
        found = self._tell("nvmlDeviceGetViolationStatus", handle, policy)
        return None if found is None else int(found.violationTime)

    def _tell(self, function: str, *arguments: Any) -> Any:
        """Return what a query gives, None for one that this GPU, driver or version of the library has not."""
        query: Callable[..., Any] | None = getattr(self._library, function, None)
        try:
            return query(*arguments) if query is not None else None
        except self._library.NVMLError:
            return None


def connect(library: Any = None) -> Nvml:
    """Return the library of this machine; Unavailable when nvidia-ml-py or a driver is missing."""
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            raise Unavailable(f"nvidia-ml-py is not installed, which tells the state of a GPU: {INSTALL}") from None
    return Nvml(library)


def troubles(before: GpuState, after: GpuState) -> list[str]:
    """Return one sentence for each thing that makes a round between two states unfit; what is unknown is none."""
    found = []
    told = dict.fromkeys(UNFIT[one] for state in (before, after) for one in state.reasons or () if one in UNFIT)
    held_ns = (after.thermal_violation_ns or 0) - (before.thermal_violation_ns or 0)
    if held_ns > 0 and before.thermal_violation_ns is not None:
        told[f"{UNFIT['hw_thermal']} for {held_ns / 1e6:.0f} ms"] = None
        told.pop(UNFIT["hw_thermal"], None)
    found += [f"{one}; cool it better, lower its power limit, or measure with pauses" for one in told]
    if before.power_limit_mw != after.power_limit_mw and None not in (before.power_limit_mw, after.power_limit_mw):
        limits = f"from {(before.power_limit_mw or 0) / 1000:g} W to {(after.power_limit_mw or 0) / 1000:g} W"
        found.append(f"the power limit of the GPU changed {limits}; stop what sets it")
    others = sorted(set(before.processes or ()) & set(after.processes or ()))
    if others:
        which = ", ".join(map(str, others))
        found.append(f"other processes compute on the GPU ({which}); end them, or use another GPU")
    return found


def _visible(variable: str | None, count: int) -> list[int | str]:
    """Return the GPUs that CUDA sees, in its order: places among all, or UUIDs.

    As CUDA does, the list ends at the first entry that is not there; unset, all are seen.
    """
    if variable is None:
        return list(range(count))
    found: list[int | str] = []
    for word in (one.strip() for one in variable.split(",")):
        if word.startswith(("GPU-", "MIG-")):
            found.append(word)
        elif word.isascii() and word.isdecimal() and int(word) < count:
            found.append(int(word))
        else:
            break
    return found


def _absent(which: int, count: int) -> str:
    seen = "no GPU is" if not count else "1 GPU is" if count == 1 else f"{count} GPUs are"
    hidden = " (CUDA_VISIBLE_DEVICES hides the rest)" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
    return f"there is no GPU {which} on this machine: {seen} seen, counted from 0{hidden}; `nvidia-smi -L` lists them"


def _reasons(bits: int | None) -> tuple[str, ...] | None:
    if bits is None:
        return None
    known = tuple(name for bit, name in REASONS.items() if bits & bit)
    rest = bits & ~sum(REASONS)
    return (*known, hex(rest)) if rest else known


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def facts_of(gpu: Gpu) -> Mapping[str, Any]:
    """Return what a record says of a GPU."""
    return {f"gpu_{name}": value for name, value in vars(gpu).items()}
