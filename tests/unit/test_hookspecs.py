"""Hooks, their documentation and their tests say the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import hookspecs

ROOT = Path(__file__).parents[2]
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("pytest_mlbench_")}
FIELDS = ("When", "Arguments", "Return", "Order", "Example")


def signature(name: str, hook: Callable[..., Any]) -> str:
    """Write a hook as its declaration stands in the source (annotations are strings there)."""
    found = inspect.signature(hook)
    arguments = ", ".join(f"{one.name}: {one.annotation}" for one in found.parameters.values())
    return f"def {name}({arguments}) -> {found.return_annotation}"


def test_there_are_hooks_and_no_other_public_function():
    functions = {name for name, value in vars(hookspecs).items() if inspect.isfunction(value)}
    assert functions == set(HOOKS)
    assert HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_typed_and_short(name):
    parameters = inspect.signature(HOOKS[name]).parameters.values()
    assert 1 <= len(parameters) <= 4
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters)
    assert inspect.signature(HOOKS[name]).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", HOOKS)
def test_docstring_says_when_what_and_in_which_order(name):
    text = inspect.getdoc(HOOKS[name]) or ""
    assert [word for word in FIELDS if not re.search(rf"^{word}:", text, re.MULTILINE)] == []
    assert f"def {name}(" in text.partition("Example:")[2]


@pytest.mark.parametrize("name", HOOKS)
def test_reference_has_the_exact_signature(name):
    reference = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
    assert f"## `{name}`" in reference
    assert signature(name, HOOKS[name]) in reference


def test_reference_names_no_other_hook():
    reference = (ROOT / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bpytest_mlbench_\w+", reference)) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_exercised_by_a_plugin_test(name):
    tests = (ROOT / "tests" / "plugin").glob("test_*.py")
    assert any(name in file.read_text(encoding="utf-8") for file in tests), f"no test in tests/plugin uses {name}"
