"""NVIDIA GPUs of this machine: `cuda.0`, `cuda.1`, ... in a suite, or by UUID in a lab file (`type = "cuda"`).

A case holds the processor beside its GPU. A host thread launches every kernel, so what else computes there shows in
the latency of small models; two GPUs of one machine are therefore never timed at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_mlbench import nvml
from pytest_mlbench.devices.api import Setting
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import Unavailable
from pytest_mlbench.lab import LabDevice

VERIFIED = "own simulator"  # no driver of ours has met a GPU yet; see docs/how-to/gpu.md
_CPU = Cpu()


@dataclass(frozen=True)
class CudaDevice:
    """Run agents as child processes on this machine, which compute on one GPU.

    `which` is its place among the visible GPUs, or its UUID. `library` is what stands in for pynvml in tests.
    """

    name: str
    which: int | str
    wired: tuple[str, ...] = ()  # what a lab file wires to it: a meter, a switch
    library: Any = field(default=None, compare=False)
    shares: tuple[str, ...] = ()
    verified: str = VERIFIED
    is_host: bool = True
    frameworks: tuple[str, ...] = ("torch", "onnxruntime_gpu")
    emulated: bool = False
    shipped: tuple[str, ...] = ()
    places: tuple[str, ...] = ("cuda", "tensorrt")

    @property
    def resources(self) -> tuple[str, ...]:
        """Return its name, what is wired to it, the GPU itself (one GPU may have two names) and the processor."""
        known = () if self._found[1] else (f"gpu.{self.gpu.uuid}",)
        return (self.name, *self.wired, *known, "cpu")

    @cached_property
    def _found(self) -> tuple[tuple[nvml.Nvml, Any] | None, str]:
        """Look for the GPU once: the library with its handle, or why there is none."""
        try:
            library = nvml.connect(self.library)
            return (library, library.handle(self.which)), ""
        except Unavailable as error:
            return None, str(error)

    def _handle(self) -> tuple[nvml.Nvml, Any]:
        found, reason = self._found
        if found is None:
            raise Unavailable(f"{self.name}: {reason}")
        return found

    @cached_property
    def gpu(self) -> nvml.Gpu:
        """Return which GPU it is; Unavailable without one."""
        library, handle = self._handle()
        return library.gpu(handle)

    def gateway(self, python: Path | None) -> str:
        """Return the specification of an agent on this machine."""
        return _CPU.gateway(python)

    def connection(self) -> Mapping[str, Any]:
        """Return nothing: the agent computes itself."""
        return {}

    def place(self, file: Path) -> str:
        """Return the path as it is: the agent sees the host's files."""
        return str(file)

    def facts(self) -> Mapping[str, Any]:
        """Return what identifies the GPU, and the processor that launches its kernels."""
        return {**_CPU.facts(), **nvml.facts_of(self.gpu)}

    def probe(self) -> str:
        """Say why the GPU cannot be used: no nvidia-ml-py, no driver, no such GPU."""
        return self._found[1]

    def absent(self) -> str:
        """Say why this machine has no such GPU; its cases are then skipped."""
        return self.probe()

    def adapter_options(self) -> Mapping[str, Any]:
        """Return what an adapter needs: it shows CUDA this GPU alone, which is then its first."""
        return {"device": "cuda:0", "visible": self.gpu.uuid}

    def reading(self) -> Mapping[str, Any]:
        """Return the state of the GPU just now, as plain values."""
        library, handle = self._handle()
        return asdict(library.state(handle))

    def unfit(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        """Return what made the time between two readings unfit to judge by."""
        return nvml.troubles(nvml.GpuState(**before), nvml.GpuState(**after))

    def process_bytes(self, pid: int) -> int | None:
        """Return the memory a process holds on the GPU; None where NVML does not tell."""
        library, handle = self._handle()
        return library.process_bytes(handle, pid)


@dataclass(frozen=True)
class CudaType:
    """GPUs in a lab file; those that are not in one are numbered by the machine."""

    settings: Mapping[str, Setting] = field(
        default_factory=lambda: MappingProxyType(
            {
                "index": Setting(int, "Its place among the GPUs that CUDA sees, counted from 0.", minimum=0),
                "uuid": Setting(
                    str, "Its UUID, as `nvidia-smi -L` prints it.", pattern=r"(GPU|MIG)-[0-9a-fA-F-]+", unique=True
                ),
            }
        )
    )
    verified: str = VERIFIED

    def make(self, entry: LabDevice) -> CudaDevice:
        """Return the GPU a lab file describes by `uuid` or by `index`; SuiteError for both or neither."""
        index, uuid = entry.settings.get("index"), entry.settings.get("uuid")
        if (index is None) == (uuid is None):
            raise entry.error(
                "uuid", "give either `uuid` or `index`, which says what GPU it is; `nvidia-smi -L` lists them"
            )
        which: int | str = uuid if uuid is not None else int(index or 0)
        return CudaDevice(entry.name, which, entry.resources[1:])

    def numbered(self, name: str, index: int) -> CudaDevice:
        """Return the GPU at a place among those that CUDA sees."""
        return CudaDevice(name, index)

    def present(self) -> int:
        """Return how many GPUs CUDA sees, as far as NVML tells."""
        try:
            return nvml.connect().count()
        except Unavailable:
            return 0


TYPE = CudaType()
