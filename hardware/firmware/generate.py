"""Turn an int8 TFLite model into a C header for the firmware, and the description that lies beside its image.

    python generate.py MODEL.tflite --model ID [--out FOLDER]      writes FOLDER/MODEL.h and FOLDER/MODEL.json

Needs ai-edge-litert, whose schema module reads the file. An operator or option that the kernels do not have is
refused by name.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

SMALLEST_OUTPUT_SCALE = 0.002  # results are printed with 3 decimals: a smaller quantum could not be told apart
SAME, VALID = 0, 1  # Padding of the TFLite schema
NONE, RELU, RELU6 = 0, 1, 3  # ActivationFunctionType
INT8, INT32 = 9, 2  # TensorType


class Unsupported(Exception):
    """Report a model that the firmware's kernels cannot run, and what of it."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file; `data` is None for what is computed."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    scales: tuple[float, ...]
    zero_point: int
    data: Ints | None


@dataclass(frozen=True)
class Layer:
    """One layer as the firmware runs it. Shapes are height, width, channels; a dense layer is 1 x 1."""

    kind: str  # conv, dense, max_pool
    source: tuple[int, int, int]
    result: tuple[int, int, int]
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)  # rows above, columns at the left
    zero_points: tuple[int, int] = (0, 0)  # of source and result
    clamp: tuple[int, int] = (-128, 127)
    weights: Ints | None = None  # output channel, row, column, input channel
    bias: Ints | None = None
    scaling: tuple[tuple[int, int], ...] = ()  # multiplier and shift of each output channel


def fixed_point(real: float) -> tuple[int, int]:
    """Return (multiplier, shift) with real = multiplier * 2^(shift - 31) and multiplier in [2^30, 2^31)."""
    if not 0 < real < 2**30:
        raise Unsupported(f"a scale of {real!r} between two layers")
    fraction, shift = math.frexp(real)
    multiplier = round(fraction * (1 << 31))
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    return multiplier, shift


