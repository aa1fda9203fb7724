"""Expand a benchmark into cases: the product of its axes, what it includes and what it excludes. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.spec import BenchmarkSpec, FrameworkSpec, ModelSpec, ScenarioSpec, SuiteSpec
from pytest_mlbench.suitefile_benchmark import AXES, apply_override
from pytest_mlbench.suitefile_settings import Scope
from pytest_mlbench.tables import Known, Place


@dataclass(frozen=True)
class Case:
    """One expanded combination. `benchmark` is the benchmark with this case's overrides already applied."""

    suite: SuiteSpec
    benchmark: BenchmarkSpec
    model: ModelSpec
    framework: FrameworkSpec
    precision: str
    device: str
    batch: int
    threads: int | None
    scenario: ScenarioSpec
    param: str  # "digits_cnn-onnxruntime-int8-cpu": pytest's parameter id
    skip: str | None = None  # reason of an exclusion, or why the device cannot take the framework
    emulated: bool = False  # the device counts instructions: its time is no latency

    @property
    def id(self) -> str:
        """Return the case id used in records and history: `digits/classify[...]`, free of paths."""
        return f"{self.suite.name}/{self.benchmark.name}[{self.param}]"

    @property
    def axes(self) -> dict[str, object]:
        """Return the value of each axis, as kept in the record."""
        return {
            "model": self.model.name,
            "framework": self.framework.id,
            "precision": self.precision,
            "device": self.device,
            "batch": self.batch,
            "threads": self.threads,
            "scenario": self.scenario.kind,
        }


# What rules compare: model, framework id, precision, device, batch, threads, scenario kind.
_Words = tuple[object, ...]
_Values = tuple[str, FrameworkSpec, str, str, int, "int | None", ScenarioSpec]


@dataclass(frozen=True, eq=False)
class _Rule:
    """An exclude or the `when` of an override: at each named position of the words, the accepted values."""

    wanted: tuple[tuple[int, frozenset[object]], ...]
    place: Place
    reason: str = ""

    def matches(self, words: _Words) -> bool:
        # A plain loop: all() with a generator takes twice the time, and this runs for each case and rule.
        for index, accepted in self.wanted:
            if words[index] not in accepted:
                return False
        return True


def expand(suite: SuiteSpec, benchmark: BenchmarkSpec, known: Known) -> list[Case]:
    """Return the cases of a benchmark: the product of its axes in declared order, then its include.

    Excluded cases stay in the list with their reason in `skip`. Raises SuiteError for an exclude or override
    that matches nothing, for two cases of one id, and for a case whose model has no file it could load.
    """
    place = _place(suite, benchmark)
    known = replace(known, offered=suite.offered)
    combinations = _combinations(benchmark)
    excludes, overrides = _rules(benchmark, combinations, place)
    changed = _Changed(benchmark, Scope(known, suite.models, suite.datasets), place)
    suffix = _suffix_function(benchmark)
    used: set[_Rule] = set()
    cases: list[Case] = []
    for model, framework, precision, device, batch, threads, scenario in combinations:
        words = (model, framework.id, precision, device, batch, threads, scenario.kind)
        excluding = [rule for rule in excludes if rule.matches(words)]
        applied = tuple(index for index, rule in enumerate(overrides) if rule.matches(words))
        used.update(excluding, (overrides[index] for index in applied))
        own, bounds = changed.by(applied, scenario) if applied else (benchmark, scenario)
        cases.append(
            Case(
                suite=suite,
                benchmark=own,
                model=suite.models[model],
                framework=framework,
                precision=precision,
                device=device,
                batch=batch,
                threads=threads,
                scenario=bounds,
                param=f"{model}-{framework.id}-{precision}-{device}{suffix(batch, threads, scenario)}",
                skip=excluding[0].reason if excluding else _unfit(framework.name, device, known),
                emulated=known.traits(device).emulated,
            )
        )
    for rule in (*excludes, *overrides):
        if rule not in used:
            raise rule.place.error("matches none of the cases; correct it or take it out")
    _check_cases(cases, known, place)
    return cases


