"""What may cross from a device to an agent, a record or a file: plain values."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import pytest

_SCALARS = (type(None), bool, int, float, str)


def not_plain(value: object, where: str) -> list[str]:
    """Return a sentence for each part of `value` that JSON would change or refuse: a path, a tuple, numpy's numbers."""
    if isinstance(value, Mapping):
        found = [f"{where} has the key {key!r}, expected text" for key in value if type(key) is not str]
        for key, item in value.items():
            found += not_plain(item, f"{where}[{key!r}]")
        return found
    if type(value) is list:
        return [line for index, item in enumerate(value) for line in not_plain(item, f"{where}[{index}]")]
    if type(value) not in _SCALARS:
        return [f"{where} is a {type(value).__name__} ({value!r}), expected text, a number, a bool, None, list or dict"]
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{where} is {value}, which JSON has not"]
    return []


def missing(reason: str) -> NoReturn:
    """Skip the test for something that is not here; fail it where everything must be (MLBENCH_REQUIRE_ALL=1)."""
    if os.environ.get("MLBENCH_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}; MLBENCH_REQUIRE_ALL=1 demands it", pytrace=False)
    pytest.skip(reason)


def not_given(contract: object, fixture: str, what: str) -> Any:
    """Fail a contract whose subclass gives no fixture of that name."""
    name = type(contract).__name__
    pytest.fail(f"{name} has no fixture `{fixture}`: write one that returns {what}", pytrace=False)
