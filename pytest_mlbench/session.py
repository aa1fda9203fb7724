"""The state of one session with --mlbench: what suites may name, what is claimed, what an earlier run left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import near, suitefile
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.expected import Deviation
from pytest_mlbench.gate import Gate
from pytest_mlbench.metrics.catalogue import METRICS
from pytest_mlbench.options import Options
from pytest_mlbench.quarantine import Quarantine
from pytest_mlbench.record import Record
from pytest_mlbench.registry import Registry, names
from pytest_mlbench.reporters import progress as progress_reporter
from pytest_mlbench.spec import SuiteSpec
from pytest_mlbench.stores import runfile
from pytest_mlbench.tables import Known, Traits
from pytest_mlbench.waivers import Waivers

_BUILT_IN_METRICS = 6


class MlbenchSession:
    """One per process: pytest itself, and each xdist worker (`worker` holds what the controller told it)."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = Options.from_config(config)
        self.registry = Registry(self.options.lab, config.rootpath)
        self.worker: Mapping[str, Any] | None = getattr(config, "workerinput", None)
        self.run_file = self._run_file()
        self.deviations: tuple[Deviation, ...] | None = None  # from the expected set; None: there is none
        self.gate: Gate | None = None  # with --mlbench-base, once cases are collected
        self.lost: tuple[Deviation, ...] = ()  # cases of the base that are here no more
        self.waivers = Waivers()
        self._suites: dict[str, Path] = {}
        self._python_suites: dict[Path, SuiteSpec] = {}
        self._benchmarks: dict[tuple[Path, str], str] = {}
        self._check_pythons()
        self._check_lab()
        self._terminal = None if self.worker is not None else progress_reporter.terminal()

    @cached_property
    def progress(self) -> progress_reporter.Progress:
        """Return where the running case tells its stage; made late, since pytest's terminal comes after us."""
        return progress_reporter.make(self.config, self._terminal)

    def close(self) -> None:
        """Give the terminal back."""
        if self._terminal is not None:
            self._terminal.close()

    @property
    def measures_nothing(self) -> bool:
        """Tell whether pytest was only asked what there is."""
        option = self.config.getoption
        return self.options.list or any(option(name) for name in ("collectonly", "setuponly", "setupplan"))

    @cached_property
    def known(self) -> Known:
        """Return the names suites may use in this session."""
        return Known(
            frameworks=self.registry.frameworks,
            devices=self.registry.devices,
            scenarios=names("scenarios"),
            metrics={name: unit for name, (unit, _) in METRICS.items()},
            vendor_metrics=len(names("metrics")) > _BUILT_IN_METRICS,
            device_types=self.registry.device_types,
            numbered=tuple(self.registry.numbered),
            lab=self.registry.lab,
            traits=self._traits,
        )

    def _traits(self, device: str) -> Traits:
        """Return a device's traits; one that cannot be made fails when its case is run, and says why."""
        try:
            found = self.registry.device(device)
        except MlbenchError:
            return Traits()
        return Traits(tuple(getattr(found, "frameworks", ())), bool(getattr(found, "emulated", False)))

    @cached_property
    def quarantine(self) -> Quarantine:
        """Return the boards that nothing brought back in this session, by whichever worker."""
        return Quarantine(runfile.parts_dir(self.run_file))

    def claim(self, suite: SuiteSpec) -> None:
        """Refuse a second suite of the same name: case ids would collide in records and history."""
        other = self._suites.setdefault(suite.name, suite.path)
        if other != suite.path:
            raise SuiteError(f'suite "{suite.name}" is also {other}; give one of them another `name`', file=suite.path)

    def python_suite(self, path: Path, tables: Mapping[str, Any]) -> SuiteSpec:
        """Return the models and data sets of a Python suite, parsed once."""
        if path not in self._python_suites:
            suite = suitefile.suite_from_tables(tables, path, self.known)
            if suite.benchmarks:
                message = "a Python suite's benchmarks are its functions; write each as @pytest.mark.mlbench(...)"
                raise SuiteError(message, file=path, key="benchmark")
            self.claim(suite)
            self._python_suites[path] = suite
        return self._python_suites[path]

    def claim_benchmark(self, suite: SuiteSpec, name: str, node: str) -> None:
        """Refuse a second function of one benchmark's name (bench_x and test_x, or in another class)."""
        other = self._benchmarks.setdefault((suite.path, name), node)
        if other != node:
            message = f"{node} and {other} are both benchmark {name!r}, so their case ids would be the same; "
            raise SuiteError(message + "rename one of them", file=suite.path, key=name)

    @cached_property
    def earlier(self) -> Mapping[str, Record]:
        """Return the records of the run to go on from, by case; RunFileError when it cannot be read."""
        if self.options.resume is None:
            return {}
        run = runfile.read(self.options.resume)
        run_id = str(run.header.get("id", self.options.resume.name))
        return {record.case: replace(record, resumed=record.resumed or run_id) for record in run.records}

    def resumed(self, case_id: str, identity: str) -> Record | None:
        """Return the passed record of an earlier run when everything it depends on is still the same."""
        record = self.earlier.get(case_id)
        if record is None or record.outcome != "pass" or record.hashes.get("identity") != identity:
            return None
        if self.gate is not None and record.base.get("commit") != self.gate.checkout.base:
            return None  # it was not compared with this base
        return record

    def _check_pythons(self) -> None:
        for name, path in self.options.pythons.items():
            given = f"--mlbench-python {name}={path}"
            if name not in self.registry.frameworks:
                raise pytest.UsageError(f"{given}: {near.unknown('framework', name, self.registry.frameworks)}")
            if not (path.is_file() and os.access(path, os.X_OK)):
                raise pytest.UsageError(
                    f"{given}: there is no interpreter of that path; make its environment, or correct the path"
                )

    def _check_lab(self) -> None:
        """Refuse a lab file that is wrong before anything is collected, whether or not a suite names its devices."""
        try:
            _ = self.registry.lab
        except MlbenchError as error:
            raise pytest.UsageError(f"{self.options.lab_from}: {error}") from None

    def _run_file(self) -> Path:
        if self.worker is not None and "mlbench_run_file" in self.worker:
            return Path(self.worker["mlbench_run_file"])
        if self.options.output is not None:
            return self.options.output
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
        return self.config.rootpath / ".mlbench" / f"run-{stamp}-{os.getpid()}.jsonl"


KEY = pytest.StashKey[MlbenchSession]()
