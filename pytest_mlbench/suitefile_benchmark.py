"""Read a [[benchmark]] table: its axes, and what is taken out of them, added to them and overridden."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_mlbench.devices.api import numbered_word
from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.lab import unknown_device
from pytest_mlbench.near import unknown
from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, ScenarioSpec
from pytest_mlbench.suitefile_settings import SETTINGS, Scope, merge_scenario, read_scenarios, read_settings
from pytest_mlbench.tables import (
    PRECISIONS,
    Known,
    Place,
    Table,
    as_integer,
    as_items,
    as_known,
    as_name,
    as_text,
    as_word,
    shown,
    unique,
)

AXES = ("model", "framework", "precision", "device", "batch", "threads", "scenario")
_KEYS = ("name", *AXES[:-1], *SETTINGS, "exclude", "include", "override")

T = TypeVar("T")
Read = Callable[[object, Place], T]


def read_benchmark(value: object, place: Place, scope: Scope) -> BenchmarkSpec:
    """Return the benchmark in the table `value`, all of it checked but for what only its cases can tell."""
    table = Table(value, place, _KEYS)
    known = scope.known
    benchmark = BenchmarkSpec(
        name=as_name(*table.need("name", 'name = "classify"')),
        model=_axis(table, "model", _one_of("model", scope.models), 'model = ["digits_cnn"]'),
        framework=_frameworks(table, known),
        precision=_axis(table, "precision", _one_of("precision", PRECISIONS), 'precision = ["fp32"]'),
        device=_axis(table, "device", lambda value, at: _device(value, at, known)) or ("cpu",),
        batch=_axis(table, "batch", _counted) or (1,),
        threads=_axis(table, "threads", _counted),
        scenario=read_scenarios(table, known),
    )
    benchmark = read_settings(table, scope, benchmark)
    includes = tuple(_include(item, at, benchmark, scope) for item, at in table.items("include", "tables"))
    benchmark = replace(benchmark, include=includes)
    check_benchmark(benchmark, place, scope)
    excludes = tuple(_exclude(item, at, benchmark) for item, at in table.items("exclude", "tables"))
    overrides = tuple(_override(item, at, benchmark, scope) for item, at in table.items("override", "tables"))
    return replace(benchmark, exclude=excludes, override=overrides)


def apply_override(benchmark: BenchmarkSpec, settings: Mapping[str, Any], place: Place, scope: Scope) -> BenchmarkSpec:
    """Return `benchmark` with an override's `set`; `expect` and `scenario` are merged key by key."""
    for key in settings:
        if key in AXES and key != "scenario":
            raise place.at(key).error("is an axis: a case cannot change its own; use include and exclude")
    table = Table(settings, place, SETTINGS)
    changed = read_settings(table, scope, benchmark)
    if "scenario" in table:
        bounds, at = table.at("scenario")
        changed = replace(
            changed,
            scenario=tuple(merge_scenario(bounds, at, one) for one in changed.scenario),
            include=tuple({**one, "scenario": merge_scenario(bounds, at, one["scenario"])} for one in changed.include),
        )
    check_benchmark(changed, place, scope)
    return changed


def check_benchmark(benchmark: BenchmarkSpec, place: Place, scope: Scope) -> None:
    """Raise SuiteError for settings that can never work together."""
    expect, reference = benchmark.expect, benchmark.reference
    precisions = axis_values(benchmark, "precision")
    at = place.at("expect")
    bounded = (*expect.limits, *expect.regressions)
    labelled: list[str] = [name for name in ("accuracy.top1", "accuracy.top5") if name in bounded]
    if expect.max_drop is not None:
        labelled.append("accuracy.max_drop")
        if expect.max_drop.source not in precisions:
            source = expect.max_drop.source
            message = unknown("precision of this benchmark", source, precisions, "precisions here")
            raise at.at("accuracy").at("max_drop").at("from").error(message)
    if labelled:
        dataset = scope.datasets.get(benchmark.dataset or "")
        if dataset is None or dataset.generate is not None:
            why = "which is generated" if dataset is not None else 'and "dataset" is not set'
            raise at.at("accuracy").error(f"{labelled[0]} needs labels from a stored data set, {why}")
    in_python = place.file is not None and place.file.suffix == ".py"  # there mlbench.run() may be given one
    if expect.equivalence and reference is None and not in_python:
        example = 'reference = { framework = "onnxruntime", precision = "fp32" }'
        raise at.at("equivalence").error(f'compares with "reference", which is not set; write for example: {example}')
    for key, tolerances in (("equivalence", expect.equivalence), ("unchanged", expect.unchanged)):
        for precision in tolerances:
            if precision != "*" and precision not in precisions:
                message = unknown("precision of this benchmark", precision, precisions, "precisions here")
                raise at.at(key).at(precision).error(message)
    if reference is not None and reference.framework is not None:
        words = tuple(dict.fromkeys(word for one in benchmark.framework for word in (one.id, one.name)))
        if reference.framework not in words:
            message = unknown("framework of this benchmark", reference.framework, words, "frameworks here")
            raise place.at("reference").at("framework").error(message)


