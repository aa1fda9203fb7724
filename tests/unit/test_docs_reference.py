"""The reference in docs/ lists neither more nor less than the code has."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import outcome, record, spec, suitefile
from pytest_mlbench.checks import equivalence
from pytest_mlbench.cli import parser as command_parser
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.metrics.catalogue import METRICS
from pytest_mlbench.registry import Registry, names
from pytest_mlbench.suitefile_dataset import STEPS
from pytest_mlbench.suitefile_expect import COMPLIANCE
from pytest_mlbench.suitefile_settings import BOUNDARIES
from pytest_mlbench.tables import Known

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMAND = (DOCS / "reference" / "command.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
BUILT_IN = {
    name: one for name, one in Registry().frameworks.items() if one.adapter.startswith("pytest_mlbench.agent.adapters.")
}
KNOWN = Known(
    frameworks=BUILT_IN,
    devices=("cpu",),
    scenarios=("single_stream", "offline"),
    metrics={name: unit for name, (unit, _) in METRICS.items()},
)
BASE: Mapping[str, Mapping[str, Any]] = {
    "model": {"name": "m", "files": {"onnx": {"fp32": "m.onnx"}}},
    "dataset": {"file": "data.npz"},
    "benchmark": {"name": "b", "model": ["m"], "framework": ["onnxruntime"], "precision": ["fp32"], "dataset": "d"},
}


def section(page: str, heading: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    level = heading.split(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading!r}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the tables in `text` by each word in backquotes in their first cell."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            for word in re.findall(r"`([^`]+)`", cells[0]):
                found[word] = [cell.strip(" |") for cell in cells[1:]]
    return found


def first_table(text: str) -> dict[str, list[str]]:
    """Return the rows before the next heading of any level."""
    return rows(re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0])


# Section of the reference -> how to bring an unknown key into that table.
TABLES: dict[str, Any] = {
    "## Top level": lambda s: s.update(zzz=1),
    "## `[[model]]`": lambda s: s["model"][0].update(zzz=1),
    "### `quantize`": lambda s: s["model"][0].update(quantize={"fp16": {"zzz": 1}}),
    "## `[dataset.NAME]`": lambda s: s["dataset"]["d"].update(zzz=1),
    "### Steps of `preprocess`": lambda s: s["dataset"]["d"].update(preprocess=[{"zzz": 1}]),
    "## `[[benchmark]]`": lambda s: s["benchmark"][0].update(zzz=1),
    "### Framework entries": lambda s: s["benchmark"][0].update(framework=[{"name": "litert", "zzz": 1}]),
    "### `exclude`": lambda s: s["benchmark"][0].update(exclude=[{"zzz": 1}]),
    "### `include`": lambda s: s["benchmark"][0].update(include=[{"zzz": 1}]),
    "### `override`": lambda s: s["benchmark"][0].update(override=[{"zzz": 1}]),
    "### `scenario`": lambda s: s["benchmark"][0].update(scenario={"zzz": 1}),
    "### `reference`": lambda s: s["benchmark"][0].update(reference={"zzz": 1}),
    "### `price`": lambda s: s["benchmark"][0].update(price={"zzz": 1}),
    "#### `max_regression`": lambda s: s["benchmark"][0].update(expect={"latency.p50": {"limit": "< 1 s", "zzz": 1}}),
    "#### `max_drop`": lambda s: s["benchmark"][0].update(expect={"accuracy": {"max_drop": {"zzz": 1}}}),
    "#### Tolerance": lambda s: s["benchmark"][0].update(expect={"equivalence": {"fp32": {"zzz": 1}}}),
}


@pytest.mark.parametrize("heading", TABLES)
def test_reference_has_the_keys_the_parser_takes(heading, tmp_path):
    suite = {"mlbench": 1, "model": [dict(BASE["model"])], "dataset": {"d": dict(BASE["dataset"])}}
    suite["benchmark"] = [dict(BASE["benchmark"])]
    TABLES[heading](suite)
    with pytest.raises(SuiteError, match="Keys here: ") as raised:
        suitefile.suite_from_tables(suite, tmp_path / "bench_sample.toml", KNOWN)
    keys = str(raised.value).partition("Keys here: ")[2].split(", ")
    assert sorted(first_table(section("reference/suite.md", heading))) == sorted(keys)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("### `scenario`", spec.ScenarioSpec),
        ("## `[dataset.NAME]`", spec.DatasetSpec),
        ("## `[[model]]`", spec.ModelSpec),
    ],
)
def test_reference_has_the_defaults_of_the_parser(heading, kind):
    listed = first_table(section("reference/suite.md", heading))
    for one in dataclasses.fields(kind):
        if one.name in listed and isinstance(one.default, (int, float, str)) and listed[one.name][1] != "required":
            assert listed[one.name][1].strip('`"') == str(one.default), one.name


def test_steps_and_words_of_expect_are_listed():
    assert set(first_table(section("reference/suite.md", "### Steps of `preprocess`"))) == set(STEPS)
    compliance = rows(section("reference/checks.md", "## Compliance"))
    assert set(compliance) == set(COMPLIANCE)
    tolerance = spec.Tolerance(0.0, 0.0, *[spec.Limit("<=", 0, "", "")] * 4, True)
    rules = set(equivalence._rules(tolerance))
    listed = rows(section("reference/checks.md", "## Equivalence"))
    assert {name.removeprefix("equivalence.") for name in listed} == rules
    assert {word for cells in listed.values() for word in re.findall(r"`(\w+)`", cells[0])} == {
        one.name for one in dataclasses.fields(spec.Tolerance)
    }


def test_scenarios_and_boundaries_are_listed():
    found = rows((DOCS / "reference" / "scenarios.md").read_text(encoding="utf-8"))
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert set(found) == {*entries["mlbench.scenarios"], *BOUNDARIES}


def test_frameworks_and_their_options_are_listed():
    page = (DOCS / "reference" / "frameworks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## `(\w+)`$", page, re.MULTILINE)) == set(BUILT_IN)
    for name, framework in BUILT_IN.items():
        text = section("reference/frameworks.md", f"## `{name}`")
        listed = rows(text)
        assert set(listed) == set(framework.options)
        for option, facts in framework.options.items():
            default = str(facts.default).lower() if isinstance(facts.default, bool) else str(facts.default)
            assert listed[option][1] == default, f"{name}.{option}"
            assert [word for word in facts.choices if f"`{word}`" not in listed[option][0]] == []


def test_metrics_are_listed_with_unit_and_direction():
    listed = {name: cells for name, cells in rows((DOCS / "reference" / "metrics.md").read_text("utf-8")).items()}
    assert set(listed) == set(METRICS)
    for name, (unit, direction) in METRICS.items():
        assert listed[name][:2] == [unit or "share", direction]


def test_options_are_listed_and_exist():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    real = set(re.findall(r"--mlbench[a-z-]*", shown))
    listed = rows(section("reference/options.md", "## Options of pytest"))
    assert {name for name in listed if name.startswith("--")} == real
    everywhere = {word for page in PAGES for word in re.findall(r"--mlbench[a-z-]*", page.read_text(encoding="utf-8"))}
    assert everywhere - real == set()
    assert set(rows(section("reference/options.md", "## Configuration"))) == set(
        re.findall(r"^  (mlbench_\w+) \(", shown, re.MULTILINE)
    )


def test_environment_variables_are_listed_and_exist():
    listed = set(rows(section("reference/options.md", "## Environment variables")))
    in_code = set()
    for file in (ROOT / "pytest_mlbench").rglob("*.py"):
        in_code |= set(re.findall(r"\bMLBENCH_[A-Z][A-Z_]*\b", file.read_text(encoding="utf-8")))
    in_tests = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    in_code |= set(re.findall(r"\bMLBENCH_[A-Z][A-Z_]*\b", in_tests))
    assert {name for name in listed if name.startswith("MLBENCH_")} == in_code
    named = {word for page in PAGES for word in re.findall(r"\bMLBENCH_[A-Z_]+\b", page.read_text(encoding="utf-8"))}
    assert named <= in_code


def test_exit_codes_and_outcomes_are_listed():
    text = section("reference/outcomes.md", "## Exit codes")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    ours = {value for name, value in vars(outcome).items() if name.isupper() and isinstance(value, int)}
    assert codes == ours | set(range(7))
    assert codes >= {int(code) for code in pytest.ExitCode}
    outcomes = set(rows(section("reference/outcomes.md", "## Outcomes of a case").split("Stages:")[0]))
    assert outcomes == set(typing.get_args(record.Outcome))


def test_stages_are_listed():
    # An agent is asked by stage and verb; a board's keeper by the verb alone.
    given = r'\.call\(\s*"([a-z-]+)",\s*(?:"|verb)|(?:StageError\(|stage=|STAGE = )\s*"([a-z-]+)"'
    in_code = {
        "".join(stage)
        for file in (ROOT / "pytest_mlbench").rglob("*.py")
        for stage in re.findall(given, file.read_text(encoding="utf-8"))
    }
    listed = set(rows(section("reference/outcomes.md", "## Outcomes of a case").partition("Stages:")[2]))
    assert in_code - listed == {"close"}
    assert set(outcome._OF_THE_USER) <= listed
    text = section("reference/outcomes.md", "## Exit codes")
    first = next(line for line in text.splitlines() if line.startswith("| 1 |"))
    assert set(re.findall(r"`([^`]+)`", first)) == set(outcome._OF_THE_USER)


def test_fields_of_the_run_file_are_listed():
    for heading, kind in (("## Record", record.Record), ("## Metric", record.Metric)):
        listed = rows(section("reference/run-file.md", heading))
        assert set(listed) == {one.name for one in dataclasses.fields(kind)}


def test_fixtures_and_markers_are_listed():
    from pytest_mlbench import fixtures

    text = (DOCS / "reference" / "fixtures.md").read_text(encoding="utf-8")
    defined = re.findall(
        r"^@pytest\.fixture\ndef (\w+)", Path(fixtures.__file__).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(rows(text.partition("## The fixture")[0])) == set(defined)
    assert set(rows(section("reference/fixtures.md", "## Markers"))) == {"mlbench"}


def test_entry_point_groups_are_listed():
    words = rows((DOCS / "how-to" / "vendor.md").read_text(encoding="utf-8"))
    listed = {word for word in words if word.startswith("mlbench.")}
    assert listed == {f"mlbench.{group}" for group in ("frameworks", "metrics", "scenarios", "devices", "stores")}
    assert all(names(group.removeprefix("mlbench.")) for group in listed)


def test_extras_are_listed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    assert set(rows(text)) == set(project["optional-dependencies"])
    named = {extra for page in PAGES for extra in re.findall(r"pytest-mlbench\[(\w+)\]", page.read_text("utf-8"))}
    assert named <= set(project["optional-dependencies"])


def test_verbs_of_the_command_are_listed():
    shown = command_parser().format_help().partition("VERB\n")[2]
    verbs = set(re.findall(r"^    (\w+)\b", shown, re.MULTILINE))
    assert "init" in verbs
    assert set(re.findall(r"^## `mlbench (\w+)", COMMAND, re.MULTILINE)) == verbs


@pytest.mark.parametrize("heading", re.findall(r"^## `mlbench \w.*$", COMMAND, re.MULTILINE))
def test_options_of_each_verb_are_listed(heading, capsys):
    with pytest.raises(SystemExit):
        command_parser().parse_args([re.findall(r"\w+", heading)[1], "--help"])
    options = set(re.findall(r"^  (?:-\w[^,]*, )?(--[\w-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--help"}
    listed = section("reference/command.md", heading)
    assert set(re.findall(r"^\| `(--[\w-]+)", listed, re.MULTILINE)) == options
