"""The gate of one session: the base's cases, how many rounds decide, and whether this machine may judge at all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pytest_mlbench import basecases, compare_exact, fitness, revisions, screening
from pytest_mlbench.basecases import BaseCases
from pytest_mlbench.checkout import Checkout
from pytest_mlbench.compare import Question
from pytest_mlbench.devices.api import Device, Remote
from pytest_mlbench.execute import Executor
from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics import quality
from pytest_mlbench.metrics.api import MetricFunction
from pytest_mlbench.options import GateOptions
from pytest_mlbench.provenance import Side
from pytest_mlbench.record import Comparison
from pytest_mlbench.rounds import Pairing
from pytest_mlbench.screening import Plan
from pytest_mlbench.spec import Regression

QUALITY = "accuracy.top1"

MakeExecutor = Callable[[Case, Side], Executor]


def compared_metrics(case: Case, margin: float) -> dict[str, Regression]:
    """Return the metrics of a case that are compared: its scenario's figure, a classifier's top-1, the suite's own."""
    figure = "throughput" if case.scenario.kind == "offline" else "latency.p50"
    found = {figure: Regression(margin)}
    if case.emulated:
        found = {compare_exact.EMULATED: Regression(0.0)}
    if case.benchmark.dataset is not None and case.model.task in quality.TASKS:
        found[QUALITY] = Regression(0.0)
    return {**found, **case.benchmark.expect.regressions}


def differs(control: Comparison) -> bool:
    """Tell whether a revision compared with itself differs by more than the margin, whichever of the two is worse."""
    if control.verdict != "improved" or control.change is None:
        return control.verdict == "regressed"
    swapped = 1 / (1 + control.change)  # the same two with their roles exchanged
    return (1 - swapped if control.direction == "higher" else swapped - 1) > control.margin


class Gate:
    """One per process; it must know the selected cases before the first comparison."""

    def __init__(self, options: GateOptions, checkout: Checkout, python: Path | None) -> None:
        self.options = options
        self.checkout = checkout
        self.plan = Plan(screening.FAMILY_ALPHA, 0)
        self.control: dict[str, Any] = {}  # what the burn-in and the control pair found
        self.selected: tuple[Case, ...] = ()
        self.refusal = ""  # why nothing may be compared at all
        self._python = python
        self._base = BaseCases({}, {})
        self._changed: frozenset[str] = frozenset()  # files that differ between base and candidate
        self._unfit: dict[str, str] = {}  # by the machine that computes, "" for this one
        self._controls: dict[str, dict[str, Any]] = {}

    def pair(self, cases: Sequence[Case], paths: Sequence[Path], folder: Path, lab: Path | None = None) -> None:
        """Collect the base's cases of the suites at `paths`, and plan the rounds for this many comparisons.

        MlbenchError when the base cannot be collected, or the rounds asked for could never decide.
        """
        self.selected = tuple(cases)
        self._base = basecases.collect(self.checkout, paths, folder, lab)
        self._changed = revisions.changed(self.checkout.root, self.checkout.base)
        family = sum(
            len(set(compared_metrics(case, self.options.margin)) - set(compare_exact.DETERMINISTIC))
            for case in cases
            if case.skip is None
        )
        self.plan = screening.plan(family, self.options.rounds, self.options.seconds)

    @property
    def base_cases(self) -> Mapping[str, Case]:
        """Return the base's cases by id, as collected."""
        return self._base.cases

    def unreadable(self, case: Case) -> str:
        """Return why the base's file of this case's suite gave no cases, "" when it did or was not there."""
        return basecases.unreadable(self._base.errors, self.checkout.counterpart(case.suite.path))

    def of_base(self, case: Case) -> Case | None:
        """Return the base's case of the same id as it is measured: by the candidate's scenario, in its own place."""
        other = self._base.cases.get(case.id)
        if other is None:
            return None
        framework = other.framework
        if framework.python is None and self._python is not None:
            framework = replace(framework, python=self._python)
        return replace(other, scenario=case.scenario, framework=framework)

    def side(self, name: Literal["base", "candidate"]) -> Side:
        """Return one of the two revisions."""
        root, tree = self.checkout.root, self.checkout.tree
        first, other = (tree, root) if name == "base" else (root, tree)
        return Side(name, first, other, self._changed)

    def pairing(
        self,
        base: Executor,
        candidate: Executor,
        questions: Mapping[str, Question],
        functions: Mapping[str, MetricFunction],
    ) -> Pairing:
        """Return how the rounds of two executors are taken, in an order that the session's seed gives."""
        rng = random.Random(f"{self.options.seed} {candidate.case.id}")
        progress = candidate.preparation.progress
        return Pairing(
            base, candidate, tuple(questions), functions, rng, self.options.seconds, self.plan.rounds, progress
        )

    def unfit(
        self, control: Callable[[], Pairing], questions: Mapping[str, Question], device: Device | None = None
    ) -> str:
        """Return why nothing can be judged on the machine of `device`, "" when it can; found out once for each.

        First a fixed loop must run evenly, then the base is compared with itself (`control`) by the same rules: a
        difference found there is the machine's. Another machine, and a board with a clock of its own, is asked by
        the second alone.
        """
        elsewhere = isinstance(device, Remote) or (device is not None and bool(device.frameworks))
        place = device.name if device is not None and elsewhere else ""
        self.control = self._controls.setdefault(place, {})
        if place not in self._unfit:
            found = "" if place else self._burnt_in()  # the loop would run here, not there
            # Set last: where this base fails, the next case's is tried.
            self._unfit[place] = found or self._differs_from_itself(control(), questions)
        return self._unfit[place]

    def _burnt_in(self) -> str:
        """Return why this machine runs too unevenly, "" when it does not."""
        burnt = fitness.burn_in()
        if burnt.spread > self.options.ceiling:  # something that began or ended just then is no reason
            burnt = fitness.burn_in()
        self.control["burn_in_spread"] = burnt.spread
        return fitness.noise_reason(burnt, self.options.ceiling)

    def _differs_from_itself(self, control: Pairing, questions: Mapping[str, Question]) -> str:
        taken, found = screening.decided(control, questions, self.plan.confirm)
        self.control |= {
            "case": control.base.case.id,
            "rounds": len(taken),
            "comparisons": [asdict(comparison) for comparison in found.values()],
        }
        for comparison in found.values():
            if differs(comparison):
                return (
                    f"this machine is not fit to judge: the base compared with itself differs: {comparison.reason}; "
                    "`mlbench doctor` tells what may disturb it"
                )
        return ""
