"""Make the float16 or the static int8 (QDQ) file of a model from its float32 ONNX file.

Has the shape of an adapter that only prepares (agent/api.py) and runs in an agent process of its own, so that
the memory and time of a conversion count for no model. The same input gives the same bytes.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "onnx"

HOWS = ("float16", "static_qdq")
ACTIVATIONS = {"int8": "QInt8", "uint8": "QUInt8"}  # -> the name in onnxruntime.quantization.QuantType


def versions() -> dict[str, str]:
    """Name what the made file depends on."""
    import onnx
    import onnxruntime

    return {"onnx": str(onnx.__version__), "onnxruntime": str(onnxruntime.__version__)}


def prepare(path: str, out_dir: str, options: Mapping[str, Any]) -> str:
    """Convert the ONNX file at `path` into `out_dir` and return the new file's path.

    `options`: `how` is "float16" or "static_qdq"; the latter takes `calibration`, the path of an npz file
    whose arrays hold prepared samples and are named like the model's inputs (one array fits a single input
    under any name), `per_channel` (default False) and `activations` ("int8", the default, or "uint8"). Raises
    ValueError when the data do not fit the model.

    ONNX Runtime 1.31 on x86 leaves int8 convolutions whose input or output has several readers in fp32 (24 of
    26 in SqueezeNet, 11 of 20 in ResNet18); with uint8 activations it runs all of them in int8.
    """
    how = options.get("how")
    if how not in HOWS:
        raise ValueError(f"cannot make an ONNX file by {how!r}: `how` is one of {', '.join(HOWS)}")
    target = Path(out_dir) / f"{Path(path).stem}_{how}.onnx"
    with tempfile.TemporaryDirectory(prefix="making-", dir=out_dir) as folder:
        made = Path(folder) / target.name
        if how == "float16":
            _float16(path, made)
        else:
            _static_qdq(path, made, options)
        made.replace(target)
    return str(target)


def _float16(path: str, out: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(convert_float_to_float16(onnx.load(path), keep_io_types=True))
    # The casts at the inputs and outputs come last; TVM's front end needs them in order.
    model.topological_sort()
    onnx.save(model.model, str(out))


def _static_qdq(path: str, out: Path, options: Mapping[str, Any]) -> None:
    calibration = options.get("calibration")
    activations = options.get("activations", "int8")
    if activations not in ACTIVATIONS:
        raise ValueError(f"cannot store activations as {activations!r}: one of {', '.join(ACTIVATIONS)}")
    if calibration is None:
        raise ValueError("static_qdq needs calibration data: give `calibration`, an npz file of prepared samples")
    if importlib.util.find_spec("sympy") is None:
        raise RuntimeError("static_qdq needs sympy to infer shapes: pip install 'pytest-mlbench[onnxruntime]'")
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = list(calibration_feeds(_inputs(onnx.load(path, load_external_data=False)), _load(calibration)))

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # no types upstream
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    # Shapes, folded constants and fused operators decide which tensors get a scale.
    inferred = out.with_name("inferred.onnx")
    quant_pre_process(path, str(inferred))
    quantization.quantize_static(
        str(inferred),
        str(out),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType[ACTIVATIONS[activations]],
        weight_type=quantization.QuantType.QInt8,
        per_channel=bool(options.get("per_channel", False)),
    )


def _load(calibration: str) -> dict[str, np.ndarray[Any, Any]]:
    if not Path(calibration).is_file():
        raise ValueError(f"the calibration file {calibration} does not exist")
    with np.load(calibration, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _inputs(model: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read the model's inputs: name -> dtype, shape with -1 for a free size."""
    import onnx

    constants = {tensor.name for tensor in model.graph.initializer}
    found = {}
    for value in model.graph.input:
        if value.name not in constants:
            kind = value.type.tensor_type
            shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
            found[value.name] = (onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)
    return found


def calibration_feeds(
    inputs: Mapping[str, tuple[str, tuple[int, ...]]], arrays: Mapping[str, np.ndarray[Any, Any]]
) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Cut calibration arrays (samples first) into feeds of the model's own batch size; 1 if that is free.

    `inputs` is name -> dtype, shape with -1 for a free size. Raises ValueError, naming both sides, when
    names, dtypes or shapes differ or when there are fewer samples than one batch.
    """
    if len(inputs) == len(arrays) == 1:
        arrays = {next(iter(inputs)): next(iter(arrays.values()))}
    if inputs.keys() != arrays.keys():
        raise ValueError(
            f"the calibration arrays are {_names(arrays)}, the model's inputs are {_names(inputs)}: "
            "name the arrays like the inputs"
        )
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"the calibration arrays hold different numbers of samples: {counts}")
    for name, (dtype, shape) in inputs.items():
        _check_array(name, dtype, shape, arrays[name])
    batches = {shape[0] for name, (_, shape) in inputs.items() if arrays[name].ndim == len(shape)}
    batch = max(1, *batches) if batches else 1
    count = next(iter(counts.values()))
    if count < batch:
        raise ValueError(f"calibration needs at least one batch of {batch} samples, the file holds {count}")
    for start in range(0, count - batch + 1, batch):
        yield {
            name: array[start : start + batch] if array.ndim == len(inputs[name][1]) else array[start]
            for name, array in arrays.items()
        }


def _check_array(name: str, dtype: str, shape: Sequence[int], array: np.ndarray[Any, Any]) -> None:
    sample = tuple(shape[1:]) if array.ndim == len(shape) else tuple(shape)
    fits = array.shape[1:] == sample or (
        array.ndim == len(sample) + 1 and all(want in (-1, have) for want, have in zip(sample, array.shape[1:]))  # noqa: B905  Python 3.9
    )
    if array.dtype.name != dtype or not fits:
        raise ValueError(
            f"calibration array for model input {name!r} is {array.dtype.name} {list(array.shape)} (samples "
            f"first), the model takes {dtype} {list(shape)} (-1: any size): store samples as the model "
            "takes them"
        )


def _names(mapping: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in mapping) or "none"
