"""Compare what has no noise: sizes, and answers to the same samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.compare import words
from pytest_mlbench.record import Comparison, Metric, Verdict
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import mcnemar, signed_rank
from pytest_mlbench.units import percent, plain

EMULATED = "emulated.time"
DETERMINISTIC = ("model.size", EMULATED)
Outputs = Mapping[str, npt.NDArray[Any]]


def ticks(metric: Metric) -> float:
    """Return by how much a value may differ between two runs of the same thing: what a clock's ticks leave open."""
    if metric.name != EMULATED or metric.interval is None:
        return 0.0
    low, high = metric.interval
    return (high - low) / 2


def exact(metric: Metric, base: float | None, candidate: float | None, regression: Regression) -> Comparison:
    """Return the comparison of a value that is the same in every run: any worsening beyond the margin counts."""
    made = Comparison(
        metric=metric.name,
        unit=metric.unit,
        direction=metric.direction,
        method="exact",
        verdict="pass",
        base=base,
        candidate=candidate,
        n=1,
        margin=regression.margin,
        ignore_below=regression.ignore_below,
    )
    if base is None or candidate is None:
        side = "base" if base is None else "candidate"
        return replace(made, verdict="invalid", reason=f"the {side} did not measure {metric.name}")
    change = (candidate - base) / abs(base) if base else (0.0 if candidate == base else math.nan)
    if not math.isfinite(change):
        told = f"{metric.name} is {candidate:g}, the base's {base:g}, of which there is no share"
        return replace(made, verdict="invalid", reason=told, base=_finite(base), candidate=_finite(candidate))
    made = replace(made, change=change)
    worse = -change if metric.direction == "higher" else change
    if change and abs(candidate - base) <= ticks(metric):
        return replace(made, reason=f"{words(made)}, which is within the ticks of its clock")
    if worse > regression.margin and abs(candidate - base) >= regression.ignore_below:
        return replace(made, verdict="regressed", reason=words(made))
    if worse > regression.margin:
        floor = plain(regression.ignore_below, metric.unit)
        return replace(made, reason=f"{words(made)}, which is less than ignore_below = {floor}")
    return replace(made, verdict="improved" if worse < 0 else "pass", reason=words(made))


def accuracy(
    name: str, here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_], regression: Regression, alpha: float
) -> Comparison:
    """Return the comparison of an accuracy on the same samples; `here` tells which the candidate has right.

    Without a margin by McNemar's exact test. With one, the drop must exceed it with the same certainty, by
    Newcombe's interval of the paired difference. `detectable` is the drop that losses alone must reach.
    """
    counts = mcnemar.table(here, there)
    difference = (counts.here - counts.there) / counts.n
    low, high = mcnemar.difference_interval(counts)
    p = mcnemar.one_sided(counts.lost, counts.gained)
    worse = difference < 0 and p <= alpha
    if regression.margin and worse:
        _, upper = mcnemar.difference_interval(counts, 1 - 2 * alpha)
        worse = upper < -regression.margin
    ignored = worse and abs(difference) < regression.ignore_below
    better = difference > 0 and mcnemar.one_sided(counts.gained, counts.lost) <= alpha
    verdict: Verdict = "regressed" if worse and not ignored else "improved" if better else "pass"
    told = (
        f"{name} is {counts.here / counts.n:.2%}, the base's {counts.there / counts.n:.2%}: of the same "
        f"{counts.n} samples {counts.lost} were lost and {counts.gained} gained"
    )
    if ignored:
        told += f", which is less than ignore_below = {percent(regression.ignore_below)}"
    return Comparison(
        metric=name,
        unit="",
        direction="higher",
        method="mcnemar",
        verdict=verdict,
        reason=told,
        base=counts.there / counts.n,
        candidate=counts.here / counts.n,
        change=difference,
        interval=(low, high),
        confidence=0.95,
        n=counts.n,
        p=p,
        alpha=alpha,
        margin=regression.margin,
        ignore_below=regression.ignore_below,
        detectable=min(
            1.0, max(signed_rank.rounds_needed(alpha) / counts.n, regression.margin, regression.ignore_below)
        ),
    )


def outputs_differ(here: Outputs, there: Outputs) -> str:
    """Return "" when both gave bit for bit the same outputs, else how far apart they are at most."""
    if set(here) != set(there):
        return f"outputs are {', '.join(sorted(here))}, the base's {', '.join(sorted(there))}"
    return "; ".join(filter(None, (_differs(name, array, there[name]) for name, array in here.items())))


def _differs(name: str, array: npt.NDArray[Any], other: npt.NDArray[Any]) -> str:
    if array.shape != other.shape:
        return f"{name} has shape {list(array.shape)}, the base's {list(other.shape)}"
    if array.dtype != other.dtype:
        return f"{name} is {array.dtype}, the base's {other.dtype}"
    # By bytes: NaN is unequal to itself, and -0.0 equal to 0.0.
    if array.tobytes() == other.tobytes():
        return ""
    stored, wanted = (np.frombuffer(one.tobytes(), np.uint8).reshape(len(one), -1) for one in (array, other))
    changed = int((stored != wanted).any(axis=1).sum())
    wide = np.result_type(array, np.float64)
    with np.errstate(all="ignore"):
        most = float(np.nanmax(np.abs(array.astype(wide) - other.astype(wide)), initial=0.0))
    told = f"{name} differs for {changed} of {len(array)} samples, by at most {most:.3g}"
    lone = int((np.isnan(array) != np.isnan(other)).reshape(len(array), -1).any(axis=1).sum())
    return f"{told}; in {lone} of them only one side has NaN" if lone else told


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
