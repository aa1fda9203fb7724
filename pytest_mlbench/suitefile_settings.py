"""Read the keys of a benchmark that are no axes: how it is measured and judged. Overrides set them too."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_mlbench.spec import BenchmarkSpec, DatasetSpec, ModelSpec, Price, Reference, ScenarioSpec
from pytest_mlbench.suitefile_expect import MetricNames, read_expect
from pytest_mlbench.tables import (
    PRECISIONS,
    Known,
    Place,
    Table,
    as_function,
    as_items,
    as_known,
    as_number,
    as_text,
    as_word,
    shown,
    unique,
)

SETTINGS = (
    "scenario",
    "dataset",
    "reference",
    "expect",
    "executed_precision",
    "price",
    "metrics",
    "preprocess",
    "postprocess",
    "timeout_s",
    "marks",
)
# What a framework may say it ran in: nodes may differ, and some frameworks do not tell.
_EXECUTED = (*PRECISIONS, "mixed", "unknown")
BOUNDARIES = ("invoke", "set_invoke_get", "end_to_end")

_SCENARIO = (
    "kind",
    "min_duration_s",
    "max_duration_s",
    "min_samples",
    "max_samples",
    "warmup_s",
    "warmup_samples",
    "seed",
    "boundary",
    "options",
)


@dataclass(frozen=True)
class Scope:
    """What a benchmark may name: what is registered, and the models and data sets of its suite."""

    known: Known
    models: Mapping[str, ModelSpec]
    datasets: Mapping[str, DatasetSpec]


def read_settings(table: Table, scope: Scope, base: BenchmarkSpec) -> BenchmarkSpec:
    """Return `base` with the settings in `table`, `scenario` left out; `expect` is merged key by key."""
    changes: dict[str, Any] = {}
    if "dataset" in table:
        changes["dataset"] = as_known(*table.at("dataset"), "data set", tuple(scope.datasets))
    if "reference" in table:
        changes["reference"] = _reference(*table.at("reference"))
    if "price" in table:
        changes["price"] = _price(*table.at("price"))
    if "metrics" in table:
        named = [(as_function(item, at), at) for item, at in table.items("metrics", '"module:function" strings')]
        changes["metrics"] = unique(named, "metric function")
    if "marks" in table:
        changes["marks"] = unique([(_mark(item, at), at) for item, at in table.items("marks", "strings")], "mark")
    if "expect" in table:
        names = MetricNames.of(scope.known, bool(changes.get("metrics", base.metrics)))
        changes["expect"] = read_expect(*table.at("expect"), names, base.expect)
    return replace(
        base,
        executed_precision=table.known("executed_precision", base.executed_precision, "precision", _EXECUTED),
        preprocess=table.function("preprocess", base.preprocess),
        postprocess=table.function("postprocess", base.postprocess),
        timeout_s=table.number("timeout_s", base.timeout_s, above=0),
        **changes,
    )


def _mark(value: object, place: Place) -> str:
    text = as_text(value, place)
    if not text.isidentifier():
        raise place.error(f'"{text}" is no name of a pytest mark; write for example "slow"')
    return text


def read_scenarios(table: Table, known: Known) -> tuple[ScenarioSpec, ...]:
    """Return the scenario axis: one table or a list of tables, which differ in `kind` or `boundary`."""
    value, place = table.at("scenario")
    if value is None:
        return (ScenarioSpec(),)
    if isinstance(value, Mapping):
        return (_scenario(value, place, known),)
    if isinstance(value, str):
        raise place.error(f'expected a table, found {shown(value)}; write {{ kind = "{value}" }}')
    found = [(_scenario(item, at, known), at) for item, at in as_items(value, place, "tables")]
    if not found:
        raise place.error("expected at least one scenario, found an empty list")
    unique([(scenario.word, at.at("kind")) for scenario, at in found], "scenario")
    return tuple(scenario for scenario, _ in found)


def merge_scenario(value: object, place: Place, base: ScenarioSpec) -> ScenarioSpec:
    """Return `base` with the bounds that the table `value` names; its kind is an axis and stays."""
    table = Table(value, place, _SCENARIO)
    if "kind" in table:
        raise place.at("kind").error("is an axis: a case cannot change its own; use include and exclude")
    return _bounds(table, base)


def _scenario(value: object, place: Place, known: Known) -> ScenarioSpec:
    table = Table(value, place, _SCENARIO)
    kind = as_known(*table.need("kind", 'kind = "single_stream"'), "scenario", known.scenarios)
    return _bounds(table, ScenarioSpec(kind=as_word(kind, place.at("kind"))))


def _bounds(table: Table, base: ScenarioSpec) -> ScenarioSpec:
    options = {key: item for key, item, _ in table.table("options")}
    scenario = replace(
        base,
        min_duration_s=table.number("min_duration_s", base.min_duration_s, least=0),
        max_duration_s=table.number("max_duration_s", base.max_duration_s, above=0),
        min_samples=table.integer("min_samples", base.min_samples, least=1),
        max_samples=table.integer("max_samples", base.max_samples, least=1),
        warmup_s=table.number("warmup_s", base.warmup_s, least=0),
        warmup_samples=table.integer("warmup_samples", base.warmup_samples, least=0),
        seed=table.integer("seed", base.seed, least=0),
        boundary=table.known("boundary", base.boundary, "boundary", BOUNDARIES),
        options={**base.options, **options},
    )
    for low, high in (("min_duration_s", "max_duration_s"), ("min_samples", "max_samples")):
        least, most = getattr(scenario, low), getattr(scenario, high)
        if most is not None and least > most:
            raise table.place.error(f"{low} is {least:g}, above {high}, {most:g}; set both so that neither is broken")
    return scenario


def _reference(value: object, place: Place) -> Reference:
    """Whether its framework and precision belong to the benchmark is checked with all its axes known."""
    table = Table(value, place, ("framework", "precision", "file"))
    if not len(table):
        raise place.error("names nothing, so a case would be compared with itself; set framework, precision or file")
    if "file" in table and len(table) > 1:
        raise place.at("file").error("stands alone: outputs come from a file or from another case, not both")
    return Reference(
        framework=table.text("framework", None),
        precision=table.known("precision", None, "precision", PRECISIONS),
        file=table.inside("file"),
    )


def _price(value: object, place: Place) -> Price:
    table = Table(value, place, ("usd_per_hour", "date", "source"))
    example = '{ usd_per_hour = 0.34, date = "2026-01-31", source = "price list" }'
    usd = as_number(*table.need("usd_per_hour", example), above=0)
    day, at = table.need("date", example)
    if isinstance(day, datetime.date) and not isinstance(day, datetime.datetime):
        day = day.isoformat()
    text = as_text(day, at)
    try:
        datetime.date.fromisoformat(text)
    except ValueError as error:
        raise at.error(f'expected a day such as "2026-01-31", found "{text}": {error}') from error
    return Price(usd, text, table.text("source", ""))