def axis_values(benchmark: BenchmarkSpec, axis: str) -> tuple[Any, ...]:
    """Return the words of an axis, those of `include` among them: framework ids, scenario kinds, ..."""
    values = (*getattr(benchmark, axis), *(extra[axis] for extra in benchmark.include))
    if axis == "framework":
        values = tuple(value.id for value in values)
    elif axis == "scenario":
        values = tuple(value.kind for value in values)
    return tuple(dict.fromkeys(value for value in values if value is not None))


def read_framework(value: object, place: Place, known: Known, axes: bool = True) -> list[FrameworkSpec]:
    """Return the frameworks one entry stands for: several when an option is a list and `axes` allows it."""
    if isinstance(value, str):
        name = as_known(value, place, "framework", known.frameworks)
        return [FrameworkSpec(name, as_word(name, place))]
    table = Table(value, place, ("name", "id", "options", "python"))
    framework = known.frameworks[as_known(*table.need("name", 'name = "tvm"'), "framework", known.frameworks)]
    word = as_word(*table.at("id")) if "id" in table else framework.name
    python, at = table.at("python")
    path = None
    if python is not None:
        assert place.file is not None, "a table with paths in it comes from a file"
        text = as_text(str(python) if isinstance(python, Path) else python, at)
        # Not resolved: the interpreter of a virtual environment is a link, and that link is what selects it.
        path = place.file.absolute().parent / Path(text).expanduser()
    choices: list[list[tuple[str, Any, str]]] = []
    for key, item, there in table.table("options"):
        choices.append(_option_values(key, item, there, framework, axes))
    return [
        FrameworkSpec(
            framework.name,
            word + "".join(suffix for _, _, suffix in options),
            {key: option for key, option, _ in options},
            path,
        )
        for options in itertools.product(*choices)
    ]


def _option_values(
    key: str, value: object, place: Place, framework: Framework, axes: bool
) -> list[tuple[str, Any, str]]:
    """Return (key, value, suffix of the id) for each value of an option; one alone has no suffix."""
    option = framework.options.get(key)
    if option is None:
        raise place.error(unknown(f"option of {framework.name}", key, framework.options, "options"))
    if not axes or not isinstance(value, (list, tuple)):
        return [(key, _option(value, place, option), "")]
    items = as_items(value, place)
    values = unique([(_option(item, at, option), at) for item, at in items], f"{key} =")
    words = [re.sub(r"[^A-Za-z0-9_.]", "_", str(one).lower() if one in (True, False) else str(one)) for one in values]
    return [(key, one, f"_{key}{word}") for one, word in zip(_filled(values, place), words, strict=True)]


def _option(value: object, place: Place, option: Option) -> int | str | bool:
    if option.type is bool:
        if not isinstance(value, bool):
            raise place.error(f"expected true or false, found {shown(value)}: {option.help}")
        return value
    if option.type is int:
        return as_integer(value, place, option.minimum)
    return as_known(value, place, "choice", option.choices) if option.choices else as_text(value, place)


def _frameworks(table: Table, known: Known) -> tuple[FrameworkSpec, ...]:
    value, place = table.need("framework", 'framework = ["onnxruntime"]')
    items = as_items(value, place, "frameworks")
    found = [(one, at) for item, at in items for one in read_framework(item, at, known)]
    seen: set[str] = set()
    for framework, at in found:
        if framework.id in seen:
            raise at.error(f'framework "{framework.id}" is given twice; give one of them another "id"')
        seen.add(framework.id)
    return _filled(tuple(one for one, _ in found), place)


def _axis(table: Table, key: str, read: Callable[[object, Place], T], example: str = "") -> tuple[T, ...]:
    """Return the values of an axis; with an example it must be there, without one there may be none."""
    if example:
        table.need(key, example)
    if key not in table:
        return ()
    return _filled(unique([(read(item, at), at) for item, at in table.items(key)], key), table.place.at(key))


def _filled(values: tuple[T, ...], place: Place) -> tuple[T, ...]:
    if not values:
        raise place.error("expected at least one value, found an empty list")
    return values


