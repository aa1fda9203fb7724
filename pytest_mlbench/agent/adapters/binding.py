"""What the built-in adapters share: checking arrays against a model's inputs, and naming precisions.

Standard library and numpy only; runs on the target under Python >= 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..api import TensorSpec

_PRECISIONS = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
    # Signedness says how the bits are read, not how wide the arithmetic is.
    "uint8": "int8",
    "uint16": "int16",
    "uint4": "int4",
}


def precision(dtype: str) -> str:
    """Name the precision word of a numpy dtype name: float32 -> fp32, uint8 -> int8, others as they are."""
    return _PRECISIONS.get(dtype, dtype or "unknown")


def show_shape(shape: Sequence[int]) -> str:
    """Write a shape for people, `?` for a free dimension: (?, 1, 8, 8)."""
    return "(" + ", ".join("?" if size < 0 else str(size) for size in shape) + ")"


def check_inputs(specs: Iterable[TensorSpec], inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Check that `inputs` has each input of the model, in a shape that it takes, and nothing else.

    Raises ValueError with the input's name, its shape and the batch asked for.
    """
    wanted = {spec.name: spec for spec in specs}
    if wanted.keys() != inputs.keys():
        raise ValueError(
            f"the model's inputs are {', '.join(sorted(wanted)) or 'none'}; "
            f"bound were {', '.join(sorted(inputs)) or 'none'}"
        )
    for name, spec in wanted.items():
        shape = inputs[name].shape
        fits = len(shape) == len(spec.shape) and all(
            want in (-1, have)
            for want, have in zip(spec.shape, shape)  # noqa: B905  strict= needs Python 3.10
        )
        if not fits:
            batch = f"a batch of {shape[0]}" if shape else "a scalar"
            raise ValueError(
                f"model input {name!r} has shape {show_shape(spec.shape)} "
                f"and cannot take {batch} (array of shape {show_shape(shape)})"
            )


def asked_shape(spec: TensorSpec, options: Mapping[str, Any], alone: bool) -> list[int] | None:
    """Return the whole shape that `options["shapes"]` asks of an input, None when it does not.

    For the only input of a model (`alone`) the only shape there counts, whatever its name: data and model may
    name the same thing differently. An input that has no batch dimension is asked for one sample's shape.
    """
    given = options.get("shapes") or {}
    shape = given.get(spec.name)
    if shape is None and alone and len(given) == 1:
        shape = next(iter(given.values()))
    if shape is None:
        return None
    sample_only = len(shape) == len(spec.shape) + 1 and int(shape[0]) == 1
    return [int(size) for size in (shape[1:] if sample_only else shape)]


def static_shapes(specs: Iterable[TensorSpec], options: Mapping[str, Any]) -> dict[str, list[int]]:
    """Fix every input's shape: `options["shapes"]` first, then `options["batch"]` for a free first dimension.

    Raises ValueError for a dimension that stays free, and for a fixed one that differs from what is asked.
    """
    specs = list(specs)
    batch = int(options.get("batch") or 1)
    shapes = {}
    for spec in specs:
        asked = asked_shape(spec, options, alone=len(specs) == 1)
        shape = list(spec.shape) if asked is None else asked
        if shape and shape[0] < 0:
            shape[0] = batch
        if any(size < 0 for size in shape):
            raise ValueError(
                f"model input {spec.name!r} has shape {show_shape(spec.shape)}: give its free "
                f"dimensions other than the batch in the option `shapes`"
            )
        fits = len(shape) == len(spec.shape) and all(
            want in (-1, have)
            for want, have in zip(spec.shape, shape)  # noqa: B905  strict= needs Python 3.10
        )
        # With a batch of 1 a fixed first dimension may be no batch at all: that shows when the samples are matched.
        fixed_batch = spec.shape[:1] != (-1,) and bool(spec.shape) and batch > 1
        if not fits or (fixed_batch and asked is None and shape[0] != batch):
            raise ValueError(
                f"model input {spec.name!r} has shape {show_shape(spec.shape)} "
                f"and cannot take a batch of {batch} (asked for {show_shape(shape)})"
            )
        shapes[spec.name] = shape
    return shapes
