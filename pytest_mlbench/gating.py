"""The hooks of a session that compares with a base: check it out, pair its cases, tell what it found."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import base_environment, checkout, collect, expected, waivers
from pytest_mlbench.checkout import Checkout
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.expected import Deviation
from pytest_mlbench.gate import Gate
from pytest_mlbench.inventory import Inventory
from pytest_mlbench.options import GateOptions
from pytest_mlbench.session import MlbenchSession


def join(config: pytest.Config, session: MlbenchSession) -> None:
    """Register the gate where a base was named; a session that measures nothing needs none."""
    if session.options.gate is not None and not session.measures_nothing:
        inventory = Inventory()
        config.pluginmanager.register(inventory, "mlbench-base-inventory")
        config.pluginmanager.register(Gating(session, session.options.gate, inventory), "mlbench-gating")


class Gating:
    """One per process. The controller checks the base out; xdist workers are told where it is."""

    def __init__(self, session: MlbenchSession, options: GateOptions, inventory: Inventory) -> None:
        self._session = session
        self._options = options
        self._inventory = inventory
        self._checkout: Checkout | None = None
        self._python: Path | None = options.python
        self._held = contextlib.ExitStack()
        self._lost: dict[str, Deviation] = {}  # the base's cases that are not measured here any more

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Check the base out before anything is measured."""
        worker = self._session.worker
        try:
            if worker is not None:
                self._checkout = Checkout.from_json(worker["mlbench_checkout"])
                self._python = Path(worker["mlbench_base_python"]) if worker["mlbench_base_python"] else None
            else:
                root = session.config.rootpath
                self._checkout = checkout.check_out(root, self._options.base, exact=self._options.exact)
                if self._options.lock is not None:
                    self._python = base_environment.environment_of(self._checkout.tree, self._options.lock)
            self._held.enter_context(checkout.hold(self._checkout))
            self._session.waivers = waivers.load(self._waivers_file(session.config))
        except MlbenchError as error:
            raise pytest.UsageError(f"--mlbench-base {self._options.base}: {error}") from None

    def _waivers_file(self, config: pytest.Config) -> Path:
        return config.rootpath / str(config.getini("mlbench_waivers"))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker where the base is."""
        assert self._checkout is not None
        node.workerinput["mlbench_checkout"] = self._checkout.to_json()
        node.workerinput["mlbench_base_python"] = str(self._python) if self._python else ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Pair the cases by id, and plan the rounds."""
        if self._checkout is None or session.testsfailed or not session.items:
            return
        config = session.config
        gate = Gate(self._options, self._checkout, self._python)
        cases = [case for item in session.items if (case := collect.case_of(item)) is not None]
        paths = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
        try:
            gate.pair(cases, paths, config.invocation_params.dir, self._session.options.lab)
            self._look_for_lost(session, gate)
            self._refuse_no_pair(gate, [case.id for case in cases if case.skip is None])
        except MlbenchError as error:
            if self._session.worker is None:
                raise pytest.UsageError(f"--mlbench-base {self._options.base}: {error}") from None
            gate.refusal = str(error)  # a worker that raised here would only be replaced
        self._session.gate = gate

    def _look_for_lost(self, session: pytest.Session, gate: Gate) -> None:
        """Note the base's cases that are here no more, of the suites that were collected whole."""
        collected = self._inventory.collected(session)
        if collected is None:
            return
        measured = {case.id: None for case in gate.base_cases.values() if case.skip is None}
        differ = expected.deviations(measured, collected, all_run=False)
        self._lost = {one.name: one for one in differ if one.what in ("vanished", "newly skipped")}
        if collected.suites is None:
            problems = self._session.waivers.check_cases(set(collected.cases))
            if problems:
                raise MlbenchError("\n".join(str(problem) for problem in problems))

    def _refuse_no_pair(self, gate: Gate, selected: list[str]) -> None:
        """Raise MlbenchError when the base has none of the selected cases: that would be a green that says nothing."""
        unreadable = any(gate.unreadable(case) for case in gate.selected)
        if not selected or unreadable or any(case in gate.base_cases for case in selected):
            return
        base = gate.checkout.base[:12]
        has = f"it has {len(gate.base_cases)} others there" if gate.base_cases else "it has no such suite"
        raise MlbenchError(
            f"the base {base} has none of the {len(selected)} cases selected ({selected[0]}, ...): {has}, so nothing "
            "would be compared. Name a base that has them, or leave the option out for the change that adds them"
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Hear from an xdist worker which of the base's cases are lost."""
        for told in getattr(node, "workeroutput", {}).get("mlbench_lost", ()):
            self._lost[told["name"]] = Deviation(**told)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make a lost case a failure of the run, unless a committed expected set rules what there must be."""
        if self._session.worker is not None:
            told = [one.to_json() for one in self._lost.values()]
            session.config.workeroutput["mlbench_lost"] = told  # type: ignore[attr-defined]
        elif self._session.deviations is None:
            self._session.lost = tuple(self._lost.values())

    def pytest_unconfigure(self) -> None:
        """Let go of the base's files."""
        self._held.close()

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell what was lost, what the checkout noticed, and which waivers no longer hold."""
        if self._session.worker is not None or self._checkout is None:
            return
        if self._checkout.same:
            told = (
                f"mlbench: the base {self._checkout.base[:12]} is the candidate itself, so nothing can have changed; "
            )
            terminalreporter.write_line(told + "on a push, name the commit before it (HEAD~1)", yellow=True)
        for note in self._checkout.notes:
            terminalreporter.write_line(f"mlbench: {note}")
        for waiver in self._session.waivers.expired:
            told = f"mlbench: {waiver.place.file}: the waiver of {waiver.metric} for {waiver.case} expired on "
            terminalreporter.write_line(f"{told}{waiver.expires.isoformat()}; take it out", yellow=True)
        if self._session.lost:
            base = self._checkout.base[:12]
            terminalreporter.write_line(f"mlbench: not every case of the base {base} is measured here:", red=True)
            for lost in self._session.lost:
                terminalreporter.write_line(f"  {lost}", red=True)
            remedy = "If that is meant: mlbench freeze, and commit the file, which then says what there must be"
            terminalreporter.write_line(remedy, red=True)