def _unfit(framework: str, device: str, known: Known) -> str | None:
    """Say why a device cannot take a framework, None when it can."""
    if device in known.offered and not known.has_device(device):
        return f"the device {device} comes with a package that is not installed: {known.offered[device]}"
    takes = known.traits(device).frameworks
    if takes:
        return None if framework in takes else f"{device} takes {', '.join(takes)} only"
    if known.frameworks[framework].on_board:
        return f"{framework} is what a board has built in, and {device} is none"
    return None


def _combinations(benchmark: BenchmarkSpec) -> list[_Values]:
    axes = (
        benchmark.model,
        benchmark.framework,
        benchmark.precision,
        benchmark.device,
        benchmark.batch,
        benchmark.threads or (None,),
        benchmark.scenario,
    )
    found: list[_Values] = list(itertools.product(*axes))
    for extra in benchmark.include:
        values = tuple(extra[axis] for axis in AXES)
        found.append(values)
    return found


def _suffix_function(benchmark: BenchmarkSpec) -> Callable[[int, int | None, ScenarioSpec], str]:
    """Return what writes the optional axes of an id: those with several values, or another than declared."""
    # The only declared value of an axis is not written; with several declared, each is.
    batch = benchmark.batch[0] if len(benchmark.batch) == 1 else None
    threads = benchmark.threads[0] if len(benchmark.threads) == 1 else None
    kind = benchmark.scenario[0].kind if len(benchmark.scenario) == 1 else None
    boundaries = len({one.kind for one in benchmark.scenario}) < len(benchmark.scenario)

    def suffix(of_batch: int, of_threads: int | None, of: ScenarioSpec) -> str:
        text = "" if of_batch == batch else f"-b{of_batch}"
        if of_threads is not None and of_threads != threads:
            text += f"-t{of_threads}"
        return text if of.kind == kind else f"{text}-{of.word if boundaries else of.kind}"

    return suffix


def _rules(benchmark: BenchmarkSpec, combinations: list[_Values], place: Place) -> tuple[list[_Rule], list[_Rule]]:
    """Return the excludes and the overrides' conditions, made quick to match."""
    frameworks = {values[1].id: values[1] for values in combinations}

    def rule(chosen: Mapping[str, Any], at: Place) -> _Rule:
        wanted: list[tuple[int, frozenset[object]]] = []
        for index, axis in enumerate(AXES):
            values = chosen.get(axis)
            if values is not None and axis == "framework":
                # A registered name stands for all of its ids.
                values = [key for key, one in frameworks.items() if key in values or one.name in values]
            if values is not None:
                wanted.append((index, frozenset(values)))
        return _Rule(tuple(wanted), at, chosen.get("reason", ""))

    excludes = [rule(one, place.at("exclude").at(i)) for i, one in enumerate(benchmark.exclude)]
    overrides = [rule(one["when"], place.at("override").at(i).at("when")) for i, one in enumerate(benchmark.override)]
    return excludes, overrides


class _Changed:
    """The benchmark with overrides applied, made once for each set of them."""

    def __init__(self, benchmark: BenchmarkSpec, scope: Scope, place: Place) -> None:
        self._benchmark = benchmark
        self._scope = scope
        self._place = place.at("override")
        self._made: dict[tuple[int, ...], tuple[BenchmarkSpec, dict[str, ScenarioSpec]]] = {}

    def by(self, overrides: tuple[int, ...], scenario: ScenarioSpec) -> tuple[BenchmarkSpec, ScenarioSpec]:
        """Return the benchmark after `overrides`, in declared order, and what they made of `scenario`."""
        if overrides not in self._made:
            benchmark = self._benchmark
            for index in overrides:
                settings = self._benchmark.override[index]["set"]
                benchmark = apply_override(benchmark, settings, self._place.at(index).at("set"), self._scope)
            pairs = zip(_scenarios(self._benchmark), _scenarios(benchmark), strict=True)
            self._made[overrides] = benchmark, {before.word: after for before, after in pairs}
        benchmark, scenarios = self._made[overrides]
        return benchmark, scenarios[scenario.word]


