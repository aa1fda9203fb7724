"""The adapter of LiteRT (ai-edge-litert); tflite_runtime_adapter drives tflite-runtime with it too."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api import Node, Placement, TensorSpec
from .binding import check_inputs, precision, show_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "ai_edge_litert"

_COMPUTE = {
    "CONV_2D", "CONV_3D", "CONV_3D_TRANSPOSE", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED",
    "BATCH_MATMUL", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "RNN", "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "STABLEHLO_CONVOLUTION",
    "STABLEHLO_DOT_GENERAL",
}  # fmt: skip
# Their operands are output shape, weight, activation; elsewhere activation, weight.
_TRANSPOSED = {"TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"}


def versions() -> dict[str, str]:
    """Name the installed LiteRT."""
    return package_versions(NAME)


def load(path: str, options: Mapping[str, Any]) -> LitertSession:
    """Load a TFLite file; `options` are those of pytest_mlbench.frameworks.litert."""
    return LitertSession(path, dict(options), NAME)


def package_versions(package: str) -> dict[str, str]:
    """Name the version of the package whose interpreter is used."""
    return {package: str(importlib.import_module(package).__version__)}


class LitertSession:
    """One TFLite model in an interpreter of LiteRT or tflite-runtime; see agent/api.py.

    Tensors are copied in and out, as the interpreter's API does. A dimension can be resized only where the
    file's shape signature leaves it free: elsewhere constants inside the graph may hold the old size.
    """

    def __init__(self, path: str, options: dict[str, Any], package: str) -> None:
        self._package = package
        library: Any = importlib.import_module(package + ".interpreter")
        self._delegate = str(options.get("delegate", "xnnpack"))
        resolver = {"xnnpack": "AUTO", "none": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}[self._delegate]
        self._interpreter: Any = library.Interpreter(
            model_path=path,
            num_threads=int(options.get("threads", 1)),
            experimental_op_resolver_type=getattr(library.OpResolverType, resolver),
        )
        self._interpreter.allocate_tensors()
        arguments, results = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs = [_spec(detail) for detail in arguments]
        self.outputs = [_spec(detail) for detail in results]
        self._indexes = {detail["name"]: int(detail["index"]) for detail in arguments}
        self._results = [(detail["name"], int(detail["index"])) for detail in results]
        self._shapes: dict[str, tuple[int, ...]] | None = {
            detail["name"]: tuple(int(size) for size in detail["shape"]) for detail in arguments
        }
        # The framework's own call, with no frame of ours around it: this is what is timed.
        self.invoke: Callable[[], None] = self._interpreter.invoke

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Copy the arrays into the interpreter, after resizing it when a shape changed."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            self._resize(inputs, shapes)
        for name, array in inputs.items():
            self._interpreter.set_tensor(self._indexes[name], array)

    def _resize(self, inputs: dict[str, np.ndarray[Any, Any]], shapes: dict[str, tuple[int, ...]]) -> None:
        check_inputs(self.inputs, inputs)
        self._shapes = None  # should the rest fail, the next bind() starts from here
        try:
            for name, shape in shapes.items():
                self._interpreter.resize_tensor_input(self._indexes[name], shape, strict=True)
            self._interpreter.allocate_tensors()
        except RuntimeError as error:
            asked = ", ".join(f"{name!r} {show_shape(shape)}" for name, shape in shapes.items())
            raise ValueError(f"the model cannot be resized to {asked}, though its shapes are free: {error}") from None
        self._shapes = shapes

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the outputs of the last call."""
        return {name: self._interpreter.get_tensor(index) for name, index in self._results}

    def placement(self) -> Placement:
        """Read the interpreter's node list, where what a delegate took stays beside a DELEGATE node."""
        source = f"{self._package} interpreter node list"
        try:
            ops = self._interpreter._get_ops_details()
        except (AttributeError, ValueError) as error:
            return Placement(source, reason=f"the interpreter does not list its nodes: {error}")
        details = {int(detail["index"]): detail for detail in self._interpreter.get_tensor_details()}
        types = {index: _dtype_name(detail["dtype"]) for index, detail in details.items()}
        taken = _delegated(ops)
        nodes = []
        for op in ops:
            if op["op_name"] == "DELEGATE":
                continue
            index = int(op["index"])
            name = details.get(int(op["outputs"][0]), {}).get("name", "") if len(op["outputs"]) else ""
            where = self._delegate if index in taken else "cpu"
            compute = op["op_name"] in _COMPUTE
            nodes.append(Node(name or f"{index}", op["op_name"], where, _op_precision(op, types), compute))
        notes = {"delegate": self._delegate, "delegated_nodes": len(taken)}
        return Placement(source, tuple(nodes), "" if nodes else "the interpreter lists no node", notes)

    def close(self) -> None:
        """Free the interpreter; a call after it fails."""
        self.invoke = _closed
        self._interpreter = None


def _closed() -> None:
    raise RuntimeError("this LiteRT session is closed")


def _dtype_name(dtype: Any) -> str:
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype)


def _spec(detail: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(int(size) for size in detail["shape"])
    signature = tuple(int(size) for size in detail.get("shape_signature", ()))
    scales = detail["quantization_parameters"]["scales"]
    points = detail["quantization_parameters"]["zero_points"]
    return TensorSpec(
        name=detail["name"],
        dtype=_dtype_name(detail["dtype"]),
        shape=signature if len(signature) == len(shape) else shape,
        scale=float(scales[0]) if len(scales) == 1 else None,
        zero_point=int(points[0]) if len(points) == 1 else 0,
    )


def _delegated(ops: list[dict[str, Any]]) -> set[int]:
    """Find the operators that run inside a delegate.

    A DELEGATE node has the inputs and outputs of the part of the graph it stands for, so that part is what is
    met going back from its outputs before its inputs are reached.
    """
    producer = {int(tensor): op for op in ops if op["op_name"] != "DELEGATE" for tensor in op["outputs"]}
    taken: set[int] = set()
    for delegate in ops:
        if delegate["op_name"] != "DELEGATE":
            continue
        edge = {int(tensor) for tensor in delegate["inputs"]}
        waiting = [int(tensor) for tensor in delegate["outputs"]]
        while waiting:
            op = producer.get(waiting.pop())
            if op is None or int(op["index"]) in taken:
                continue
            taken.add(int(op["index"]))
            waiting += [int(tensor) for tensor in op["inputs"] if int(tensor) not in edge]
    return taken


def _op_precision(op: Mapping[str, Any], types: Mapping[int, str]) -> str:
    """Tell what an operator computes in from the types of its activation and of its weight.

    Float activations with integer weights may be computed either way (XNNPACK and the built-in kernels
    differ, and by version), and the interpreter does not tell which: unknown.
    """
    tensors = [types.get(int(tensor), "") for tensor in op["inputs"] if int(tensor) >= 0]
    if not tensors:
        tensors = [types.get(int(tensor), "") for tensor in op["outputs"]]
    if op["op_name"] not in _COMPUTE or len(tensors) < 2:
        return precision(tensors[0]) if tensors else "unknown"
    activation = tensors[2] if op["op_name"] in _TRANSPOSED and len(tensors) > 2 else tensors[0]
    weight = tensors[1]
    if precision(activation) == precision(weight):
        return precision(activation)
    # 16-bit activations with 8-bit weights are TFLite's 16x8 kernels.
    return "int16" if (activation, weight) == ("int16", "int8") else "unknown"
