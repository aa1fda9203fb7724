"""Take blocks of samples until a scenario's bounds are met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.scenarios.api import BLOCK_NS, Block, Target
from pytest_mlbench.spec import ScenarioSpec


def take(
    target: Target, spec: ScenarioSpec, calls: int, min_samples: int, progress: Callable[[float], None]
) -> list[Block]:
    """Take blocks of `calls` calls a sample until both minima are reached or a maximum is."""
    blocks: list[Block] = []
    taken, spent_ns = 0, 0
    most = spec.max_samples if spec.max_samples is not None else 1 << 40
    while True:
        done = taken >= min_samples and spent_ns >= spec.min_duration_s * 1e9
        if blocks and (done or spent_ns >= spec.max_duration_s * 1e9 or taken >= most):
            return blocks
        block = target.block(calls, max_samples=most - taken, min_ns=_block_ns(spec))
        blocks.append(block)
        taken += len(block.sample_ns)
        spent_ns += block.end_ns - block.begin_ns
        by_time = spent_ns / 1e9 / spec.min_duration_s if spec.min_duration_s else 1.0
        progress(min(1.0, by_time, taken / max(1, min_samples)))


def _block_ns(spec: ScenarioSpec) -> int:
    """Return a block's least duration: shorter when the whole run is shorter than five of them."""
    return int(min(BLOCK_NS, spec.min_duration_s * 1e9 / 5)) if spec.min_duration_s else 0


def joined(blocks: list[Block]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return all samples and the index of each block's first."""
    sizes = [len(block.sample_ns) for block in blocks]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    return np.concatenate([block.sample_ns for block in blocks]), starts


def facts(blocks: list[Block]) -> dict[str, Any]:
    """Return what happened over the blocks: number, time, samples, processor use, context switches.

    `bounds_ns` are the begin and end of each block on the target's clock (see `clock` of the target).
    """
    used: dict[str, int] = {}
    for block in blocks:
        for name, amount in block.used.items():
            used[name] = used.get(name, 0) + amount
    return {
        "blocks": len(blocks),
        "samples": int(sum(len(block.sample_ns) for block in blocks)),
        "duration_ns": int(sum(block.end_ns - block.begin_ns for block in blocks)),
        "timed_ns": int(sum(int(block.sample_ns.sum()) for block in blocks)),
        "bounds_ns": [[block.begin_ns, block.end_ns] for block in blocks],
        "gc": {"on_in_block": False, "on_outside": all(block.gc_was_enabled for block in blocks)},
        "used": used,
    }
