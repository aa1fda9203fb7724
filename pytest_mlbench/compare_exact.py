"""Compare what has no noise: sizes, and answers to the same samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.compare import words
from pytest_mlbench.record import Comparison, Metric, Verdict
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import mcnemar, signed_rank
from pytest_mlbench.units import plain

DETERMINISTIC = ("model.size",)
Outputs = Mapping[str, npt.NDArray[Any]]


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
    change = (candidate - base) / abs(base) if base else (0.0 if candidate == base else None)
    if change is None:
        told = f"the base has {metric.name} = 0, of which there is no share"
        return replace(made, verdict="invalid", reason=told)
    made = replace(made, change=change)
    worse = -change if metric.direction == "higher" else change
    if worse > regression.margin and abs(candidate - base) >= regression.ignore_below:
        return replace(made, verdict="regressed", reason=words(made))
    if worse > regression.margin:
        floor = plain(regression.ignore_below, metric.unit)
        return replace(made, reason=f"{words(made)}, which is less than ignore_below = {floor}")
    return replace(made, verdict="improved" if worse < 0 else "pass", reason=words(made))


def accuracy(
    here: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_], regression: Regression, alpha: float
) -> Comparison:
    """Return the comparison of top-1 on the same samples; `here` tells which the candidate has right.

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
    better = difference > 0 and mcnemar.one_sided(counts.gained, counts.lost) <= alpha
    verdict: Verdict = "regressed" if worse else "improved" if better else "pass"
    told = (
        f"accuracy.top1 is {counts.here / counts.n:.2%}, the base's {counts.there / counts.n:.2%}: of the same "
        f"{counts.n} samples {counts.lost} were lost and {counts.gained} gained"
    )
    return Comparison(
        metric="accuracy.top1",
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
        detectable=min(1.0, max(signed_rank.rounds_needed(alpha) / counts.n, regression.margin)),
    )


def outputs_differ(here: Outputs, there: Outputs) -> str:
    """Return "" when both gave bit for bit the same outputs, else how far apart they are at most."""
    if set(here) != set(there):
        return f"outputs are {', '.join(sorted(here))}, the base's {', '.join(sorted(there))}"
    far = []
    for name, array in here.items():
        other = there[name]
        if array.shape != other.shape:
            far.append(f"{name} has shape {list(array.shape)}, the base's {list(other.shape)}")
        elif array.tobytes() != other.tobytes():
            changed = (array != other).reshape(len(array), -1).any(axis=1) if array.size else np.zeros(0, dtype=bool)
            most = float(np.nanmax(np.abs(array.astype(np.float64) - other.astype(np.float64)), initial=0.0))
            far.append(f"{name} differs for {int(changed.sum())} of {len(array)} samples, by at most {most:.3g}")
    return "; ".join(far)
