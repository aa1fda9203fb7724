"""The adapter of ONNX Runtime: a session with its inputs and outputs bound once, on the processor or a CUDA device."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api import Node, Placement, TensorSpec
from .binding import check_inputs, precision
from .cuda_device import select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "onnxruntime"

_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
# ONNX's own words for types, in `NodeArg.type` and in profiles, where numpy's name differs.
_DTYPES = {"float": "float32", "double": "float64", "string": "object"}

# Kernels that multiply integers whatever the types of their outer tensors are.
_INTEGER = {
    "ConvInteger", "QLinearConv", "QLinearConvTranspose", "MatMulInteger", "MatMulIntegerToFloat",
    "QLinearMatMul", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QGemm", "QAttention",
}  # fmt: skip
# Kernels whose arithmetic the profile does not show: weights are packed narrower than the activations.
_PACKED = {"MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized", "QMoE"}
_COMPUTE = _INTEGER | _PACKED - {"GatherBlockQuantized"} | {
    "Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvTranspose", "DeformConv", "Gemm", "FusedGemm",
    "GemmFloat8", "MatMul", "FusedMatMul", "FusedMatMulActivation", "TransposeMatMul", "Einsum", "LSTM",
    "GRU", "RNN", "Attention", "MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention",
    "MoE",
}  # fmt: skip
_ENGINE = "TRTKernel"  # begins the name of a part of the graph that TensorRT runs as one node
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"


def versions() -> dict[str, str]:
    """Name the installed ONNX Runtime."""
    import onnxruntime

    return {"onnxruntime": str(onnxruntime.__version__)}


def load(path: str, options: Mapping[str, Any]) -> OnnxruntimeSession:
    """Load an ONNX file; `options` are those of pytest_mlbench.frameworks.onnxruntime, and `device` ("cuda:0").

    Raises ImportError for a CUDA device when this build of ONNX Runtime has no provider for it or cannot start it.
    """
    return OnnxruntimeSession(path, dict(options))


class OnnxruntimeSession:
    """One ONNX model in ONNX Runtime; see agent/api.py.

    Outputs are bound without a buffer: ONNX Runtime allocates them in the first call and writes into the same
    memory in each call after it, so nothing is allocated in the timed region.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self._path = path
        self._options = options
        word, _, place = select(options).partition(":")
        self._place: tuple[str, int] = (word, int(place or 0))
        self._on_cpu = _on_processor(self._place)
        self._session = _open(path, options)
        arguments, results = self._session.get_inputs(), self._session.get_outputs()
        self.inputs = [_spec(argument) for argument in arguments]
        self.outputs = [_spec(result) for result in results]
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._bound: dict[str, np.ndarray[Any, Any]] = {}
        named = {size for argument in arguments for size in argument.shape if isinstance(size, str)}
        # A shape that depends on data, such as the number of boxes found, may change with any new input.
        self._shapes_vary = any(
            not isinstance(size, int) and size not in named for result in results for size in result.shape
        )
        self._binding = self._session.io_binding()
        self._bind_outputs()
        # The framework's own call, with no frame of ours around it: this is what is timed.
        run = functools.partial(self._session.run_with_iobinding, self._binding)
        self.invoke: Callable[[], None] = run if self._on_cpu else self._run_and_wait

    def _run_and_wait(self) -> None:
        """Run, then wait for the device, also should a later ONNX Runtime return before it is done."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Bind the arrays where they lie; nothing is copied, except to a device."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            check_inputs(self.inputs, inputs)
        for name, array in inputs.items():
            if self._on_cpu:
                self._binding.bind_cpu_input(name, array)
            else:
                self._binding.bind_ortvalue_input(name, _copied(array, self._place))
        if self._shapes_vary or shapes != self._shapes:
            self._bind_outputs()
        if not self._on_cpu:
            self._binding.synchronize_inputs()  # the copies end before the clock of `invoke` starts
        self._shapes = shapes
        self._bound = inputs

    def _bind_outputs(self) -> None:
        """Let the next call allocate the outputs: those of an earlier call keep that call's shape."""
        self._binding.clear_binding_outputs()
        for spec in self.outputs:
            self._binding.bind_output(spec.name, *self._place)

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the outputs of the last call."""
        arrays = self._binding.copy_outputs_to_cpu()
        return {spec.name: array for spec, array in zip(self.outputs, arrays)}  # noqa: B905  Python 3.9

    def placement(self) -> Placement:
        """Profile one run of a second session that has the same options and the last bound inputs."""
        source = "onnxruntime profiler"
        if not self._bound:
            return Placement(source, reason="no input was bound, so the profiler had nothing to run")
        with tempfile.TemporaryDirectory(prefix="mlbench-ort-") as folder:
            profiled = _open(self._path, self._options, profile=str(Path(folder) / "profile"))
            profiled.run(None, self._bound)
            events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
        nodes = _nodes(events)
        reason = "" if nodes else "the profile lists no kernel"
        return Placement(source, nodes, reason, {"graph_level": self._options.get("graph_level", "all")})

    def close(self) -> None:
        """Free the session; a call after it fails."""
        self.invoke = _closed
        self._bound = {}
        self._binding = self._session = None


def _closed() -> None:
    raise RuntimeError("this onnxruntime session is closed")


def _open(path: str, options: Mapping[str, Any], profile: str = "") -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    mode = _MODES[options.get("execution_mode", "sequential")]
    threads = int(options.get("threads", 1))
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = threads if mode == "ORT_PARALLEL" else 1
    settings.execution_mode = getattr(onnxruntime.ExecutionMode, mode)
    level = _LEVELS[options.get("graph_level", "all")]
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    spinning = "1" if options.get("spinning", True) else "0"
    settings.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    settings.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    if profile:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    providers = _providers(options)
    wanted = [name for name, _ in providers]
    version = f"onnxruntime {onnxruntime.__version__}"
    lacking = sorted(set(wanted) - set(onnxruntime.get_available_providers()))
    if lacking:
        raise ImportError(f"{version} was built without {' and '.join(lacking)}")
    session = onnxruntime.InferenceSession(path, settings, providers=providers)
    idle = sorted(set(wanted) - set(session.get_providers()))
    if idle:  # it goes on without them, on the processor
        raise ImportError(f"{version} could not start {' and '.join(idle)}: libraries of CUDA, cuDNN or TensorRT lack")
    return session


def _providers(options: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the providers to ask, best first, with their options."""
    word, _, place = str(options.get("device") or "cpu").partition(":")
    if word == "cpu":
        return [(_CPU, {})]
    found = [(_CUDA, {"device_id": place, "use_tf32": "0"}), (_CPU, {})]
    tensorrt = options.get("provider", "cuda") == "tensorrt"
    return [(_TENSORRT, {"device_id": place}), *found] if tensorrt else found


