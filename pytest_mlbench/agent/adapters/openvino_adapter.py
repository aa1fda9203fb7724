"""The adapter of OpenVINO: one infer request on the CPU plugin that reads its inputs where they lie."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api import Node, Placement, TensorSpec
from .binding import asked_shape, check_inputs, precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "openvino"

# The CPU plugin's names of executed layers, then the model's own operators that may end inside a fused layer.
_COMPUTE_LAYERS = {
    "Convolution", "GroupConvolution", "BinaryConvolution", "Deconvolution", "DeformableConvolution",
    "FullyConnected", "MatMul", "RNNCell", "RNNSeq", "LSTMCell", "LSTMSequence", "GRUSequence", "AUGRUCell",
    "AUGRUSequence", "MHA", "ScaledDotProductAttention", "PagedAttention", "LLMMLP", "QKVProjection",
}  # fmt: skip
_COMPUTE_OPS = {
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData",
    "DeformableConvolution", "MatMul", "Einsum", "LSTMCell", "LSTMSequence", "GRUCell", "GRUSequence",
    "RNNCell", "RNNSequence", "ScaledDotProductAttention",
}  # fmt: skip
_NOT_EXECUTED = {"Input", "Output", "Const"}
_ELEMENTS = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64", "i8": "int8", "u8": "uint8",
    "i16": "int16", "u16": "uint16", "i32": "int32", "u32": "uint32", "i64": "int64", "u64": "uint64",
    "i4": "int4", "u4": "uint4", "boolean": "bool",
}  # fmt: skip


def versions() -> dict[str, str]:
    """Name the installed OpenVINO."""
    import openvino

    return {"openvino": str(openvino.__version__)}


def load(path: str, options: Mapping[str, Any]) -> OpenvinoSession:
    """Load an ONNX file; `options` are those of pytest_mlbench.frameworks.openvino."""
    return OpenvinoSession(path, dict(options))


class OpenvinoSession:
    """One ONNX model compiled for OpenVINO's CPU plugin; see agent/api.py.

    With `options["batch"]` a free first dimension is fixed before compiling, as one would deploy it (a small
    model is 20 % faster so); the session then takes that batch only. Without it, dimensions stay free.
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        import openvino

        self._openvino: Any = openvino
        core = openvino.Core()
        model = core.read_model(path)
        _fix_shapes(openvino, model, options)
        self.inputs = [_spec(port, _input_name(port)) for port in model.inputs]
        self.outputs = [_spec(port, _output_name(port)) for port in model.outputs]
        self._arithmetic = {op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in _COMPUTE_OPS}
        self._compiled: Any = core.compile_model(model, "CPU", _properties(options))
        self._request: Any = self._compiled.create_infer_request()
        self._indexes = {spec.name: index for index, spec in enumerate(self.inputs)}
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._bound: dict[str, np.ndarray[Any, Any]] = {}
        # The framework's own call, with no frame of ours around it: this is what is timed. Sharing returns
        # views of the outputs; without it each call would copy them.
        self.invoke: Callable[[], Any] = functools.partial(self._request.infer, share_outputs=True)

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Bind the arrays where they lie; only a read-only one is copied."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            check_inputs(self.inputs, inputs)
            self._shapes = shapes
        for name, array in inputs.items():
            tensor = self._openvino.Tensor(array, shared_memory=array.flags.writeable)
            self._request.set_input_tensor(self._indexes[name], tensor)
        self._bound = inputs  # a shared tensor does not keep its array alive

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the outputs of the last call."""
        return {
            spec.name: self._request.get_output_tensor(index).data.copy() for index, spec in enumerate(self.outputs)
        }

    def placement(self) -> Placement:
        """Read the compiled graph, whose nodes carry the layer and precision that the plugin chose."""
        nodes = []
        for op in self._compiled.get_runtime_model().get_ordered_ops():
            info = {key: _text(value) for key, value in op.get_rt_info().items()}
            layer = info.get("layerType", "")
            if layer in _NOT_EXECUTED:
                continue
            fused = set(info.get("originalLayersNames", "").split(","))
            element = info.get("runtimePrecision", "")
            word = precision(_ELEMENTS[element]) if element in _ELEMENTS else "unknown"
            compute = layer in _COMPUTE_LAYERS or not fused.isdisjoint(self._arithmetic)
            nodes.append(Node(op.get_friendly_name(), layer or op.get_type_name(), "cpu", word, compute))
        asked = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        notes = {"inference_precision": precision(_ELEMENTS.get(asked, asked))}
        reason = "" if nodes else "the runtime model lists no layer"
        return Placement("openvino get_runtime_model()", tuple(nodes), reason, notes)

    def close(self) -> None:
        """Free the compiled model; a call after it fails."""
        self.invoke = _closed
        self._bound = {}
        self._request = self._compiled = None


def _closed() -> None:
    raise RuntimeError("this OpenVINO session is closed")


def _properties(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": str(options.get("performance_hint", "latency")).upper(),
        "NUM_STREAMS": str(options.get("num_streams", 1)),
        "INFERENCE_NUM_THREADS": int(options.get("threads", 1)),
        # Without it the plugin runs fp32 files in bf16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": str(options.get("inference_precision", "f32")),
    }


def _fix_shapes(openvino: Any, model: Any, options: Mapping[str, Any]) -> None:
    """Fix what the model leaves free as far as it is told; what the file fixes stays."""
    batch = options.get("batch")
    fixed = {}
    for port in model.inputs:
        shape = openvino.PartialShape(port.partial_shape)
        spec = _spec(port, _input_name(port))
        asked = asked_shape(spec, options, alone=len(model.inputs) == 1) or []
        for place, size in enumerate(spec.shape):
            if size < 0 and len(asked) == len(spec.shape) and asked[place] > 0:
                shape[place] = asked[place]
        if batch and spec.shape and shape[0].is_dynamic:
            shape[0] = int(batch)
        if shape != port.partial_shape:
            fixed[port] = shape
    if fixed:
        model.reshape(fixed)


def _input_name(port: Any) -> str:
    return str(port.any_name)


def _output_name(port: Any) -> str:
    """Name an output as the file does: operators folded into it may have left further names on its tensor."""
    names = port.get_names()
    own = port.get_node().get_friendly_name().rpartition("/sink_port_")[0]
    return own if own in names else str(port.any_name) if names else str(port.get_node().get_friendly_name())


def _spec(port: Any, name: str) -> TensorSpec:
    element = port.element_type.get_type_name()
    sizes = port.partial_shape
    shape = () if sizes.rank.is_dynamic else tuple(-1 if s.is_dynamic else s.get_length() for s in sizes)
    return TensorSpec(name, _ELEMENTS.get(element, element), shape)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(getattr(value, "value", value))
