"""The adapter of Apache TVM: Relax's ONNX front end, compiled for the CPU untuned, run by the Relax VM.

prepare() writes a shared library and, beside it, a JSON file with what the library does not tell: its tensors
and, per kernel, the precision found in the lowered code.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api import Node, Placement, TensorSpec
from .binding import check_inputs, static_shapes
from .tvm_precision import kernel_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

NAME = "tvm"

_ENTRY = "main"
_SIDECAR = 1  # its layout; a file of another one is compiled again
_COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")  # what TVM looks for, in its order


def versions() -> dict[str, str]:
    """Name the installed TVM."""
    import tvm

    return {"tvm": str(tvm.__version__)}


def prepare(path: str, out_dir: str, options: Mapping[str, Any]) -> str:
    """Compile an ONNX file for `options["batch"]` (1 if not given) into `out_dir`; return the library's path.

    Shapes are fixed because code for a free batch takes twice as long here (TVM 0.27, small CNN). Raises
    RuntimeError when there is no C compiler to link with, before any work is done.
    """
    _require_compiler()
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    arguments = [value for value in model.graph.input if value.name not in constants]
    shapes = static_shapes([_declared(onnx, value) for value in arguments], options)
    target, cpu = _target(str(options.get("target", "native")))
    with tvm.transform.PassContext(opt_level=int(options.get("opt_level", 3))), target:
        module = relax.get_pipeline("zero")(from_onnx(model, shape_dict=shapes))
        entry = module[_ENTRY]
        types = getattr(entry.ret_ty, "fields", None) or [entry.ret_ty]
        sidecar = {
            "sidecar": _SIDECAR,
            "cpu": cpu,
            "target": str(target),
            "inputs": [_described(value.name, var.ty) for value, var in zip(arguments, entry.params)],  # noqa: B905
            "outputs": [_described(value.name, type_) for value, type_ in zip(model.graph.output, types)],  # noqa: B905
            "kernels": kernel_table(module),
        }
        library = tvm.compile(module, target=target)
    artefact = Path(out_dir) / f"{Path(path).stem}-{_digest(path, shapes, options)}.so"
    # The suffix stays: TVM and the linker choose what they write by it.
    partial = artefact.with_name(f"{artefact.stem}.{os.getpid()}.part.so")
    library.export_library(str(partial))
    _sidecar(artefact).write_text(json.dumps(sidecar, indent=1), encoding="utf-8")
    partial.replace(artefact)
    return str(artefact)


def load(path: str, options: Mapping[str, Any]) -> TvmSession:
    """Load a library that prepare() wrote; `options` are those of pytest_mlbench.frameworks.tvm."""
    return TvmSession(path, dict(options))


class TvmSession:
    """One compiled model in a Relax virtual machine; see agent/api.py.

    It takes the batch it was compiled for.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        sidecar = _read_sidecar(Path(path))
        # Read when the pool is made, once per process, by the first kernel that is parallel. Not
        # config_threadpool(): it makes the pool at once, which pins this thread (and so the agent) to a core.
        os.environ["TVM_NUM_THREADS"] = str(int(options.get("threads", 1)))
        import tvm
        from tvm import relax

        _check_cpu(sidecar["cpu"], path)
        self._tvm: Any = tvm
        self._relax: Any = relax
        self._kernels: dict[str, list[Any]] = sidecar["kernels"]
        self._notes = {"tuning": "none", "target": sidecar["target"]}
        self.inputs = [_spec(tensor) for tensor in sidecar["inputs"]]
        self.outputs = [_spec(tensor) for tensor in sidecar["outputs"]]
        self._library: Any = tvm.runtime.load_module(path)
        self._machine: Any = relax.VirtualMachine(self._library, tvm.cpu())
        self._tensors = {spec.name: tvm.runtime.empty(spec.shape, spec.dtype) for spec in self.inputs}
        self._machine.set_input(_ENTRY, *self._tensors.values())
        self._shapes: dict[str, tuple[int, ...]] | None = None
        # The framework's own call, with no frame of ours around it: this is what is timed.
        self.invoke: Callable[[], Any] = functools.partial(self._machine.module["invoke_stateful"], _ENTRY)

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Copy the arrays into the machine's own input tensors."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            check_inputs(self.inputs, inputs)
            self._shapes = shapes
        for name, array in inputs.items():
            self._tensors[name].copyfrom(array)

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the outputs of the last call."""
        found = self._machine.get_outputs(_ENTRY)
        tensors = [found] if hasattr(found, "numpy") else list(found)
        return {spec.name: tensor.numpy() for spec, tensor in zip(self.outputs, tensors)}  # noqa: B905  Python 3.9

    def placement(self) -> Placement:
        """Run once in a second machine that reports each call, and look up each kernel's precision."""
        called: list[str] = []

        def report(_function: Any, symbol: str, before: bool, _result: Any, *_args: Any) -> int:
            if before and not symbol.startswith("vm.builtin."):
                called.append(symbol)
            return 0  # VMInstrumentReturnKind: go on

        machine = self._relax.VirtualMachine(self._library, self._tvm.cpu())
        machine.set_instrument(report)
        machine[_ENTRY](*self._tensors.values())
        nodes = []
        for number, symbol in enumerate(called):
            op, word, compute = self._kernels.get(symbol, (symbol, "unknown", False))
            nodes.append(Node(f"{number}:{symbol}", op, "cpu", word, compute))
        source = "tvm relax VM instrument and lowered TIR"
        return Placement(source, tuple(nodes), "" if nodes else "the VM reported no kernel", dict(self._notes))

    def close(self) -> None:
        """Free the machine; a call after it fails."""
        self.invoke = _closed
        self._machine = self._library = None
        self._tensors = {}