def _one_of(what: str, words: Collection[str]) -> Callable[[object, Place], str]:
    return lambda value, place: as_word(as_known(value, place, what, words), place)


def _device(value: object, place: Place, known: Known) -> str:
    if isinstance(value, str) and numbered_word(value.replace(":", "."), known.numbered) and ":" in value:
        raise place.error(f'write "{value.replace(":", ".")}": a case id holds no ":"')
    text = as_word(value, place)
    if not known.has_device(text) and text not in known.offered:
        raise place.error(unknown_device(text, known.devices, known.device_types, known.lab))
    return text


def _counted(value: object, place: Place) -> int:
    return as_integer(value, place, least=1)


def _include(value: object, place: Place, benchmark: BenchmarkSpec, scope: Scope) -> Mapping[str, Any]:
    """Return one extra case, each axis parsed; one left out takes the only value that is declared."""
    table = Table(value, place, AXES)
    known = scope.known
    extra: dict[str, Any] = {}
    for axis in AXES:
        declared = getattr(benchmark, axis)
        item, at = table.at(axis)
        if item is None:
            if len(declared) > 1:
                table.need(axis, f"{axis} = {_toml(_words(benchmark, axis)[0])} (the benchmark has several)")
            extra[axis] = declared[0] if declared else None
        elif axis in ("batch", "threads"):
            extra[axis] = _counted(item, at)
        elif axis == "framework":
            ids = {one.id: one for one in benchmark.framework}
            extra[axis] = ids[item] if isinstance(item, str) and item in ids else _one_framework(item, at, known)
        elif axis == "scenario":
            kinds = {one.kind: one for one in reversed(benchmark.scenario)}  # the first of a kind
            kind = as_known(item, at, "scenario", known.scenarios)
            extra[axis] = kinds.get(kind, ScenarioSpec(kind=kind))
        elif axis == "device":
            extra[axis] = _device(item, at, known)
        else:
            words = {"model": scope.models, "precision": PRECISIONS}[axis]
            extra[axis] = as_word(as_known(item, at, axis, words), at)
    return extra


def _one_framework(value: object, place: Place, known: Known) -> FrameworkSpec:
    return read_framework(value, place, known, axes=False)[0]


def _exclude(value: object, place: Place, benchmark: BenchmarkSpec) -> Mapping[str, Any]:
    table = Table(value, place, (*AXES, "reason"))
    reason = as_text(*table.need("reason", 'reason = "no fp16 file"'))
    return {**_when(table, benchmark), "reason": reason}


def _override(value: object, place: Place, benchmark: BenchmarkSpec, scope: Scope) -> Mapping[str, Any]:
    table = Table(value, place, ("when", "set"))
    table.need("when", 'when = { precision = "int8" }')
    when = _when(table.table("when", AXES), benchmark)
    settings, at = table.need("set", "set = { timeout_s = 300 }")
    if not len(Table(settings, at)):
        raise at.error("sets nothing")
    assert isinstance(settings, Mapping)
    apply_override(benchmark, settings, at, scope)
    return {"when": when, "set": settings}


def _when(table: Table, benchmark: BenchmarkSpec) -> dict[str, tuple[Any, ...]]:
    """Return the chosen values by axis; each must be one that the benchmark has, so that no typo passes."""
    chosen: dict[str, tuple[Any, ...]] = {}
    for axis, value, at in table:
        if axis not in AXES:
            continue
        words = _words(benchmark, axis)
        many = isinstance(value, (list, tuple))
        items = as_items(value, at) if many else [(value, at)]
        for item, there in items:
            if not isinstance(item, (str, int)) or isinstance(item, bool):
                raise there.error(f"expected a value of the axis or a list of them, found {shown(item)}")
            if item not in words:
                what = f"{axis} of this benchmark"
                raise there.error(unknown(what, str(item), [str(word) for word in words], f"{axis} values here"))
        chosen[axis] = _filled(unique(items, axis), at)
    if not chosen:
        raise table.place.error(f"names no axis, so it would match every case; name one of {', '.join(AXES)}")
    return chosen


def _words(benchmark: BenchmarkSpec, axis: str) -> tuple[Any, ...]:
    """Return what exclude and override may say of an axis: for a framework its id or its registered name."""
    words = axis_values(benchmark, axis)
    if axis != "framework":
        return words
    extra = tuple(one["framework"] for one in benchmark.include)
    return tuple(dict.fromkeys((*words, *(one.name for one in (*benchmark.framework, *extra)))))


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
