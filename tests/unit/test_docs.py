"""What the documentation shows works.

Code blocks are told apart by the words behind the language: `toml` alone is a whole suite, `toml model`,
`toml dataset` and `toml benchmark` are the keys of one such table, `toml broken` is refused with the message in the
block after it, `toml lab` and `toml board` are checked by test_docs_lab.py, `toml fragment` is other TOML; `python
suite` is a whole Python suite, `python vendor:NAME` a module of a vendor's package.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mlbench import matrix, spec, suitefile
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.metrics.catalogue import METRICS
from pytest_mlbench.registry import Registry
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
        "toml": {"", "model", "dataset", "benchmark", "broken", "fragment", "lab", "board"},
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
        loads = {"onnx": ("onnxruntime", "fp32"), "tflite": ("litert", "int8"), "torch": ("torch", "bf16")}
        framework, precision = next(pair for form, pair in loads.items() if form in files)
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
    environment = {**os.environ, "MLBENCH_CACHE": str(folder / "cache"), "COLUMNS": "80"}
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
    done = run_pytest(tmp_path, "-q", "vendor/test_acme.py", path=package)
    assert done.returncode == 0, done.stdout + done.stderr


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


# --- output -----------------------------------------------------------------------------------------------


def test_what_init_shows_is_what_it_writes(tmp_path):
    onnx = pytest.importorskip("onnx")
    from pytest_mlbench.scaffold import write_suite

    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["tokens"], ["numbers"], to=kinds.FLOAT),
            helper.make_node("Concat", ["numbers", "features"], ["score"], axis=1),
        ],
        "ranker",
        [
            helper.make_tensor_value_info("tokens", kinds.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("features", kinds.FLOAT, ["batch", 4]),
        ],
        [helper.make_tensor_value_info("score", kinds.FLOAT, ["batch", "width"])],
    )
    model = tmp_path / "ranker.onnx"
    onnx.save(helper.make_model(graph), model)
    suite = write_suite(model, tmp_path / "suites" / "ranker", BUILT_IN)
    page = DOCS / "how-to" / "your-own-model.md"
    assert f"wrote {suite.relative_to(tmp_path).as_posix()}\n" in page.read_text(encoding="utf-8")
    shown = next(block for block in blocks_of(page) if block.kind == "fragment")
    assert shown.text in suite.read_text(encoding="utf-8")


def shape_of(line: str) -> str:
    """Return a line with its numbers taken out: they depend on the machine and the framework's version."""
    return re.sub(r"#(, #)+", "#", re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "#", line)).strip()


def test_broken_model_fails_as_shown(tmp_path):
    pytest.importorskip("onnxruntime")
    readme = blocks_of(ROOT / "README.md")
    suite = next(block for block in readme if block.language == "toml")
    shown = next(block.text for block in readme if "fail: my_net" in block.text).splitlines()
    table = next(block.text for block in readme if "throughput" in block.text).splitlines()
    digits(tmp_path)
    (tmp_path / "models" / "digits.onnx").rename(tmp_path / "models" / "my_net.onnx")
    data = np.load(tmp_path / "data" / "calibration.npz")
    np.savez(tmp_path / "data" / "calibration.npz", image=data["image"] * 255)
    (tmp_path / "bench_my_net.toml").write_text(suite.text, encoding="utf-8")
    done = run_pytest(tmp_path, "--mlbench", "bench_my_net.toml")
    assert done.returncode == 1, done.stdout + done.stderr
    printed = [shape_of(line) for line in done.stdout.splitlines()]
    assert [line for line in shown if shape_of(line) not in printed] == []
    heading = next(line for line in done.stdout.splitlines() if line.startswith("case "))
    assert heading.split() == table[1].split()


def test_no_page_names_a_machine():
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/|/root/|/home/", page.read_text(encoding="utf-8")), page
