"""What the documentation shows works, and its reference lists neither more nor less than the code has.

Code blocks are told apart by the words behind the language: `toml` alone is a whole suite, `toml model`,
`toml dataset` and `toml benchmark` are the keys of one such table, `toml broken` is refused with the message in the
block after it, `toml fragment` is other TOML; `python suite` is a whole Python suite, `python vendor:NAME` a module
of a vendor's package.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import matrix, outcome, record, spec, suitefile
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


# --- code blocks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (number, line[3:].strip()), []
        else:
            language, _, kind = opened[1].partition(" ")
            found.append(Block(page, opened[0], language, kind, "\n".join(lines) + "\n"))
            opened = None
    assert opened is None, f"{page}:{opened} is never closed"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def of(language: str, *kinds: str) -> Any:
    chosen = [block for block in BLOCKS if block.language == language and (not kinds or block.kind in kinds)]
    return pytest.mark.parametrize("block", chosen, ids=str)


def test_every_block_says_what_it_is():
    kinds = {
        "toml": {"", "model", "dataset", "benchmark", "broken", "fragment"},
        "text": {"", "error"},
        "console": {""},
    }
    unknown = [
        str(block)
        for block in BLOCKS
        if block.language != "python" and block.kind not in kinds.get(block.language, set())
    ]
    assert unknown == []


def expand(suite: spec.SuiteSpec) -> int:
    return sum(len(matrix.expand(suite, benchmark, KNOWN)) for benchmark in suite.benchmarks)


@of("toml", "")
def test_suite_is_accepted_and_gives_cases(block, tmp_path):
    path = tmp_path / "bench_sample.toml"
    path.write_text(block.text, encoding="utf-8")
    assert expand(suitefile.load_suite(path, KNOWN)) > 0


BASE: Mapping[str, Mapping[str, Any]] = {
    "model": {"name": "m", "files": {"onnx": {"fp32": "m.onnx", "int8": "m8.onnx"}, "tflite": {"fp32": "m.tflite"}}},
    "dataset": {"file": "data.npz"},
    "benchmark": {"name": "b", "model": ["m"], "framework": ["onnxruntime"], "precision": ["fp32"], "dataset": "d"},
}


@of("toml", "model", "dataset", "benchmark")
def test_keys_of_a_table_are_accepted(block, tmp_path):
    tables = {name: dict(table) for name, table in BASE.items()}
    written = tomllib.loads(block.text)
    # A model or data set in the documentation is whole; a benchmark shows only what matters there.
    tables[block.kind] = {**(tables["benchmark"] if block.kind == "benchmark" else {}), **written}
    if block.kind == "model":
        files = written.get("files", {"onnx": {"fp32": ""}})
        framework, precision = ("onnxruntime", "fp32") if "onnx" in files else ("litert", "int8")
        tables["benchmark"] |= {"model": [written["name"]], "framework": [framework], "precision": [precision]}
    suite = {"mlbench": 1, "model": [tables["model"]], "dataset": {"d": tables["dataset"]}}
    suite["benchmark"] = [tables["benchmark"]]
    if block.kind == "benchmark" and "when" in str(written) and "fp16" in str(written):
        suite["model"][0]["quantize"] = {"fp16": {"from": "fp32", "how": "float16"}}
    known = dataclasses.replace(KNOWN, vendor_metrics=True)
    assert expand(suitefile.suite_from_tables(suite, tmp_path / "bench_sample.toml", known)) > 0


@of("toml", "broken")
def test_refused_suite_gives_the_message_that_follows(block, tmp_path):
    path = tmp_path / "bench_broken.toml"
    path.write_text(block.text, encoding="utf-8")
    message = next(b for b in BLOCKS if b.page == block.page and b.line > block.line and b.kind == "error")
    with pytest.raises(SuiteError) as raised:
        expand(suitefile.load_suite(path, KNOWN))
    assert str(raised.value).removeprefix(f"{path}: ").startswith(message.text.strip())


@of("toml", "fragment")
def test_fragment_is_toml(block):
    assert tomllib.loads(block.text)


@of("python")
def test_python_compiles(block):
    ast.parse(block.text, filename=str(block))


def run_pytest(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder), *arguments]
    environment = {**__import__("os").environ, "MLBENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def digits(folder: Path) -> None:
    for name in ("models/digits.onnx", "models/digits.tflite", "data/test.npz", "data/calibration.npz"):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / "suites" / "digits" / name).read_bytes())


@of("python", "suite")
def test_python_suite_runs(block, tmp_path):
    pytest.importorskip("onnxruntime")
    digits(tmp_path)
    text = block.text.replace('precision=["fp32"],', 'precision=["fp32"], scenario=SHORT,').replace(
        'precision=["fp32"])', 'precision=["fp32"], scenario=SHORT)'
    )
    short = 'SHORT = {"kind": "single_stream", "min_duration_s": 0.05, "warmup_s": 0.05}\n'
    (tmp_path / "bench_sample.py").write_text(short + text, encoding="utf-8")
    done = run_pytest(tmp_path, "--mlbench", "-q", "bench_sample.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert text != block.text


def test_vendor_package_runs(tmp_path):
    pytest.importorskip("onnxruntime")
    package, page = tmp_path / "vendor", DOCS / "how-to" / "vendor.md"
    info = package / "acme_mlbench-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-mlbench\nVersion: 1.0\n", encoding="utf-8")
    for block in blocks_of(page):
        if block.kind.startswith("vendor:"):
            (package / f"{block.kind[7:]}.py").write_text(block.text, encoding="utf-8")
    points = next(tomllib.loads(block.text) for block in blocks_of(page) if block.language == "toml")
    lines = []
    for group, entries in points["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    digits(tmp_path)
    (tmp_path / "bench_sample.toml").write_text(
        """
