"""Compare one measured case with the base's case of the same id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench import assets, compare_exact, screening
from pytest_mlbench.checkout import Checkout
from pytest_mlbench.checks import equivalence
from pytest_mlbench.compare import Question
from pytest_mlbench.errors import InvalidCase, SuiteError
from pytest_mlbench.execute import Executed, Executor
from pytest_mlbench.gate import QUALITY, Gate, MakeExecutor, compared_metrics
from pytest_mlbench.judge import aligned
from pytest_mlbench.metrics import quality
from pytest_mlbench.metrics.api import MetricFunction
from pytest_mlbench.record import CheckResult, Comparison, Metric
from pytest_mlbench.rounds import Pairing, Round, SideName, failures_of_base
from pytest_mlbench.spec import Regression

_PLACES = {QUALITY: 1, "accuracy.top5": 5}  # the first so many classes count as right
Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Judged:
    """What a comparison with the base yielded: a comparison for each metric, checks, facts for the record."""

    comparisons: tuple[Comparison, ...]
    facts: dict[str, Any]
    checks: tuple[CheckResult, ...] = ()


@dataclass(frozen=True)
class AgainstBase:
    """One case that has been measured, and what it takes to compare it."""

    gate: Gate
    candidate: Executor
    executed: Executed
    metrics: Sequence[Metric]
    functions: Mapping[str, MetricFunction]
    make: MakeExecutor

    def judged(self) -> Judged:
        """Compare. Raises StageError when the candidate's own process fails; the base's failure is `invalid`."""
        if self.gate.refusal:
            raise SuiteError(self.gate.refusal)
        case = self.candidate.case
        facts = facts_of(self.gate.checkout)
        base_case = self.gate.of_base(case)
        wanted = self._wanted()
        if base_case is None:
            why = self.gate.unreadable(case)
            reason = f"the base's suite cannot be read: {why}"
            return Judged(self._all_invalid(wanted, reason) if why else (), facts | ({} if why else {"new": True}))
        if base_case.skip is not None:
            return Judged((), {**facts, "new": True, "excluded": base_case.skip})
        if self.candidate.preparation.ready().is_in_board:
            told = "the board is not flashed here, so the base's firmware cannot be measured in turn with this one: "
            reason = told + "compare with an earlier run or the history (mlbench compare, mlbench history)"
            return Judged(
                tuple(replace(one, verdict="inconclusive") for one in self._all_invalid(wanted, reason)), facts
            )
        try:
            with failures_of_base():
                base = self.make(base_case, self.gate.side("base"))
                base.preparation.ready()
                outputs = base.outputs()
            return self._compared(base, outputs, wanted, facts)
        except InvalidCase as error:
            return Judged(self._all_invalid(wanted, str(error)), facts)

    def _wanted(self) -> dict[str, Regression]:
        wanted = compared_metrics(self.candidate.case, self.gate.options.margin)
        if self.executed.measurement.labels is None and QUALITY not in self.candidate.case.benchmark.expect.regressions:
            wanted.pop(QUALITY, None)
        return wanted

    def _compared(
        self, base: Executor, outputs: Outputs, wanted: Mapping[str, Regression], facts: dict[str, Any]
    ) -> Judged:
        found: dict[str, Comparison] = {}
        questions: dict[str, Question] = {}
        named = {metric.name: metric for metric in self.metrics}
        for name, limit in wanted.items():
            reason = _unaskable(name, named)
            if reason:
                found[name] = self._invalid(name, reason)
            elif name in _PLACES:
                found[name] = self._quality(name, base, outputs, limit)
            elif name in compare_exact.DETERMINISTIC:
                found[name] = compare_exact.exact(named[name], _exactly(name, base), named[name].value, limit)
            else:
                questions[name] = self._question(named[name], limit)
        here = self.executed.measurement.outputs or {}
        facts["outputs"] = compare_exact.outputs_differ(aligned(here, outputs), outputs) or "identical"
        if questions:
            found |= self._by_rounds(base, questions, facts)
        return Judged(tuple(found[name] for name in wanted), facts, tuple(self._unchanged(outputs)))

    def _question(self, metric: Metric, limit: Regression) -> Question:
        """Return what is asked of a metric; a board's clock tells nothing below two of its ticks."""
        plan, by_board = self.gate.plan, self.candidate.preparation.framework.on_board
        if by_board and metric.unit == "ns":
            tick_ns = float(self.executed.target.get("clock_resolution_ns") or 0)
            limit = replace(limit, ignore_below=max(limit.ignore_below, 2 * tick_ns))
        return Question(
            metric.name, metric.unit, metric.direction, limit, plan.alpha, plan.resolution, plan.confirm, by_board
        )

    def _by_rounds(
        self, base: Executor, questions: Mapping[str, Question], facts: dict[str, Any]
    ) -> dict[str, Comparison]:
        def control() -> Pairing:
            again = self.make(base.case, self.gate.side("base"))
            return self.gate.pairing(base, again, questions, self.functions)

        with failures_of_base():  # the control pair is the base's on both sides
            unfit = self.gate.unfit(control, questions, self.candidate.preparation.device)
        facts["control"] = self.gate.control
        if unfit:
            return {name: self._invalid(name, unfit) for name in questions}
        pairing = self.gate.pairing(base, self.candidate, questions, self.functions)
        taken, found = screening.decided(pairing, questions, self.gate.plan.confirm)
        same = base.preparation.key() == self.candidate.preparation.key()
        same = same and _code(pairing, "base") == _code(pairing, "candidate")
        facts |= {"identical": same, "seed": self.gate.options.seed, "calls": pairing.calls, "blocks": pairing.blocks}
        facts["rounds"] = [one.to_json() for one in taken]
        return {name: believed(comparison, taken, same) for name, comparison in found.items()}

    def _quality(self, name: str, base: Executor, outputs: Outputs, limit: Regression) -> Comparison:
        labels, samples = self.executed.measurement.labels, base.preparation.samples
        if labels is None or samples is None or not np.array_equal(np.asarray(samples.labels), labels):
            return self._invalid(name, "the base has other samples or labels, so answers cannot be paired")
        try:
            here = quality.ranks(self.executed.measurement.outputs or {}, labels) < _PLACES[name]
            there = quality.ranks(outputs, labels) < _PLACES[name]
        except InvalidCase as error:
            return self._invalid(name, str(error))
        return compare_exact.accuracy(name, here, there, limit, self.gate.plan.alpha)

    def _unchanged(self, outputs: Outputs) -> list[CheckResult]:
        """Hold the suite's tolerance on how far outputs may be from the base's."""
        rules = self.candidate.case.benchmark.expect.unchanged
        tolerance = rules.get(self.candidate.case.precision, rules.get("*"))
        if tolerance is None:
            return []
        here = aligned(self.executed.measurement.outputs or {}, outputs)
        found = equivalence.check(here, outputs, tolerance)
        return [replace(one, name=one.name.replace("equivalence", "unchanged", 1)) for one in found]

    def _all_invalid(self, wanted: Mapping[str, Regression], reason: str) -> tuple[Comparison, ...]:
        return tuple(self._invalid(name, reason) for name in wanted)

    def _invalid(self, name: str, reason: str) -> Comparison:
        return invalid(name, reason, self.metrics)


