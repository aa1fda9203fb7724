"""Hold a case's declared expectations against what was measured. Pure but for the references it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.checks import accuracy, compliance, equivalence, inputs, limits, placement
from pytest_mlbench.errors import InvalidCase
from pytest_mlbench.execute import Executed, variant
from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics import quality
from pytest_mlbench.record import CheckResult, Metric
from pytest_mlbench.spec import Tolerance

Outputs = Mapping[str, npt.NDArray[Any]]

OTHER_BATCH = 4  # what a case of batch 1 is compared with
SAME = Tolerance(rtol=1e-4, atol=1e-5)  # of two batch sizes, where the suite says nothing of the precision


def judge(
    case: Case,
    executed: Executed,
    metrics: Sequence[Metric],
    reference: Callable[[], Outputs | None],
    outputs_of: Callable[[Case], Outputs],
) -> list[CheckResult]:
    """Return the result of every expectation.

    `reference` gives the outputs to compare with (None: this case is the reference itself), `outputs_of`
    those of another case; both may run that case, so they are called only when an expectation asks.
    """
    expect = case.benchmark.expect
    results = [_precision(case, executed), *_inputs(case, executed)]
    results += limits.check(expect.limits, metrics)
    results += _device(case, executed)
    if expect.placement:
        results += placement.check_shares(executed.placement, expect.placement)
    results += _equivalence(case, executed, reference)
    if expect.max_drop is not None and expect.max_drop.source != case.precision:
        results.append(_drop(case, executed, outputs_of(variant(case, precision=expect.max_drop.source))))
    results += _finite(executed)
    results += _compliance(case, executed, outputs_of)
    return results


def _precision(case: Case, executed: Executed) -> CheckResult:
    return placement.check_precision(executed.placement, case.precision, case.benchmark.executed_precision)


def _device(case: Case, executed: Executed) -> list[CheckResult]:
    """Hold every computing node to a device that is not the processor, unless the suite says what may run there."""
    places = executed.measurement.facts.get("places")
    if places is None or "cpu" in case.benchmark.expect.placement:
        return []
    return [placement.check_device(executed.placement, case.device, places)]


def _inputs(case: Case, executed: Executed) -> list[CheckResult]:
    """Check the digest of the prepared tensors, where the data set declares one."""
    if case.benchmark.dataset is None:
        return []
    declared = case.suite.datasets[case.benchmark.dataset].inputs_sha256
    if not declared:
        return []
    framework_format = executed.measurement.facts["format"]
    expected = declared.get(framework_format, declared.get("*"))
    return [inputs.check_digest(executed.hashes["inputs"], expected, f"data set {case.benchmark.dataset!r}")]


def _tolerance(case: Case) -> Tolerance | None:
    rules = case.benchmark.expect.equivalence
    return rules.get(case.precision, rules.get("*"))


def _equivalence(case: Case, executed: Executed, reference: Callable[[], Outputs | None]) -> list[CheckResult]:
    tolerance = _tolerance(case)
    if tolerance is None:
        return []
    expected = reference()
    if expected is None:
        return []
    found = executed.measurement.outputs or {}
    return equivalence.check(aligned(found, expected), expected, tolerance)


def aligned(found: Outputs, expected: Outputs) -> Outputs:
    """Give a single output the name it has in the reference: formats name the same tensor differently."""
    if len(found) == len(expected) == 1 and set(found) != set(expected):
        return {next(iter(expected)): next(iter(found.values()))}
    return found


def _drop(case: Case, executed: Executed, other: Outputs) -> CheckResult:
    drop = case.benchmark.expect.max_drop
    labels = executed.measurement.labels
    assert drop is not None
    if labels is None:
        return CheckResult("accuracy.max_drop", "insufficient", "the data set has no labels, so no accuracy is known")
    try:
        here = quality.correct(executed.measurement.outputs or {}, labels)
        there = quality.correct(other, labels)
    except InvalidCase as error:
        return CheckResult("accuracy.max_drop", "invalid", str(error))
    return accuracy.check_drop(here, there, drop)


def _finite(executed: Executed) -> list[CheckResult]:
    """Fail a model that gives NaN, whether or not a reference is declared."""
    for name, array in (executed.measurement.outputs or {}).items():
        if not np.issubdtype(array.dtype, np.floating):
            continue
        wrong = np.isnan(array.reshape(len(array), -1)).any(axis=1)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            message = (
                f"output {name!r} has NaN for {int(wrong.sum())} of {len(array)} samples, first for sample {first}: "
                "look at the model's inputs there (range, preprocess) or at an overflow in its precision"
            )
            return [CheckResult("outputs.nan", "fail", message, {"samples": int(wrong.sum()), "first": first})]
    return []


def _compliance(case: Case, executed: Executed, outputs_of: Callable[[Case], Outputs]) -> list[CheckResult]:
    wanted, data = case.benchmark.expect.compliance, executed.compliance
    outputs = executed.measurement.outputs or {}
    results: list[CheckResult] = []
    if "repeat_sample" in wanted:
        results.append(compliance.check_repeat_sample(data.repeated_ns, data.varied_ns))
    if "timed_outputs" in wanted:
        results.append(compliance.check_timed_outputs(data.timed, outputs, data.timed_ids))
    if "batch_invariance" in wanted:
        # Another deployment, since a compiled model may be bound to its batch.
        other = outputs_of(variant(case, batch=OTHER_BATCH if case.batch == 1 else 1))
        results += compliance.check_batch_invariance(outputs, other, _tolerance(case) or SAME)
    return results