def _closed() -> None:
    raise RuntimeError("this TVM session is closed")


def _digest(path: str, shapes: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Tell artefacts apart by name: a process that opens one path again gets the library it has already."""
    chosen = json.dumps([shapes, sorted(options.items()), versions()], default=str)
    return hashlib.sha256(Path(path).read_bytes() + chosen.encode()).hexdigest()[:12]


def _require_compiler() -> None:
    if not sys.platform.startswith(("linux", "darwin")) or os.environ.get("CXX") or os.environ.get("CC"):
        return
    if not any(shutil.which(name) for name in _COMPILERS):
        raise RuntimeError(
            "TVM needs a C compiler (cc, gcc or clang) to export a compiled model: install one "
            "(Debian: apt-get install gcc) or set CC to its path"
        )


def _target(name: str) -> tuple[Any, str]:
    """Make a target of `native`, a TVM tag or kind, or a JSON object; also returns the CPU it is bound to."""
    import tvm

    if name == "native":
        cpu = _this_cpu()
        return tvm.target.Target({"kind": "llvm", "mcpu": cpu}), cpu
    return tvm.target.Target(json.loads(name) if name.lstrip().startswith("{") else name), ""


def _this_cpu() -> str:
    import tvm

    return str(tvm.get_global_func("target.llvm_get_system_cpu")())


def _check_cpu(compiled_for: str, path: str) -> None:
    if compiled_for and compiled_for != _this_cpu():
        raise RuntimeError(
            f"{path} was compiled for {compiled_for}, this CPU is {_this_cpu()}: delete it so that it is "
            "compiled again, or set target = 'llvm' for code that any CPU of this kind runs"
        )


def _sidecar(artefact: Path) -> Path:
    return artefact.with_name(artefact.name + ".json")


def _read_sidecar(artefact: Path) -> dict[str, Any]:
    try:
        sidecar: dict[str, Any] = json.loads(_sidecar(artefact).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{_sidecar(artefact)} is missing: TVM loads what prepare() compiled, not {artefact.name} alone"
        ) from None
    if sidecar.get("sidecar") != _SIDECAR:
        raise RuntimeError(f"{artefact} was compiled by another version of this adapter: delete it")
    return sidecar


def _declared(onnx: Any, value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)


def _described(name: str, type_: Any) -> dict[str, Any]:
    # A size that depends on data is an expression, not a number.
    sizes = [int(size) if hasattr(size, "value") else -1 for size in type_.shape.values]
    return {"name": name, "dtype": str(type_.dtype), "shape": sizes}


def _spec(tensor: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(tensor["name"], tensor["dtype"], tuple(tensor["shape"]))
