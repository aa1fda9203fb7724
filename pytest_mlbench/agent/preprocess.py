"""Turn raw samples into what a model takes: declared steps, a user's function, quantisation.

A batch is a dict of arrays whose first dimension is the samples.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .api import TensorSpec

Array = npt.NDArray[Any]
Batch = dict[str, Array]
Function = Callable[[Batch], Batch]


def apply_steps(array: Array, steps: Sequence[Mapping[str, Any]]) -> Array:
    """Apply the declared steps, in order, to an array of shape (samples, ...); arithmetic is in float32.

    Raises ValueError, with the step and what it was given, for one that does not fit.
    """
    for step in steps:
        ((name, value),) = step.items()
        try:
            array = STEPS[name](array, value)
        except (ValueError, TypeError) as error:
            given = f"{list(array.shape[1:])} {array.dtype}"
            raise ValueError(f"preprocess step {name} = {value} does not fit samples of {given}: {error}") from None
    return array


def _scale(array: Array, factor: float) -> Array:
    scaled: Array = array.astype(np.float32) * np.float32(factor)
    return scaled


def _offset(array: Array, amount: float) -> Array:
    moved: Array = array.astype(np.float32) + np.float32(amount)
    return moved


def _normalize(array: Array, value: Mapping[str, Sequence[float]]) -> Array:
    """Subtract `mean` and divide by `std`; lists match the last axis or, failing that, the first of a sample."""
    mean, std = (np.asarray(value[key], dtype=np.float32) for key in ("mean", "std"))
    if mean.size > 1 and (array.ndim < 2 or array.shape[-1] != mean.size):
        if array.ndim < 2 or array.shape[1] != mean.size:  # numpy would broadcast an axis of size 1
            raise ValueError(f"neither the last nor the first axis of a sample has size {mean.size}")
        channels_first = (-1,) + (1,) * (array.ndim - 2)
        mean, std = mean.reshape(channels_first), std.reshape(channels_first)
    normalized: Array = (array.astype(np.float32) - mean) / std
    return normalized


def _reshape(array: Array, shape: Sequence[int]) -> Array:
    return array.reshape((array.shape[0], *shape))


def _transpose(array: Array, axes: Sequence[int]) -> Array:
    """Permute the axes of a sample, which are numbered from 0."""
    turned: Array = array.transpose((0, *(axis + 1 for axis in axes)))
    return turned


def _cast(array: Array, dtype: str) -> Array:
    return array.astype(np.dtype(dtype))


def _clip(array: Array, bounds: Sequence[float]) -> Array:
    clipped: Array = np.clip(array, bounds[0], bounds[1])
    return clipped


STEPS: dict[str, Callable[[Array, Any], Array]] = {
    "scale": _scale,
    "offset": _offset,
    "normalize": _normalize,
    "reshape": _reshape,
    "transpose": _transpose,
    "cast": _cast,
    "clip": _clip,
}


def load_function(reference: str, paths: Sequence[str]) -> tuple[Callable[..., Any], dict[str, str]]:
    """Import `module:function` with `paths` first on the module path.

    Returns the function and where it came from: {"file": ..., "sha256": ...}, kept in the record so that
    a comparison can prove which source ran.
    """
    module_name, _, function_name = reference.partition(":")
    sys.path[:] = [*paths, *(entry for entry in sys.path if entry not in paths)]
    module = importlib.import_module(module_name)
    try:
        function = getattr(module, function_name)
    except AttributeError:
        known = ", ".join(name for name in vars(module) if not name.startswith("_"))
        raise AttributeError(f"{reference}: module {module_name} has no {function_name}; it has {known}") from None
    file = getattr(module, "__file__", None) or ""
    origin = {"reference": reference, "file": file, "sha256": ""}
    if file:
        with open(file, "rb") as stream:  # noqa: PTH123 - one read, on the target
            origin["sha256"] = hashlib.sha256(stream.read()).hexdigest()
    return function, origin


def named(function: Function) -> str:
    """Return a user's function as the suite names it."""
    return f"{function.__module__}:{getattr(function, '__name__', function)}"


def check_given(function: Function, given: object) -> str:
    """Say what is wrong with what a user's function gave, "" when it is a dict of numbers."""
    name = named(function)
    if not isinstance(given, dict):
        return f"{name} gave a {type(given).__name__}, expected a dict of numpy arrays"
    for key, array in given.items():
        kind = str(array.dtype) if isinstance(array, np.ndarray) else type(array).__name__
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufc":
            return f"{name} gave {key!r} as {kind}, expected a numpy array of numbers"
    return ""


def to_model(array: Array, spec: TensorSpec) -> Array:
    """Return `array` in the dtype of the model's input, quantised when the input holds quantised values.

    Raises TypeError when the values would not survive the conversion.
    """
    dtype = np.dtype(spec.dtype)
    if spec.scale is not None and np.issubdtype(array.dtype, np.floating):
        limits = np.iinfo(dtype)
        stored = np.rint(array / np.float32(spec.scale)) + spec.zero_point
        return np.ascontiguousarray(np.clip(stored, limits.min, limits.max).astype(dtype))
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if np.issubdtype(dtype, np.floating) and array.dtype.kind in "fiu":
        return np.ascontiguousarray(array.astype(dtype))
    if dtype.kind in "iu" and array.dtype.kind in "iu" and np.array_equal(array.astype(dtype), array):
        return np.ascontiguousarray(array.astype(dtype))
    raise TypeError(f"model input {spec.name!r} takes {spec.dtype}, the prepared samples are {array.dtype}")


def from_model(array: Array, spec: TensorSpec) -> Array:
    """Return an output as real numbers: dequantised when its tensor holds quantised values."""
    if spec.scale is None:
        return array
    real: Array = (array.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)
    return real


def digest(batch: Batch) -> str:
    """Return the SHA-256 of prepared tensors: names, dtypes, shapes and bytes, in name order."""
    total = hashlib.sha256()
    for name in sorted(batch):
        array = np.ascontiguousarray(batch[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def generate(
    specs: list[TensorSpec],
    kind: str,
    count: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]],
    high: int = 2,
    batch: int = 1,
) -> Batch:
    """Return `count` seeded random samples for every input; integer inputs get whole numbers in [0, high)."""
    random = np.random.default_rng(seed)
    made: Batch = {}
    for spec in specs:
        shape = tuple(shapes[spec.name]) if spec.name in shapes else sample_shape(spec, batch)
        if -1 in shape:
            raise ValueError(
                f"model input {spec.name!r} has free dimensions {list(spec.shape)}: "
                f"give the data set `shapes = {{ {spec.name} = [...] }}` (one sample, without the batch)"
            )
        full = (count, *shape)
        dtype = np.dtype(spec.dtype)
        if dtype.kind in "iub" and spec.scale is None:
            made[spec.name] = random.integers(0, high, full).astype(dtype)
        elif kind == "uniform":
            made[spec.name] = random.random(full, dtype=np.float32)
        else:
            made[spec.name] = random.standard_normal(full, dtype=np.float32)
    return made


def sample_shape(spec: TensorSpec, batch: int = 1) -> tuple[int, ...]:
    """Return the shape of one sample: the input's without its batch dimension (the first; free, 1 or `batch`)."""
    if spec.shape and spec.shape[0] in (-1, 1, batch):
        return spec.shape[1:]
    return spec.shape