mlbench = 1
[[model]]
name = "m"
task = "classification"
files = { onnx = { fp32 = "models/digits.onnx" } }
[dataset.d]
file = "data/test.npz"
count = 32
preprocess = [{ scale = 0.0625 }, { reshape = [1, 8, 8] }]
[[benchmark]]
name = "b"
model = ["m"]
framework = ["onnxruntime", { name = "onnx_reference", options = { verbose = 0 } }]
precision = ["fp32"]
device = ["acme_box"]
dataset = "d"
scenario = { kind = "two_passes", min_duration_s = 0.05, warmup_s = 0.05, min_samples = 5 }
reference = { framework = "onnxruntime" }
expect = { acme.samples = "== 32", equivalence = { fp32 = { rtol = 1e-4, atol = 1e-4 } } }
""",
        encoding="utf-8",
    )
    done = run_pytest(tmp_path, "--mlbench", "-q", "bench_sample.toml", path=package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


# --- links ------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return GitHub's anchors of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    missing = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page != DOCS / "README.md"]
    assert [name for name in missing if f"({name})" not in index] == []


# --- the reference against the code -----------------------------------------------------------------------


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
            assert listed[option][1] == str(facts.default).replace("True", "true"), f"{name}.{option}"
            assert [word for word in facts.choices if f"`{word}`" not in listed[option][0]] == []


def test_metrics_are_listed_with_unit_and_direction():
    listed = {name: cells for name, cells in rows((DOCS / "reference" / "metrics.md").read_text("utf-8")).items()}
    assert set(listed) == set(METRICS)
    for name, (unit, direction) in METRICS.items():
        assert listed[name][:2] == [unit or "share", direction]


def test_options_are_listed_and_exist():
    done = run_pytest(ROOT, "--help")
    real = set(re.findall(r"--mlbench[a-z-]*", done.stdout))
    listed = rows(section("reference/options.md", "## Options of pytest"))
    assert {name for name in listed if name.startswith("--")} == real
    everywhere = {word for page in PAGES for word in re.findall(r"--mlbench[a-z-]*", page.read_text(encoding="utf-8"))}
    assert everywhere - real == set()
    assert set(rows(section("reference/options.md", "## Configuration"))) == set(
        re.findall(r"^  (mlbench_\w+) \(", done.stdout, re.MULTILINE)
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
    assert codes == ours | {int(code) for code in pytest.ExitCode}
    outcomes = set(rows(section("reference/outcomes.md", "## Outcomes of a case").split("Stages:")[0]))
    assert outcomes == set(typing.get_args(record.Outcome))


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
    listed = set(rows((DOCS / "how-to" / "vendor.md").read_text(encoding="utf-8")))
    assert listed == {f"mlbench.{group}" for group in ("frameworks", "metrics", "scenarios", "devices")}
    assert all(names(group.removeprefix("mlbench.")) for group in listed)


def test_extras_are_listed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    assert set(rows(text)) == set(project["optional-dependencies"])
    named = {extra for page in PAGES for extra in re.findall(r"pytest-mlbench\[(\w+)\]", page.read_text("utf-8"))}
    assert named <= set(project["optional-dependencies"])


def test_verbs_of_the_command_are_listed():
    text = (DOCS / "reference" / "command.md").read_text(encoding="utf-8")
    verbs = re.search(r"\{([\w,]+)\}|^    (\w+)  ", command_parser().format_help(), re.MULTILINE)
    assert verbs is not None
    assert f"## `mlbench {verbs[1] or verbs[2]} MODEL`" in text
    init = subprocess.run(
        [sys.executable, "-m", "pytest_mlbench", "init", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {word for word in re.findall(r"--\w+", init) if word != "--help"} == set(
        re.findall(r"^\| `(--\w+)", text, re.MULTILINE)
    )


def test_what_init_prints_is_what_it_writes(tmp_path):
    pytest.importorskip("onnx")
    from pytest_mlbench.scaffold import write_suite

    model = tmp_path / "my_net.onnx"
    model.write_bytes((ROOT / "suites" / "digits" / "models" / "digits.onnx").read_bytes())
    written = write_suite(model, tmp_path / "suites" / "my_net", BUILT_IN)
    assert written.relative_to(tmp_path).as_posix() == "suites/my_net/bench_my_net.toml"
    assert "wrote suites/my_net/bench_my_net.toml" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_page_names_a_machine():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/work/|/tmp/|/root/|/home/", text), page