def _scenarios(benchmark: BenchmarkSpec) -> list[ScenarioSpec]:
    return [*(one["scenario"] for one in benchmark.include), *benchmark.scenario]


def _check_cases(cases: list[Case], known: Known, place: Place) -> None:
    """Raise SuiteError for two cases of one id, and for one that could never run."""
    params: set[str] = set()
    checked: set[tuple[str, str, str, int]] = set()
    for case in cases:
        if case.param in params:
            raise place.error(f'two cases have the id {case.id}; does "include" name one that the axes give?')
        params.add(case.param)
        if case.skip is not None:
            continue
        key = (case.model.name, case.framework.id, case.precision, id(case.benchmark))
        if key not in checked:
            _check_file(case, known, place)
            _check_reference(case, known, place)
            checked.add(key)
        if case.threads is not None:
            _check_threads(case, known, place)


def _precisions(model: ModelSpec, framework: Framework) -> set[str]:
    """Return the precisions in which a framework's format of the model is there or can be made."""
    form = framework.format
    has = set(model.files.get(form, ()))
    if "fp32" in has:
        has.update(framework.converts)
    if form == "onnx":
        has.update(model.quantize)
        if model.build is not None:
            has.add("fp32")
    return has


def _check_file(case: Case, known: Known, place: Place) -> None:
    """Raise SuiteError when nothing gives the case a model file."""
    framework = known.frameworks[case.framework.name]
    form, has = framework.format, _precisions(case.model, framework)
    if case.precision in has:
        return
    if framework.on_board and not has:
        return  # the board has the model already
    make = f" or quantize.{case.precision}" if form == "onnx" else ""
    rule = f'{{ framework = "{case.framework.id}", precision = "{case.precision}", reason = "..." }}'
    raise place.error(
        f'case {case.id}: model "{case.model.name}" has no {case.precision} for {form} (it has '
        f"{', '.join(sorted(has)) or 'none'}). Add files.{form}.{case.precision}{make} to the model, "
        f"or take the case out: exclude = [{rule}]"
    )


def _check_reference(case: Case, known: Known, place: Place) -> None:
    """Raise SuiteError when outputs are to be compared with a case that has no model file."""
    reference, equivalence = case.benchmark.reference, case.benchmark.expect.equivalence
    if reference is None or reference.file is not None or not ({"*", case.precision} & set(equivalence)):
        return
    name = case.framework.name
    if reference.framework is not None:
        frameworks = case.benchmark.framework
        name = next(one.name for one in frameworks if reference.framework in (one.id, one.name))
    precision = reference.precision if reference.precision is not None else case.precision
    framework = known.frameworks[name]
    if precision not in _precisions(case.model, framework):
        message = f'case {case.id}: model "{case.model.name}" has no {precision} for {framework.format}, its reference'
        raise place.at("reference").error(message)


def _check_threads(case: Case, known: Known, place: Place) -> None:
    """Raise SuiteError when the axis `threads` would say something that does not happen."""
    if "threads" in case.framework.options:
        message = f'case {case.id}: "threads" is an axis and an option of the framework; keep one of them'
        raise place.at("threads").error(message)
    if "threads" not in known.frameworks[case.framework.name].options:
        rule = f'{{ framework = "{case.framework.id}", reason = "..." }}'
        message = f"case {case.id}: {case.framework.name} has no option threads; exclude it: exclude = [{rule}]"
        raise place.at("threads").error(message)


def _place(suite: SuiteSpec, benchmark: BenchmarkSpec) -> Place:
    """Return the place in a file of [[benchmark]] tables, or the name of a Python suite's benchmark."""
    for index, one in enumerate(suite.benchmarks):
        if one is benchmark and suite.path.suffix == ".toml":
            return Place(suite.path, "benchmark").at(index)
    return Place(suite.path, benchmark.name)
