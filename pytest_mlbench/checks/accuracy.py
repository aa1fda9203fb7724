"""The loss of accuracy against another precision, on the same samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pytest_mlbench.record import CheckResult
from pytest_mlbench.spec import MaxDrop
from pytest_mlbench.stats.mcnemar import Paired, difference_interval, one_sided, table, two_sided

NAME = "accuracy.max_drop"


def check_drop(correct_here: npt.NDArray[np.bool_], correct_from: npt.NDArray[np.bool_], drop: MaxDrop) -> CheckResult:
    """Fail when top-1 is more than `drop.points` percentage points below that of `drop.source`.

    Both arrays say for the same samples, in the same order, whether the answer was right. The measured drop
    decides; McNemar's exact test and Newcombe's 95 % interval are printed, so that a reader sees what these
    samples can tell. Arrays of different lengths, or empty ones, are "invalid".
    """
    if len(correct_here) != len(correct_from):
        message = (
            f"the two precisions were scored on different samples ({len(correct_here)} here, "
            f"{len(correct_from)} in {drop.source}); score both on the same data set"
        )
        return CheckResult(NAME, "invalid", message, {"n": len(correct_here), "n_from": len(correct_from)})
    if not len(correct_here):
        return CheckResult(NAME, "invalid", f"no samples were scored to compare with {drop.source}", {"n": 0})
    pairs = table(correct_here, correct_from)
    lost = pairs.lost - pairs.gained
    # In whole samples: 100 * (0.97 - 0.96) > 1 is true in binary although it is not in arithmetic.
    too_much = 100 * lost > drop.points * pairs.n * (1 + 1e-12)
    return CheckResult(NAME, "fail" if too_much else "pass", _message(pairs, drop), _facts(pairs, drop))


def _message(pairs: Paired, drop: MaxDrop) -> str:
    points = 100 * (pairs.lost - pairs.gained) / pairs.n
    low, high = _drop_interval(pairs)
    change = f"drops by {points:.3g} points" if points > 0 else f"does not drop (+{-points:.3g} points)"
    if not points:
        change = "is unchanged"
    lines = [
        f"top-1 {change} against {drop.source}, limit <= {drop.points:g} points: "
        f"{pairs.here / pairs.n:.4g} here, {pairs.there / pairs.n:.4g} in {drop.source}, n = {pairs.n}",
        f"{pairs.lost} samples lost, {pairs.gained} gained; drop within {low:.3g} to {high:.3g} points "
        f"(95 %, Newcombe); McNemar exact p = {one_sided(pairs.lost, pairs.gained):.3g} for a drop, "
        f"{two_sided(pairs.lost, pairs.gained):.3g} two-sided",
    ]
    if points <= drop.points < high:
        lines.append(f"{pairs.n} samples cannot exclude a larger drop than the limit")
    return "\n".join(lines)


def _facts(pairs: Paired, drop: MaxDrop) -> dict[str, object]:
    return {
        "from": drop.source,
        "limit_points": drop.points,
        "drop_points": 100 * (pairs.lost - pairs.gained) / pairs.n,
        "interval_points": list(_drop_interval(pairs)),
        "accuracy_here": pairs.here / pairs.n,
        "accuracy_from": pairs.there / pairs.n,
        "n": pairs.n,
        "lost": pairs.lost,
        "gained": pairs.gained,
        "p_drop": one_sided(pairs.lost, pairs.gained),
        "p_two_sided": two_sided(pairs.lost, pairs.gained),
    }


def _drop_interval(pairs: Paired) -> tuple[float, float]:
    low, high = difference_interval(pairs)
    return -100 * high, -100 * low