class Model:
    """An int8 TFLite file with one chain of operators."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = schema.Model.GetRootAs(content, 0)
        if self._model.SubgraphsLength() != 1:
            raise Unsupported(f"{self._model.SubgraphsLength()} subgraphs instead of one")
        self._graph = self._model.Subgraphs(0)
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        codes = [self._model.OperatorCodes(index) for index in range(self._model.OperatorCodesLength())]
        self._operators = [names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]
        if self._graph.InputsLength() != 1 or self._graph.OutputsLength() != 1:
            raise Unsupported("several inputs or outputs")

    def tensor(self, index: int) -> Tensor:
        """Return one tensor."""
        found = self._graph.Tensors(index)
        quantization = found.Quantization()
        scales: Sequence[float] = ()
        zeros: Sequence[int] = ()
        if quantization is not None and quantization.ScaleLength():
            scales, zeros = quantization.ScaleAsNumpy().tolist(), quantization.ZeroPointAsNumpy().tolist()
        shape = tuple(int(size) for size in found.ShapeAsNumpy()) if found.ShapeLength() else ()
        raw = self._model.Buffers(found.Buffer()).DataAsNumpy() if found.Buffer() else 0
        data = None
        if not isinstance(raw, int):  # 0 stands for a buffer without data
            kind = {INT8: "<i1", INT32: "<i4"}.get(found.Type())
            if kind is None:
                raise Unsupported(f"tensor {found.Name().decode()!r} is not int8 or int32")
            data = np.frombuffer(raw.tobytes(), kind).astype(np.int64).reshape(shape)
        return Tensor(
            found.Name().decode(), found.Type(), shape, tuple(scales), int(zeros[0]) if len(zeros) else 0, data
        )

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the input and the output."""
        source, sink = self.tensor(self._graph.Inputs(0)), self.tensor(self._graph.Outputs(0))
        for one in (source, sink):
            if one.dtype != INT8:
                raise Unsupported(f"tensor {one.name!r} at an end is not int8; quantise inputs and outputs too")
        if sink.scales[0] < SMALLEST_OUTPUT_SCALE:
            raise Unsupported(f"an output scale of {sink.scales[0]:g}, too fine for results with 3 decimals")
        return source, sink

    def layers(self) -> list[Layer]:
        """Return the layers in order. A reshape moves no data and vanishes."""
        found: list[Layer] = []
        last = self._graph.Inputs(0)
        for index in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(index)
            if operator.Inputs(0) != last:
                raise Unsupported("a graph that is no chain")
            last = operator.Outputs(0)
            name = self._operators[operator.OpcodeIndex()]
            if name == "RESHAPE":
                continue
            made = {"CONV_2D": self._conv, "FULLY_CONNECTED": self._dense, "MAX_POOL_2D": self._max_pool}.get(name)
            if made is None:
                raise Unsupported(f"operator {name}")
            found.append(made(operator))
        return found

    def _options(self, operator: Any, name: str) -> Any:
        table = operator.BuiltinOptions()
        options = getattr(self._schema, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def _arithmetic(self, operator: Any, activation: int) -> dict[str, Any]:
        """Return what a layer with weights has: bias, scaling, zero points and bounds."""
        source, weights, bias = (self.tensor(operator.Inputs(place)) for place in range(3))
        sink = self.tensor(operator.Outputs(0))
        if bias.data is None or weights.data is None:
            raise Unsupported(f"a layer without constant weights and bias ({sink.name!r})")
        channels = sink.shape[-1]
        scales = weights.scales if len(weights.scales) == channels else weights.scales * channels
        return {
            "zero_points": (source.zero_point, sink.zero_point),
            "clamp": _clamp(activation, sink),
            "bias": bias.data,
            "scaling": tuple(fixed_point(source.scales[0] * scale / sink.scales[0]) for scale in scales),
        }

    def _conv(self, operator: Any) -> Layer:
        options = self._options(operator, "Conv2DOptions")
        source, weights = self.tensor(operator.Inputs(0)), self.tensor(operator.Inputs(1))
        if (options.DilationHFactor(), options.DilationWFactor()) != (1, 1):
            raise Unsupported("a dilated convolution")
        if weights.data is None or weights.shape[3] != source.shape[3]:
            raise Unsupported("a grouped convolution")
        return Layer(
            "conv",
            **self._window(operator, options, (weights.shape[1], weights.shape[2])),
            weights=weights.data,
            **self._arithmetic(operator, options.FusedActivationFunction()),
        )

    def _dense(self, operator: Any) -> Layer:
        options = self._options(operator, "FullyConnectedOptions")
        weights = self.tensor(operator.Inputs(1))
        if weights.data is None:
            raise Unsupported("a fully connected layer whose weights are computed")
        return Layer(
            "dense",
            (1, 1, weights.shape[1]),
            (1, 1, weights.shape[0]),
            weights=weights.data.reshape(weights.shape[0], 1, 1, weights.shape[1]),
            **self._arithmetic(operator, options.FusedActivationFunction()),
        )

    def _max_pool(self, operator: Any) -> Layer:
        options = self._options(operator, "Pool2DOptions")
        sink = self.tensor(operator.Outputs(0))
        kernel = (options.FilterHeight(), options.FilterWidth())
        clamp = _clamp(options.FusedActivationFunction(), sink)
        return Layer("max_pool", **self._window(operator, options, kernel), kernel=kernel, clamp=clamp)

    def _window(self, operator: Any, options: Any, kernel: tuple[int, int]) -> dict[str, Any]:
        """Return shapes, strides and the padding at the top and left of a sliding window."""
        source, sink = (self.tensor(index).shape[1:] for index in (operator.Inputs(0), operator.Outputs(0)))
        stride = (options.StrideH(), options.StrideW())
        pad = (0, 0)
        if options.Padding() == SAME:
            pads = [max((sink[i] - 1) * stride[i] + kernel[i] - source[i], 0) // 2 for i in range(2)]
            pad = (pads[0], pads[1])
        found: dict[str, Any] = {"source": source, "result": sink, "stride": stride, "pad": pad}
        return found


def _clamp(activation: int, sink: Tensor) -> tuple[int, int]:
    """Return the bounds that a fused activation leaves of int8."""
    zero, scale = sink.zero_point, sink.scales[0]
    if activation == NONE:
        return -128, 127
    if activation == RELU:
        return max(-128, zero), 127
    if activation == RELU6:
        return max(-128, zero), min(127, zero + round(6.0 / scale))
    raise Unsupported(f"activation number {activation}")


def header(layers: Sequence[Layer], ends: tuple[Tensor, Tensor], model: str, origin: str) -> str:
    """Return the C header that model.c includes."""
    source, sink = ends
    lines = [f"/* Made by generate.py from {origin}; do not edit. */", "#pragma once", '#include "network.h"', ""]
    for number, layer in enumerate(layers):
        if layer.weights is None or layer.bias is None:
            continue
        lines += _array("int8_t", f"weights_{number}", layer.weights)
        lines += _array("int32_t", f"bias_{number}", layer.bias)
        lines += _array("int32_t", f"multiplier_{number}", np.array([one for one, _ in layer.scaling]))
        lines += _array("int8_t", f"shift_{number}", np.array([shift for _, shift in layer.scaling]))
    lines += ["static const layer_t layers[] = {"]
    lines += [f"  {_initializer(number, layer)}," for number, layer in enumerate(layers)]
    lines += ["};", ""]
    largest = max(math.prod(shape) for layer in layers for shape in (layer.source, layer.result))
    lines += [
        f'#define MODEL_ID "{model}"',
        f"#define MODEL_INPUT_BYTES {math.prod(source.shape)}",
        f"#define MODEL_OUTPUTS {math.prod(sink.shape)}",
        f"#define MODEL_LARGEST {largest}",
        f"#define MODEL_OUTPUT_SCALE {float(np.float32(sink.scales[0])).hex()}f /* {sink.scales[0]:.8g} */",
        f"#define MODEL_OUTPUT_ZERO ({sink.zero_point})",
    ]
    return "\n".join(lines) + "\n"


def _array(kind: str, name: str, values: Ints) -> list[str]:
    flat = [str(int(value)) for value in values.reshape(-1)]
    rows = [", ".join(flat[start : start + 16]) for start in range(0, len(flat), 16)]
    return [f"static const {kind} {name}[{len(flat)}] = {{", *(f"  {row}," for row in rows), "};", ""]


def _initializer(number: int, layer: Layer) -> str:
    def braces(values: Sequence[int]) -> str:
        return "{" + ", ".join(str(value) for value in values) + "}"

    kernel = layer.kernel if layer.weights is None else layer.weights.shape[1:3]
    fields = [
        f".kind = LAYER_{layer.kind.upper()}",
        f".source = {braces(layer.source)}",
        f".result = {braces(layer.result)}",
        f".kernel = {braces(kernel)}",
        f".stride = {braces(layer.stride)}",
        f".pad = {braces(layer.pad)}",
        f".source_zero = {layer.zero_points[0]}",
        f".result_zero = {layer.zero_points[1]}",
        f".low = {layer.clamp[0]}",
        f".high = {layer.clamp[1]}",
    ]
    if layer.weights is not None:
        fields += [f".{name} = {name}_{number}" for name in ("weights", "bias", "multiplier", "shift")]
    return "{" + ", ".join(fields) + "}"


def description(layers: Sequence[Layer], ends: tuple[Tensor, Tensor], names: tuple[str, str], model: str) -> str:
    """Return the JSON text beside an image: what a driver must know of the model in it."""
    facts: dict[str, Any] = {"model": model}
    source, sink = ends
    for key, one, name in (("inputs", source, names[0]), ("outputs", sink, names[1])):
        facts[key] = [
            {
                "name": name,
                "dtype": "int8",
                "shape": list(one.shape),
                "scale": one.scales[0],
                "zero_point": one.zero_point,
            }
        ]
    facts["nodes"] = [
        {"name": f"layer_{number}", "op": layer.kind, "precision": "int8", "compute": layer.weights is not None}
        for number, layer in enumerate(layers)
    ]
    return json.dumps(facts, indent=2) + "\n"


def signature_names(content: bytes) -> tuple[str, str]:
    """Return what the file's own signature calls its input and output, as a framework would."""
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_content=content).get_signature_list()
    if len(found) != 1:
        raise Unsupported(f"{len(found)} signatures instead of one")
    (one,) = found.values()
    return one["inputs"][0], one["outputs"][0]


def main() -> int:
    """Write the header and the description of one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tflite", type=Path)
    parser.add_argument("--model", required=True, help="the model's name, which the board answers to `profile`")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models")
    given = parser.parse_args()
    try:
        content = given.tflite.read_bytes()
        if content[4:8] != b"TFL3":
            raise Unsupported("it: its bytes 4 to 7 are not TFL3, so it is no TFLite file")
        model = Model(content)
        ends, layers = model.ends, model.layers()
        text = header(layers, ends, given.model, given.tflite.name)
        facts = description(layers, ends, signature_names(content), given.model)
    except Unsupported as error:
        print(f"{given.tflite}: the firmware cannot run {error}", file=sys.stderr)
        return 1
    except (struct.error, IndexError, ValueError, RuntimeError) as error:  # the parsers', of what is cut or garbled
        print(f"{given.tflite} is damaged: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{given.tflite} cannot be read: {error.strerror}", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"{given.tflite.stem}.h").write_text(text, encoding="ascii")
    (given.out / f"{given.tflite.stem}.json").write_text(facts, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
