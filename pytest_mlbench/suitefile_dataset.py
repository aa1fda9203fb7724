"""Read a `[dataset.NAME]` table: where samples come from and the steps that prepare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_mlbench.spec import DatasetSpec
from pytest_mlbench.tables import (
    Known,
    Place,
    Table,
    as_integer,
    as_items,
    as_known,
    as_number,
    as_sha256,
    as_text,
    as_word,
    shown,
)

GENERATORS = ("normal", "uniform", "integers")
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint16", "uint8", "bool")

# Keys that say something only for stored data, and only for generated data.
_STORED = ("file", "sha256", "labels", "inputs")
_GENERATED = ("generate", "seed", "shapes", "high")
_KEYS = (*_STORED, *_GENERATED, "preprocess", "count", "inputs_sha256")

Step = Mapping[str, Any]


def read_dataset(name: str, value: object, place: Place, known: Known) -> DatasetSpec:
    """Return the data set in the table `value`; whether the file exists is not looked at."""
    table = Table(value, place, _KEYS)
    if ("file" in table) == ("generate" in table):
        raise place.error('write either file = "data/test.npz" or generate = "normal" (one of them)')
    for key in _GENERATED if "file" in table else _STORED:
        if key in table:
            other = "generate" if "file" in table else "file"
            raise place.at(key).error(f'goes with "{other}", which is not set')
    generate = table.known("generate", None, "generator", GENERATORS)
    if generate is not None and "count" not in table:
        table.need("count", "count = 32")
    return DatasetSpec(
        name=as_word(name, place),
        file=table.inside("file"),
        sha256=as_sha256(*table.at("sha256")) if "sha256" in table else None,
        labels=table.text("labels", "y"),
        inputs={key: as_text(item, at) for key, item, at in table.table("inputs")},
        preprocess=_preprocess(table, known),
        count=table.integer("count", None, least=1),
        generate=generate,
        seed=table.integer("seed", 0, least=0),
        shapes={key: _shape(item, at) for key, item, at in table.table("shapes")},
        inputs_sha256=_inputs_sha256(table, known),
        high=table.integer("high", 2, least=1),
    )


def _shape(value: object, place: Place) -> tuple[int, ...]:
    return tuple(as_integer(item, at, least=1) for item, at in as_items(value, place, "whole numbers"))


def _inputs_sha256(table: Table, known: Known) -> dict[str, str]:
    value, place = table.at("inputs_sha256")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"*": as_sha256(value, place)}
    return {_format(key, at, known): as_sha256(item, at) for key, item, at in Table(value, place)}


def _format(key: str, place: Place, known: Known) -> str:
    return as_known(key, place, "format", ("*", *known.formats))


def _preprocess(table: Table, known: Known) -> dict[str, tuple[Step, ...]]:
    value, place = table.at("preprocess")
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {_format(key, at, known): _steps(item, at) for key, item, at in Table(value, place)}
    return {"*": _steps(value, place)}


def _steps(value: object, place: Place) -> tuple[Step, ...]:
    return tuple(_step(item, at) for item, at in as_items(value, place, "steps"))


def _step(value: object, place: Place) -> Step:
    table = Table(value, place, tuple(STEPS))
    if len(table) != 1:
        raise place.error(f"expected one step ({', '.join(STEPS)}) in a table of its own, found {shown(value)}")
    key, item, at = next(iter(table))
    return {key: STEPS[key](item, at)}


def _scale(value: object, place: Place) -> float:
    factor = as_number(value, place)
    if factor == 0:
        raise place.error("a scale of 0 makes every input 0")
    return factor


def _normalize(value: object, place: Place) -> Mapping[str, tuple[float, ...]]:
    table = Table(value, place, ("mean", "std"))
    example = "normalize = { mean = [0.5], std = [0.5] }"
    mean = tuple(as_number(item, at) for item, at in as_items(*table.need("mean", example), "numbers"))
    std = tuple(as_number(item, at, above=0) for item, at in as_items(*table.need("std", example), "numbers"))
    if len(mean) != len(std) or not mean:
        raise place.error(f"mean and std must be equally long, found {len(mean)} and {len(std)} numbers")
    return {"mean": mean, "std": std}


def _reshape(value: object, place: Place) -> tuple[int, ...]:
    items = as_items(value, place, "whole numbers")
    shape = tuple(as_integer(item, at, least=-1) for item, at in items)
    if 0 in shape or shape.count(-1) > 1:
        raise place.error(f"{list(shape)} is no shape: sizes are at least 1, and one may be -1 (what remains)")
    return shape


def _transpose(value: object, place: Place) -> tuple[int, ...]:
    axes = tuple(as_integer(item, at, least=0) for item, at in as_items(value, place, "whole numbers"))
    if not axes or sorted(axes) != list(range(len(axes))):
        raise place.error(f"{list(axes)} is no order of a sample's axes: write each of 0, 1, ... once (no batch)")
    return axes


def _cast(value: object, place: Place) -> str:
    return as_known(value, place, "type", DTYPES)


def _clip(value: object, place: Place) -> tuple[float, float]:
    bounds = [as_number(item, at) for item, at in as_items(value, place, "numbers")]
    if len(bounds) != 2 or bounds[0] >= bounds[1]:
        raise place.error(f"expected [lowest, highest], found {bounds}")
    return bounds[0], bounds[1]


STEPS: Mapping[str, Callable[[object, Place], Any]] = {
    "scale": _scale,
    "offset": as_number,
    "normalize": _normalize,
    "reshape": _reshape,
    "transpose": _transpose,
    "cast": _cast,
    "clip": _clip,
}
