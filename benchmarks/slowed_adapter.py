"""A framework's own adapter whose calls take a known share longer: what the gate study has to find.

Both sides of a comparison go through it, one with a share of 0, so that nothing but the slowdown tells them apart.
"""

from __future__ import annotations

import importlib
from time import perf_counter_ns


def versions():
    """Name nothing: the study compares one framework with itself."""
    return {}


def load(path, options):
    """Load with the adapter `inner`; each `every`th call runs `extra` times more, or `permille` prolongs every call."""
    given = dict(options)
    inner, permille = given.pop("inner"), given.pop("permille", None)
    every, extra = given.pop("every", 1), given.pop("extra", 0)
    session = importlib.import_module("mlbench_agent.adapters." + inner).load(path, given)
    invoke = session.invoke
    session.invoke = repeating(invoke, every, extra) if permille is None else prolonged(invoke, permille)
    return session


def repeating(invoke, every, extra):
    """Return a call that runs `extra` times more every `every`th time; with 0 it counts all the same."""
    left = every

    def call():
        nonlocal left
        invoke()
        left -= 1
        if not left:
            left = every
            if extra:
                invoke()

    return call


def prolonged(invoke, permille):
    """Return a call that goes on computing for `permille` of its own time."""

    def call():
        begin = perf_counter_ns()
        invoke()
        until = begin + (perf_counter_ns() - begin) * (1000 + permille) // 1000
        while perf_counter_ns() < until:
            pass

    return call
