"""The reference of pytest_mlbench.testing lists neither more nor less than the code has."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from pytest_mlbench import testing
from pytest_mlbench.testing import fake_board, frameworks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
CONTRACTS = [name for name in testing.__all__ if name.endswith("Contract")]


def section(heading: str) -> str:
    found = re.search(rf"^## `{heading}`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"testing.md has no section `{heading}`"
    return found[1]


def table(heading: str, first: str) -> dict[str, list[str]]:
    """Return the rows of the table of a section whose first column is called `first`, by each word in that column."""
    text = section(heading).partition(f"| {first} |")[2].split("\n\n")[0]
    found = {}
    for line in text.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for word in re.findall(r"`([^`]+)`", cells[0]):
            found[word] = cells[1:]
    return found


def fixtures_of(contract: type) -> set[str]:
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(contract))).body
    assert isinstance(defined, ast.ClassDef)
    return {
        one.name
        for one in defined.body
        if isinstance(one, ast.FunctionDef)
        and any(ast.unparse(decorator) == "pytest.fixture" for decorator in one.decorator_list)
    }


@pytest.mark.parametrize("name", CONTRACTS)
def test_fixtures_of_each_contract_are_listed(name):
    listed = table(name, "fixture")
    assert set(listed) == fixtures_of(getattr(testing, name))
    required = {fixture for fixture, cells in listed.items() if cells[0] == "required"}
    source = inspect.getsource(getattr(testing, name))
    assert required == set(re.findall(r'not_given\(self, "(\w+)"', source))


def test_every_contract_has_a_section():
    assert {name for name in re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE) if name.endswith("Contract")} == set(
        CONTRACTS
    )


def test_fields_of_a_subject_are_listed_with_their_defaults():
    listed = table("FrameworkContract", "field")
    fields = {one.name: one for one in dataclasses.fields(testing.Subject)}
    assert list(listed) == list(fields)
    for name, one in fields.items():
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        assert listed[name][0].strip("`") == ("required" if default is dataclasses.MISSING else str(default)), name


def test_tolerances_are_told():
    text = " ".join(section("FrameworkContract").split())
    told = "1e-4 for fp32, 0.02 for fp16, 0.2 for bf16; 20 dB for int8"
    assert told in text
    assert frameworks.TOLERANCE == {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.2}
    assert frameworks.SQNR_DB == 20


def test_fields_and_faults_of_the_fake_board_are_listed():
    listed = table("FakeBoard", "field")
    assert set(listed) == {one.name for one in dataclasses.fields(testing.FakeBoard)}
    assert tuple(table("FakeBoard", "fault")) == fake_board.KINDS
