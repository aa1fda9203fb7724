"""Write a first suite for a user's own model: `mlbench init MODEL.onnx|.tflite`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mlbench import assets
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.frameworks.api import Framework

_SAMPLES = 32
# What a free dimension becomes when nothing tells its size, and when it looks like an image's side.
_FREE = 16
_FREE_SIDE = 224
# Signal to noise, in dB, that another framework's outputs keep; measured ones are usually far above.
_SQNR_DB = {"fp64": 60, "fp32": 60, "fp16": 40, "bf16": 25, "int8": 20}
_QUANTIZED_OPS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
_FLOATS = {"float64": "fp64", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_INTERPRETERS = ("ai_edge_litert", "tflite_runtime")


@dataclass(frozen=True)
class Tensor:
    """An input or output: numpy's name of its type; None for a free dimension, whose name is in `free`."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    free: tuple[str, ...] = ()  # one word per dimension
    quantized: bool = False

    def text(self) -> str:
        """Return the tensor for people: `image float32 [N, 1, 8, 8]`."""
        words = self.free or ("",) * len(self.shape)
        sizes = [word or "?" if size is None else str(size) for size, word in zip(self.shape, words, strict=True)]
        return f"{self.name} {self.dtype} [{', '.join(sizes)}]"


@dataclass(frozen=True)
class Described:
    """What a model file tells of itself."""

    format: str
    precision: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def add_init(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `init`; the parsed arguments hold `run`, a function of them that returns the exit code."""
    parser = subparsers.add_parser(
        "init",
        help="write a suite for your own ONNX or TFLite model",
        description="Write bench_NAME.toml for a model from its inputs and outputs.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="an .onnx or .tflite file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the suite (default: suites/NAME)")
    parser.add_argument("--force", action="store_true", help="overwrite a suite that is there")
    parser.set_defaults(run=run_init)


def run_init(arguments: argparse.Namespace) -> int:
    """Write the suite that `mlbench init` was asked for and say how to run it."""
    # Here and not above: the registry loads every framework's description.
    from pytest_mlbench.registry import Registry

    path = write_suite(arguments.model, arguments.out, Registry().frameworks, force=arguments.force)
    print(f"wrote {path}\nrun it: pytest --mlbench {path}")
    return 0


def write_suite(model: Path, out: Path | None, frameworks: Mapping[str, Framework], *, force: bool = False) -> Path:
    """Write a suite for `model` into the folder `out` and return its path; None: `suites/NAME`.

    A model outside that folder is copied into `models/` beside the suite, with the files of its weights. Of
    `frameworks` those are named that load the format and are installed, or all of them when none is.
    Raises MlbenchError for a model that cannot be read or run on generated inputs, and for a file that is
    already there, unless `force` is set.
    """
    assets.check(model, suite=model, root=model.parent)
    described = describe(model)
    name = re.sub(r"[^A-Za-z0-9_.]", "_", model.stem)
    folder = out if out is not None else Path("suites") / name
    suite = folder / f"bench_{name}.toml"
    inside = model.resolve().is_relative_to(folder.resolve())
    copies = {} if inside else _copies(model, folder / "models")
    placed = model.resolve().relative_to(folder.resolve()) if inside else Path("models") / model.name
    for path in (suite, *copies.values()):
        if path.exists() and not force:
            raise MlbenchError(f"{path} exists; give --force to overwrite it, or another folder with --out")
    text = _text(name, placed.as_posix(), assets.sha256_of(model), described, _usable(described, frameworks))
    try:
        for source, target in copies.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        folder.mkdir(parents=True, exist_ok=True)
        suite.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MlbenchError(f"the suite cannot be written to {folder}: {error}") from error
    return suite


def describe(model: Path) -> Described:
    """Read inputs, outputs and precision of an ONNX or TFLite file.

    Raises MlbenchError when the file is neither, when what reads it is not installed, or when an input is no
    tensor of numbers.
    """
    suffix = model.suffix.lower()
    if suffix not in (".onnx", ".tflite"):
        raise MlbenchError(f"{model}: expected a file that ends in .onnx or .tflite")
    found = _describe_onnx(model) if suffix == ".onnx" else _describe_tflite(model)
    for tensor in found.inputs:
        if tensor.dtype not in _FLOATS and not re.fullmatch(r"u?int\d+|bool", tensor.dtype):
            message = f"{model}: input {tensor.name!r} is {tensor.dtype}, for which no samples can be generated"
            raise MlbenchError(f"{message}; write a suite with a stored data set or in Python")
    return found


def _describe_onnx(model: Path) -> Described:
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        install = "pip install 'pytest-mlbench[onnxruntime]'"
        raise MlbenchError(f"reading {model} needs the package onnx: {install}") from error
    unreadable = importlib.import_module("google.protobuf.message").DecodeError
    try:
        graph = onnx.load(model, load_external_data=False).graph
    except (unreadable, OSError, ValueError) as error:
        raise MlbenchError(f"{model} is not an ONNX model that can be read: {error}") from error
    if not graph.node:
        raise MlbenchError(f"{model} is not an ONNX model that can be run: it has no nodes")
    weights = {tensor.name for tensor in graph.initializer}

    def tensor(value: Any) -> Tensor:  # a ValueInfoProto
        if not value.type.HasField("tensor_type"):
            return Tensor(value.name, str(value.type.WhichOneof("value") or "of no type"), ())
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            return Tensor(value.name, "of unknown rank", ())
        dims = kind.shape.dim
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else "of no type"
        return Tensor(
            name=value.name,
            dtype=dtype,
            shape=tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims),
            free=tuple(dim.dim_param for dim in dims),
        )

    return Described(
        "onnx",
        _onnx_precision(graph, onnx),
        tuple(tensor(value) for value in graph.input if value.name not in weights),
        tuple(tensor(value) for value in graph.output),
    )


def _onnx_precision(graph: Any, onnx: Any) -> str:  # a GraphProto and the module
    """Return the precision most weights have; int8 as soon as there are quantised operators."""
    if any(node.op_type in _QUANTIZED_OPS for node in graph.node):
        return "int8"
    sizes: dict[str, int] = {}
    for weight in graph.initializer:
        kind = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).name
        count = 1
        for size in weight.dims:
            count *= size
        sizes[kind] = sizes.get(kind, 0) + count
    floats = {kind: size for kind, size in sizes.items() if kind in _FLOATS}
    return _FLOATS[max(floats, key=lambda kind: floats[kind])] if floats else "fp32"


def _describe_tflite(model: Path) -> Described:
    package = next((name for name in _INTERPRETERS if importlib.util.find_spec(name) is not None), None)
    if package is None:
        install = "pip install 'pytest-mlbench[litert]'"
        raise MlbenchError(f"reading {model} needs LiteRT: {install}")
    library = importlib.import_module(f"{package}.interpreter")
    try:
        interpreter = library.Interpreter(model_path=str(model))
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        details = interpreter.get_tensor_details()
    except (ValueError, RuntimeError, SystemError) as error:
        raise MlbenchError(f"{model} is not a TFLite model that {package} can read: {error}") from error
    types = {_dtype(detail) for detail in details}
    quantized = any(_dtype(detail) == "int8" and _scales(detail) for detail in details)
    precision = "int8" if quantized else "fp16" if "float16" in types else "fp32"
    return Described(
        "tflite",
        precision,
        tuple(_tflite_tensor(detail) for detail in inputs),
        tuple(_tflite_tensor(detail) for detail in outputs),
    )


def _tflite_tensor(detail: Mapping[str, Any]) -> Tensor:
    sizes = [int(size) for size in detail["shape"]]
    signature = [int(size) for size in detail.get("shape_signature", ())]
    chosen = signature if len(signature) == len(sizes) else sizes
    shape = tuple(None if size < 0 else size for size in chosen)
    return Tensor(detail["name"], _dtype(detail), shape, quantized=bool(_scales(detail)))


def _dtype(detail: Mapping[str, Any]) -> str:
    return str(getattr(detail["dtype"], "__name__", detail["dtype"]))


def _scales(detail: Mapping[str, Any]) -> int:
    return len(detail["quantization_parameters"]["scales"])


def _copies(model: Path, folder: Path) -> dict[Path, Path]:
    """Return what is copied where: the model, and the files its weights are in, if any."""
    copies = {model: folder / model.name}
    if model.suffix.lower() == ".onnx":
        root = model.parent.resolve()
        for data in assets.external_data(model, suite=model, root=root):
            copies[data] = folder / data.relative_to(root)
    return copies


def _usable(described: Described, frameworks: Mapping[str, Framework]) -> tuple[tuple[str, ...], str]:
    """Return the frameworks to name, and the install line when none of them is installed."""
    able = [one for one in frameworks.values() if one.format == described.format]
    if not able:
        raise MlbenchError(f"no registered framework loads {described.format} models")
    installed = [one for one in able if _is_installed(one)]
    chosen = installed or able
    return tuple(sorted(one.name for one in chosen)), "" if installed else able[0].install


def _is_installed(framework: Framework) -> bool:
    """Tell whether a framework is there; two builds of one share a module, and only their packages differ."""
    from pytest_mlbench.registry import version

    if importlib.util.find_spec(framework.module) is None:
        return False
    return not framework.distributions or bool(version(framework))


def _batch(inputs: Sequence[Tensor]) -> int:
    """Return the batch the model takes: its fixed first dimension, or 1 where that is free."""
    if not inputs:
        raise MlbenchError("the model has no inputs, so there is nothing to vary between samples")
    scalars = [tensor.name for tensor in inputs if not tensor.shape]
    fixed = {tensor.shape[0] for tensor in inputs if tensor.shape} - {None}
    if scalars or len(fixed) > 1:
        told = "; ".join(tensor.text() for tensor in inputs)
        raise MlbenchError(
            f"the inputs do not share a first dimension that counts the samples ({told}); "
            "export the model with a batch dimension first in each input"
        )
    return next((size for size in fixed if size is not None), 1)


def _sample_shape(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of one sample, free dimensions filled with sizes that commonly work."""
    image = len(tensor.shape) == 4 and tensor.dtype in _FLOATS
    size = _FREE_SIDE if image else _FREE
    return tuple(size if given is None else given for given in tensor.shape[1:])


def _dataset_lines(inputs: Sequence[Tensor], batch: int) -> list[str]:
    whole = [tensor.dtype not in _FLOATS and not tensor.quantized for tensor in inputs]
    lines = [
        "[dataset.generated]                    # seeded random inputs: good for speed and equivalence",
        f'generate = "{"integers" if all(whole) else "normal"}"',
        f"count = {batch * math.ceil(_SAMPLES / batch)}",
    ]
    if any(whole):
        lines.append("high = 2                               # whole numbers below this: your vocabulary's size, say")
    open_ones = [tensor for tensor in inputs if batch > 1 or None in tensor.shape[1:]]
    if open_ones:
        shapes = ", ".join(f"{_quoted(one.name)} = {list(_sample_shape(one))}" for one in open_ones)
        lines.append("# One sample, without the batch. Check the sizes chosen for free dimensions.")
        lines.append(f"shapes = {{ {shapes} }}")
    return lines


def _benchmark_lines(name: str, described: Described, usable: tuple[tuple[str, ...], str], batch: int) -> list[str]:
    frameworks, install = usable
    precision = described.precision
    several = "" if len(frameworks) > 1 else "# "
    lines = ["[[benchmark]]", 'name = "speed"', f'model = ["{name}"]']
    if install:
        lines.append(f"# None of these is installed here: {install}")
    lines += [f"framework = {json.dumps(frameworks)}", f'precision = ["{precision}"]', 'device = ["cpu"]']
    if batch > 1:
        lines.append(f"batch = [{batch}]                            # the model's own")
    lines += ['dataset = "generated"', 'scenario = { kind = "single_stream", min_duration_s = 1 }']
    if precision != "fp32":
        lines.append('# executed_precision = "mixed"         # if a framework computes in another than the file says')
    if several:
        lines.append("# With a second framework, its outputs can be compared with the first one's:")
    lines += [
        f'{several}reference = {{ framework = "{frameworks[0]}", precision = "{precision}" }}',
        "",
        "[benchmark.expect]",
        f'{several}equivalence = {{ {precision} = {{ sqnr_db = ">= {_SQNR_DB[precision]}" }} }}',
        '# latency = { p99 = "<= 5 ms" }',
        '# accuracy = { top1 = ">= 90 %" }       # with dataset = "own"',
    ]
    return lines


def _text(name: str, path: str, sha256: str, described: Described, usable: tuple[tuple[str, ...], str]) -> str:
    batch = _batch(described.inputs)
    arrays = ", ".join(f'{_quoted(one.name)} = "x{index}"' for index, one in enumerate(described.inputs))
    lines = [
        "# Written by `mlbench init`; change what you like. Run it: pytest --mlbench, with this file's path.",
        "mlbench = 1                            # suite schema",
        "",
        *(f"# input   {_comment(tensor.text())}" for tensor in described.inputs),
        *(f"# output  {_comment(tensor.text())}" for tensor in described.outputs),
        "[[model]]",
        f'name = "{name}"',
        '# task = "image_classification"        # for accuracy',
        f"files = {{ {described.format} = {{ {described.precision} = {_quoted(path)} }} }}",
        f'sha256 = {{ {_quoted(path)} = "{sha256}" }}',
        "",
        *_dataset_lines(described.inputs, batch),
        "",
        "# Your own samples, with labels for accuracy: an npz of one array per input and the class numbers.",
        "# [dataset.own]",
        '# file = "data/test.npz"',
        '# labels = "y"',
        f"# inputs = {{ {arrays} }}",
        "# preprocess = [{ scale = 0.00392156862745098 }]",
        "",
        *_benchmark_lines(name, described, usable, batch),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return `text` as a TOML string; JSON's escapes are TOML's, but for DEL, which JSON leaves."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Return `text` without what may not stand in a comment: a model's names may hold any character."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)