def _on_processor(place: tuple[str, int]) -> bool:
    return place[0] == "cpu"


def _copied(array: np.ndarray[Any, Any], place: tuple[str, int]) -> Any:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(array, *place)


def _spec(argument: Any) -> TensorSpec:
    # "tensor(float)"; a sequence or map keeps its own word, which no dtype matches.
    kind = argument.type[7:-1] if argument.type.startswith("tensor(") else argument.type
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)
    return TensorSpec(argument.name, _DTYPES.get(kind, kind), shape)


def _nodes(events: list[dict[str, Any]]) -> tuple[Node, ...]:
    """Read the kernels of a profile; a kernel inside a loop counts once, however often it ran."""
    nodes: dict[tuple[str, str, str], Node] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        arguments = event["args"]
        op = arguments["op_name"]
        name = name[: -len("_kernel_time")]
        where = arguments["provider"].replace("ExecutionProvider", "").lower()
        key = (name, op, arguments.get("node_index", ""))
        nodes[key] = Node(name, op, where, _kernel_precision(op, arguments), op in _COMPUTE or op.startswith(_ENGINE))
    return tuple(nodes.values())


def _kernel_precision(op: str, arguments: Mapping[str, Any]) -> str:
    """Take the type of a kernel's first tensor, which holds what it computes with, or the kernel's own.

    A QDQ model that was not fused shows DequantizeLinear and then a Conv over float: fp32, as it ran.
    """
    if op in _INTEGER:
        return "int8"
    if op in _PACKED or op.startswith(_ENGINE):
        return "unknown"
    types = arguments.get("input_type_shape") or arguments.get("output_type_shape")
    if not types:
        return "unknown"
    kind = str(next(iter(types[0]), ""))
    return precision(_DTYPES.get(kind, kind))
