"""Read a suite: the TOML file, or the same tables from a Python suite, into a SuiteSpec.

Everything is parsed and checked once, here. Files are not opened (that is `assets`' work), so collecting
stays fast; that they lie inside the suite's folder is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.spec import BenchmarkSpec, ModelSpec, Quantize, SuiteSpec
from pytest_mlbench.suitefile_benchmark import read_benchmark
from pytest_mlbench.suitefile_dataset import read_dataset
from pytest_mlbench.suitefile_settings import Scope
from pytest_mlbench.tables import (
    PRECISIONS,
    Known,
    Place,
    Table,
    as_inside,
    as_integer,
    as_items,
    as_known,
    as_name,
    as_sha256,
    as_text,
    as_word,
    shown,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

__all__ = ["SCHEMA", "Known", "benchmark_from_table", "load_suite", "read_toml", "suite_from_tables"]

SCHEMA = 1

# How a precision is made, and which precisions that way can make.
_QUANTIZERS = {"static_qdq": ("int16", "int8", "int4"), "float16": ("fp16",)}


def load_suite(path: Path, known: Known) -> SuiteSpec:
    """Return the suite in the TOML file `path`.

    Raises SuiteError with the file, the key path (or line and column, when it is no TOML) and the remedy, and
    AssetError for a path that leaves the suite's folder.
    """
    suite = suite_from_tables(read_toml(path), path, known)
    if not suite.benchmarks:
        raise SuiteError("holds no [[benchmark]], so there is nothing to measure", file=path)
    return suite


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; SuiteError when it cannot be read or is no TOML."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise SuiteError(f"cannot be read: {error.strerror or error}", file=path) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SuiteError(f"is not UTF-8 text: {error.reason} (at line {line})", file=path) from error
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise SuiteError("its lists or tables are nested too deep", file=path) from None
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"malformed TOML: {_with_line(str(error), text)}", file=path) from error
    return tables


def suite_from_tables(tables: Mapping[str, Any], path: Path, known: Known) -> SuiteSpec:
    """Return the suite of a dict shaped like the TOML file; `path` is the Python file it stands in.

    Its folder is the one that files are relative to. There may be no benchmark yet: see benchmark_from_table.
    """
    path = path.absolute()
    place = Place(path)
    table = Table(tables, place, ("mlbench", "name", "model", "dataset", "device", "benchmark"))
    schema = as_integer(*table.need("mlbench", f"mlbench = {SCHEMA}"))
    if schema != SCHEMA:
        raise place.at("mlbench").error(f"suite schema {schema} is not known; this version reads {SCHEMA}")
    name, at = table.at("name")
    if name is None:
        name, at = path.stem.removeprefix("bench_"), place
    models: dict[str, ModelSpec] = {}
    for item, there in _tables(table, "model"):
        model = _model(item, there, known)
        if model.name in models:
            raise there.at("name").error(f'model "{model.name}" is given twice')
        models[model.name] = model
    datasets = {key: read_dataset(key, item, there, known) for key, item, there in table.table("dataset")}
    offered = {key: _install(key, item, there) for key, item, there in table.table("device")}
    scope = Scope(replace(known, offered=offered), models, datasets)
    benchmarks: dict[str, BenchmarkSpec] = {}
    for item, there in _tables(table, "benchmark"):
        benchmark = read_benchmark(item, there, scope)
        if benchmark.name in benchmarks:
            raise there.at("name").error(f'benchmark "{benchmark.name}" is given twice')
        benchmarks[benchmark.name] = benchmark
    return SuiteSpec(as_name(name, at), path, models, datasets, tuple(benchmarks.values()), offered)


def benchmark_from_table(
    table: Mapping[str, Any], name: str, suite: SuiteSpec, known: Known, place: Place | None = None
) -> BenchmarkSpec:
    """Return the benchmark `name` of a Python suite: `table` is a [[benchmark]] table without its `name`.

    `suite` gives the models, the data sets and the file. Key paths in messages begin with `place`, by default
    the suite's file and the benchmark's name.
    """
    place = Place(suite.path, name) if place is None else place
    if "name" in table:
        raise place.at("name").error("unknown key; the name of the test is the name of the benchmark")
    scope = Scope(replace(known, offered=suite.offered), suite.models, suite.datasets)
    return read_benchmark({"name": name, **table}, place, scope)


def _with_line(message: str, text: str) -> str:
    """Give a message of tomllib that says "end of document" its line and column."""
    if "line" in message:
        return message
    lines = text.split("\n")
    return f"{message} (line {len(lines)}, column {len(lines[-1]) + 1})"


def _tables(table: Table, key: str) -> list[tuple[object, Place]]:
    value, place = table.at(key)
    if isinstance(value, Mapping):
        raise place.error(f"expected a list of tables, found {shown(value)}; write [[{key}]], not [{key}]")
    return [] if value is None else as_items(value, place, "tables")


def _install(name: str, value: object, place: Place) -> str:
    """Return what installs a device that a package adds: without it, its cases are skipped and say so."""
    as_word(name, place)
    return as_text(*Table(value, place, ("install",)).need("install", 'install = "pip install acme-boards"'))


def _model(value: object, place: Place, known: Known) -> ModelSpec:
    table = Table(value, place, ("name", "task", "files", "quantize", "sha256", "build", "seed"))
    name = as_word(*table.need("name", 'name = "digits_cnn"'))
    files: dict[str, dict[str, Path]] = {}
    for key, item, at in table.table("files"):
        if key not in known.formats:
            as_known(key, at, "format", known.formats)
        files[key] = {_precision(word, there): as_inside(path, there) for word, path, there in Table(item, at)}
    build = table.function("build", None)
    in_board = any(one.on_board and one.format in files for one in known.frameworks.values())  # needs no image
    if build is None and not any(files.values()) and not in_board:
        raise place.error('has neither "files" nor "build"; write for example: files.onnx = { fp32 = "models/m.onnx" }')
    onnx = files.get("onnx", {})
    if build is not None and "fp32" in onnx:
        raise place.at("build").error('makes the fp32 ONNX file, which "files" gives too; keep one of them')
    if build is None and "seed" in table:
        raise place.at("seed").error('is given to "build", which is not set')
    sources = {*onnx, *(["fp32"] if build is not None else [])}
    quantize: dict[str, Quantize] = {}
    for key, item, at in table.table("quantize"):
        quantize[_precision(key, at)] = _quantize(key, item, at, sources)
    return ModelSpec(
        name=name,
        task=table.text("task", None),
        files=files,
        quantize=quantize,
        sha256=_digests(table, files, quantize),
        build=build,
        seed=table.integer("seed", 0, least=0),
    )


def _precision(key: str, place: Place) -> str:
    return as_known(key, place, "precision", PRECISIONS)


def _quantize(precision: str, value: object, place: Place, sources: set[str]) -> Quantize:
    table = Table(value, place, ("from", "how", "calibration", "per_channel"))
    if precision in sources:
        raise place.error(f'"files.onnx" gives {precision} already; keep one of them')
    source = _precision(*_text(table.need("from", 'from = "fp32"')))
    if source not in sources:
        has = ", ".join(sorted(sources)) or "nothing"
        raise place.at("from").error(f'"files.onnx" has no {source} to make {precision} from (it has {has})')
    how = as_known(*table.need("how", 'how = "static_qdq"'), "way", tuple(_QUANTIZERS))
    if precision not in _QUANTIZERS[how]:
        raise place.at("how").error(f'"{how}" makes {", ".join(_QUANTIZERS[how])}, not {precision}')
    calibration = table.inside("calibration")
    if how == "static_qdq" and calibration is None:
        table.need("calibration", 'calibration = "data/calibration.npz"')
    if how != "static_qdq" and calibration is not None:
        raise place.at("calibration").error(f'"{how}" needs no calibration data')
    return Quantize(source, how, calibration, table.flag("per_channel", True))


def _text(found: tuple[object, Place]) -> tuple[str, Place]:
    value, place = found
    if not isinstance(value, str):
        raise place.error(f"expected a string, found {shown(value)}")
    return value, place


def _digests(table: Table, files: Mapping[str, Mapping[str, Path]], quantize: Mapping[str, Quantize]) -> dict[str, str]:
    """Return digests by absolute path; one for a file the model does not name would never be compared."""
    named = {path for by_precision in files.values() for path in by_precision.values()}
    named.update(made.calibration for made in quantize.values() if made.calibration is not None)
    digests: dict[str, str] = {}
    for key, item, at in table.table("sha256"):
        path = as_inside(key, at)
        if path not in named:
            folder = at.file.parent if at.file is not None else path.parent
            texts = sorted(str(one.relative_to(folder).as_posix()) for one in named)
            as_known(key, at, "file", texts)
        digests[str(path)] = as_sha256(item, at)
    return digests