def facts_of(checkout: Checkout) -> dict[str, Any]:
    """Return which base it is, as a record keeps it."""
    return {"commit": checkout.base, "ref": checkout.ref, "how": checkout.how}


def invalid(name: str, reason: str, metrics: Sequence[Metric]) -> Comparison:
    """Return the comparison of a metric that cannot be compared."""
    metric = next((one for one in metrics if one.name == name), Metric(name, None, "", "none"))
    return Comparison(name, metric.unit, metric.direction, "rounds", "invalid", reason)


def _exactly(name: str, base: Executor) -> float | None:
    """Return the base's value of a metric that is the same in every run."""
    if name != compare_exact.EMULATED:
        return base.size()
    with failures_of_base():
        return base.emulated_time()


def _unaskable(name: str, named: Mapping[str, Metric]) -> str:
    metric = named.get(name)
    if metric is None:
        return f"there is no metric {name} in this case"
    if metric.value is None:
        return f"{name} was not measured: {metric.reason}"
    if metric.direction == "none":
        return f"{name} has no better direction, so it can be neither better nor worse"
    return ""


def _code(pairing: Pairing, name: SideName) -> dict[str, str]:
    return {module: assets.sha256_of(Path(file)) for module, file in pairing.sources.get(name, {}).items()}


def believed(comparison: Comparison, taken: Sequence[Round], same: bool) -> Comparison:
    """Withdraw a verdict that the rounds, or sides that are the `same`, speak against."""
    if comparison.verdict not in ("regressed", "improved"):
        return comparison
    if same and comparison.verdict == "improved":
        reason = f"{comparison.reason}, by chance: both sides are the same model, data, options, framework and code"
        return replace(comparison, verdict="pass", reason=reason)
    if same:
        reason = (
            f"{comparison.reason}, although both sides are the same model, data, options, framework and code: "
            "this machine is not fit to judge; `mlbench doctor` tells what may disturb it"
        )
        return replace(comparison, verdict="invalid", reason=reason)
    counted = taken[-comparison.n :]
    troubled = [one for one in counted if one.troubles]
    if comparison.verdict == "regressed" and 2 * len(troubled) > len(counted):
        # What else runs on a machine only ever adds time: a green verdict stands, a red one does not.
        many = f"{len(troubled)} of {len(counted)} rounds were disturbed"
        reason = f"{comparison.reason}, but {many}: {troubled[-1].troubles[0]}"
        return replace(comparison, verdict="invalid", reason=reason)
    return comparison
