"""Does the timed run do honest work? After MLPerf's compliance tests, as reusable assertions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.checks import equivalence
from pytest_mlbench.checks.facts import plural
from pytest_mlbench.record import CheckResult
from pytest_mlbench.spec import Tolerance
from pytest_mlbench.stats.binomial import cdf
from pytest_mlbench.units import percent

Array = npt.NDArray[Any]

# MLPerf TEST04 (compliance/TEST04/verify_performance.py): threshold = 0.10 on the score, that is on speed.
FASTER = 0.10
SIGNIFICANCE = 0.05
MIN_PAIRS = 5  # 2**-5 is the first below the significance: with fewer pairs nothing could ever fail


def check_repeat_sample(repeated_ns: npt.ArrayLike, varied_ns: npt.ArrayLike) -> CheckResult:
    """Fail when the same sample over and over runs more than 10 % faster than different ones: a cache.

    `repeated_ns[i]` and `varied_ns[i]` are the best times per call of two neighbouring blocks. A pair counts
    when varied / repeated exceeds 1.10, MLPerf TEST04's bound on speed. The check fails when the sign test
    rejects at 5 % (one-sided) that pairs are as likely above the bound as below: then the median ratio is above
    it too, and noise or one disturbed block fails nothing. Five pairs must all count, seven of eight, ten of
    twelve. "insufficient" with fewer than five; "invalid" when lengths differ or a time is not positive.
    """
    name = "compliance.repeat_sample"
    repeated, varied = (np.asarray(times, dtype=np.float64).ravel() for times in (repeated_ns, varied_ns))
    if repeated.size != varied.size:
        message = f"blocks come in pairs, got {repeated.size} with one sample and {varied.size} with many"
        return CheckResult(name, "invalid", message)
    if repeated.size < MIN_PAIRS:
        message = f"{plural(repeated.size, 'pair')} of blocks cannot show a cache; measure at least {MIN_PAIRS}"
        return CheckResult(name, "insufficient", message, {"pairs": int(repeated.size)})
    if not ((repeated > 0) & np.isfinite(repeated) & (varied > 0) & np.isfinite(varied)).all():
        return CheckResult(name, "invalid", "a block's best time is not a positive number of ns")
    speedups = varied / repeated
    median, pairs = float(np.median(speedups)), int(speedups.size)
    above = int(np.count_nonzero(speedups > 1 + FASTER))
    p_value = cdf(pairs - above, pairs, 0.5)  # P(Binomial(pairs, 1/2) >= above)
    facts = {"median_speedup": median, "pairs": pairs, "above": above, "p_value": p_value}
    text = (
        f"one repeated sample runs {percent(abs(median - 1))} {'faster' if median >= 1 else 'slower'} than "
        f"varied ones (median of {pairs} pairs), limit {percent(FASTER)} faster; {above} of {pairs} pairs "
        f"are above it (sign test p = {p_value:.3g})"
    )
    if p_value <= SIGNIFICANCE:
        remedy = "\nresults seem to be cached by input; time different samples, or turn the cache off"
        return CheckResult(name, "fail", text + remedy, facts)
    return CheckResult(name, "pass", text, facts)


def check_timed_outputs(
    timed: Mapping[str, Array],
    accuracy_pass: Mapping[str, Array],
    ids: Sequence[int],
    rtol: float = 0.0,
    atol: float = 0.0,
) -> CheckResult:
    """Fail when an output of the timed run is not the one whose accuracy was scored (after MLPerf TEST01).

    `timed` holds (len(ids), ...) whole tensors kept during timing; `ids[i]` is the sample's index in
    `accuracy_pass`, which holds all samples. Equal bit for bit, unless a tolerance is given: then NumPy's
    elementwise rule. "invalid" when nothing was kept or an id is outside the accuracy pass.
    """
    name = "compliance.timed_outputs"
    index = np.asarray(ids, dtype=np.int64)
    if not index.size:
        return CheckResult(name, "invalid", "the timed run kept no outputs to compare", {"samples": 0})
    for output, array in accuracy_pass.items():
        if index.min() < 0 or index.max() >= len(array):
            message = f"timed sample ids {index.min()}..{index.max()} are outside the {len(array)} of {output!r}"
            return CheckResult(name, "invalid", message)
    scored = {output: array[index] for output, array in accuracy_pass.items()}
    tolerance = Tolerance(rtol=rtol, atol=atol) if rtol or atol else Tolerance(bit_exact=True)
    results = equivalence.check(timed, scored, tolerance, [int(i) for i in index])
    return _joined(name, results, {"samples": int(index.size), "rtol": rtol, "atol": atol})


def check_batch_invariance(
    batch1: Mapping[str, Array], batched: Mapping[str, Array], tolerance: Tolerance
) -> list[CheckResult]:
    """Compare the outputs of one sample per call with those of the case's batch, by the rules of `tolerance`.

    Both are (samples, ...) of the same samples; results are named `compliance.batch_invariance.<rule>`.
    """
    results = equivalence.check(batched, batch1, tolerance)
    prefix = "compliance.batch_invariance"
    return [replace(each, name=each.name.replace("equivalence", prefix, 1)) for each in results]


def _joined(name: str, results: Sequence[CheckResult], facts: dict[str, Any]) -> CheckResult:
    for outcome in ("invalid", "fail"):
        told = [each.message for each in results if each.outcome == outcome]
        if told:
            lines = "\n".join(told)
            return CheckResult(name, outcome, f"timed outputs are not the scored ones\n{lines}", facts)
    return CheckResult(name, "pass", results[-1].message, facts)
