"""Modules as a target has them: sent as sources, beside Python and numpy, with nothing of ours installed."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pytest_mlbench
from pytest_mlbench import deploy
from pytest_mlbench.frameworks.api import Framework

DEADLINE_S = 60.0
_BOOTSTRAP = Path(pytest_mlbench.__file__).with_name("agent") / "bootstrap.py"
_TARGET = """
import importlib, json, sys
given = json.load(sys.stdin)
names = {"__name__": "bootstrap"}
exec(compile(given["bootstrap"], "bootstrap.py", "exec"), names)
present = {*sys.stdlib_module_names, "numpy", "mlbench_agent", "mlbench_adapters"}


class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in present:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path[:0] = [NotInstalled(), names["Sources"](given["sources"])]
for name in given["modules"]:
    module = importlib.import_module(name)
    print(name, *sorted(vars(module)))
"""


def names_on_target(sources: Mapping[str, str], modules: Sequence[str]) -> dict[str, set[str]]:
    """Return the names that modules define in a process that has nothing but Python, numpy and `sources`.

    `sources` are what deploy.agent_sources() returns, `modules` names among them. What Python 3.9 cannot parse and
    what cannot be imported there fails the test.
    """
    for name in modules:
        try:
            ast.parse(sources[name], feature_version=(3, 9))
        except SyntaxError as error:
            pytest.fail(f"{name}, line {error.lineno}: a target may have Python 3.9: {error.msg}", pytrace=False)
    given = {"bootstrap": _BOOTSTRAP.read_text(encoding="utf-8"), "sources": dict(sources), "modules": list(modules)}
    command = [sys.executable, "-I", "-c", _TARGET]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        told = f"{', '.join(modules)} cannot be imported on a target that has Python and numpy only: {last}"
        pytest.fail(f"{told}; import what may be missing inside the function that needs it", pytrace=False)
    return {words[0]: set(words[1:]) for words in map(str.split, done.stdout.splitlines())}


def adapter_of(framework: Framework) -> ModuleType:
    """Import a framework's adapter here under the name that it has on a target, where `mlbench_agent` is ours."""
    if framework.adapter.startswith("pytest_mlbench.agent."):
        return importlib.import_module(framework.adapter)
    _finder().sources.update(deploy.agent_sources(framework))
    return importlib.import_module(deploy.target_module(framework.adapter))


@lru_cache(maxsize=1)
def _finder() -> Any:  # bootstrap.Sources, which is run on a target and never imported
    names: dict[str, Any] = {"__name__": "bootstrap"}
    exec(compile(_BOOTSTRAP.read_text(encoding="utf-8"), str(_BOOTSTRAP), "exec"), names)
    found = names["Sources"]({})
    sys.meta_path.insert(0, found)
    return found
