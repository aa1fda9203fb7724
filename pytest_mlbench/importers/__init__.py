"""Read results as runs: our own run files, and the JSON of pytest-benchmark, pyperf and Google Benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from pytest_mlbench import near
from pytest_mlbench.errors import RunFileError
from pytest_mlbench.importers import google_benchmark, pyperf, pytest_benchmark
from pytest_mlbench.importers.document import Document, Place, parse, read_bytes
from pytest_mlbench.stores import runfile
from pytest_mlbench.stores.runfile import Run

RUN = "run"
# By format: whether a JSON file is one, and how it becomes a run.
_TOOLS: Mapping[str, tuple[Callable[[Place], bool], Callable[[Document], Run]]] = MappingProxyType(
    {module.TOOL: (module.fits, module.run) for module in (pytest_benchmark, pyperf, google_benchmark)}
)
FORMATS = (RUN, *_TOOLS)


def read(path: Path, format: str | None = None) -> Run:
    """Return the run a file holds; `format` is one of FORMATS, or None to recognise it.

    Benchmarks of other tools become records of the suite `imported`: case id `imported/NAME[VARIANT]`, the
    original name as node, latency in ns, outcome pass. The run's id comes from the file's content. Raises
    RunFileError, which names file and key, for a file that is none of them or holds what cannot be.
    """
    if format is not None and format not in FORMATS:
        raise RunFileError(near.unknown("format", format, FORMATS))
    if path.is_dir() or not path.exists():
        if format not in (None, RUN):
            raise RunFileError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'there is no such file'}")
        return runfile.read(path)
    content = read_bytes(path)
    if format == RUN or (format is None and _is_run(content)):
        return runfile.read(path)
    parsed = parse(path, content)
    found = next((tool for tool, (fits, _) in _TOOLS.items() if fits(parsed.root)), None)
    if found is None or format not in (None, found):
        raise RunFileError(_none_of_them(parsed.root, found, format))
    return _TOOLS[found][1](parsed)


def _is_run(content: bytes) -> bool:
    """Tell whether the first line is the header of a run file."""
    line, separator, _ = content.partition(b"\n")
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and (first.get("kind") == "header" or (not separator and "kind" in first))


def _none_of_them(root: Place, found: str | None, format: str | None) -> str:
    if found is not None:
        return f"{root.file} is a file of {found}, not of {format}"
    keys = ", ".join(sorted(root.mapping())[:8])[:200] or "nothing"
    wanted = f"no file of {format}" if format else f"none of the formats that can be read ({', '.join(FORMATS)})"
    return f"{root.file} is {wanted}: its top level holds {keys}"
