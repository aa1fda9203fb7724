"""Are the outputs those of the reference? Decided per sample: an aggregate hides the one bad answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pytest_mlbench.checks import agreement, distances
from pytest_mlbench.checks.facts import number, plural
from pytest_mlbench.checks.limits import apart
from pytest_mlbench.record import CheckResult
from pytest_mlbench.spec import Limit, Tolerance
from pytest_mlbench.units import percent

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
Outcome = Literal["pass", "fail", "invalid"]

SHOWN_SAMPLES = 10


@dataclass(frozen=True)
class _Pair:
    """One output beside its reference: same shape, not empty; `ids` names the samples."""

    name: str
    found: Array
    reference: Array
    ids: Sequence[object]

    def element(self, sample: int, flat: int) -> str:
        """Return "sample 12, element [3]: 0.25 against reference 0.5"."""
        index = np.unravel_index(flat, self.found.shape[1:]) if self.found.ndim > 1 else ()
        at = f", element [{', '.join(str(int(i)) for i in index)}]" if index else ""
        one, other = self.found[sample][index], self.reference[sample][index]
        return f"sample {self.ids[sample]}{at}: {_value(one, other)} against reference {_value(other, one)}"

    def farthest(self, sample: int) -> str:
        """Describe the element of a sample that differs most."""
        return self.element(sample, distances.farthest(self.found[sample], self.reference[sample]))


@dataclass(frozen=True)
class _Finding:
    """What one rule says of one output."""

    outcome: Outcome
    text: str
    facts: dict[str, Any]


def check(
    outputs: Outputs, reference: Outputs, tolerance: Tolerance, sample_ids: Sequence[object] | None = None
) -> list[CheckResult]:
    """Return `equivalence.outputs` and one result for each rule that `tolerance` sets, over all outputs.

    Arrays are (samples, ...), by output name. `equivalence.outputs` fails for a missing or additional output,
    another shape, NaN on either side, and an infinity without its like; the rules are then applied to the
    outputs that can be compared. `sample_ids` names the samples in messages (default: their index).
    "invalid" when there is nothing to compare, no rule is set, or the ids do not fit.
    """
    rules = _rules(tolerance)
    problem = _unusable(outputs, reference, rules, sample_ids)
    if problem:
        return [CheckResult("equivalence.outputs", "invalid", problem)]
    faults, pairs = _pair_up(outputs, reference, sample_ids, numeric=set(rules) != {"bit_exact"})
    results = [_structure(faults, pairs)]
    if pairs:
        results += [_apply(rule, judge, pairs) for rule, judge in rules.items()]
    return results


def _rules(tolerance: Tolerance) -> dict[str, Callable[[_Pair], _Finding | None]]:
    rules: dict[str, Callable[[_Pair], _Finding | None]] = {}
    if tolerance.rtol is not None or tolerance.atol is not None:
        rtol, atol = tolerance.rtol or 0.0, tolerance.atol or 0.0
        rules["elementwise"] = lambda pair: _elementwise(pair, rtol, atol)
    if (max_abs := tolerance.max_abs) is not None:
        rules["max_abs"] = lambda pair: _worst_sample(pair, "max |a-b|", distances.max_abs, max_abs, highest=True)
    if (sqnr := tolerance.sqnr_db) is not None:
        rules["sqnr_db"] = lambda pair: _worst_sample(pair, "SQNR", distances.sqnr_db, sqnr, unit="dB")
    if (cosine := tolerance.cosine) is not None:
        rules["cosine"] = lambda pair: _worst_sample(pair, "cosine similarity", distances.cosine, cosine)
    if (top1 := tolerance.top1_agreement) is not None:
        rules["top1_agreement"] = lambda pair: _top1(pair, top1)
    if tolerance.bit_exact:
        rules["bit_exact"] = _bit_exact
    return rules


def _unusable(
    outputs: Outputs, reference: Outputs, rules: Mapping[str, Any], sample_ids: Sequence[object] | None
) -> str:
    if not rules:
        return "the tolerance sets no rule (rtol, atol, max_abs, sqnr_db, cosine, top1_agreement or bit_exact)"
    if not outputs and not reference:
        return "neither the case nor its reference has an output to compare"
    if sample_ids is not None:
        for name, output in outputs.items():
            if output.ndim and len(output) != len(sample_ids):
                return f"{len(sample_ids)} sample ids were given and output {name!r} has {len(output)} samples"
    return ""


def _pair_up(
    outputs: Outputs, reference: Outputs, sample_ids: Sequence[object] | None, *, numeric: bool
) -> tuple[list[str], list[_Pair]]:
    known = ", ".join(outputs) or "none"
    faults = [f"output {name!r} is missing (there are: {known})" for name in reference if name not in outputs]
    pairs = []
    for name, found in outputs.items():
        if name not in reference:
            faults.append(f"output {name!r} is not in the reference ({', '.join(reference) or 'none'})")
            continue
        fault = _mismatch(found, reference[name], numeric)
        if fault:
            faults.append(f"output {name!r} {fault}")
        else:
            ids = sample_ids if sample_ids is not None else range(len(found))
            pairs.append(_Pair(name, found, reference[name], ids))
    return faults, pairs


def _mismatch(found: Array, reference: Array, numeric: bool) -> str:
    if not found.ndim or not reference.ndim:
        return "has no axis of samples"
    if len(found) != len(reference):
        return f"has {len(found)} samples, the reference {len(reference)}"
    if found.shape != reference.shape:
        return f"has shape {found.shape[1:]} per sample, the reference {reference.shape[1:]}"
    if not found.size:
        return f"is empty (shape {found.shape})"
    for dtype in (found.dtype, reference.dtype):
        if dtype.kind == "O" or (numeric and dtype.kind in "cmMSU"):
            return f"has dtype {dtype}, which no {'numeric ' * numeric}rule can compare"
    return ""


def _structure(faults: list[str], pairs: list[_Pair]) -> CheckResult:
    lines = list(faults)
    for pair in pairs:
        lines += _not_finite(pair)
    names = ", ".join(f"{pair.name} {pair.found.shape}" for pair in pairs)
    facts = {"faults": lines, "compared": [pair.name for pair in pairs]}
    if lines:
        return CheckResult("equivalence.outputs", "fail", "\n".join(lines), facts)
    message = f"{plural(len(pairs), 'output')} with the reference's names and shapes, free of NaN: {names}"
    return CheckResult("equivalence.outputs", "pass", message, facts)


def _not_finite(pair: _Pair) -> list[str]:
    if pair.found.dtype.kind in "cmMSU" or pair.reference.dtype.kind in "cmMSU":
        return []
    seen = agreement.not_finite(pair.found, pair.reference)
    if seen.first is None:
        return []
    counts = {
        "NaN here": seen.nan_found,
        "NaN in the reference": seen.nan_reference,
        "infinite on one side or of opposite sign": seen.infinity,
    }
    told = ", ".join(f"{plural(count, 'element')} {words}" for words, count in counts.items() if count)
    return [f"output {pair.name!r}: {told}; first: {pair.element(*seen.first)}"]


def _apply(rule: str, judge: Callable[[_Pair], _Finding | None], pairs: list[_Pair]) -> CheckResult:
    findings = {pair.name: finding for pair in pairs if (finding := judge(pair)) is not None}
    key = f"equivalence.{rule}"
    if not findings:
        return CheckResult(key, "invalid", "no output has a class axis, so there is no first class to compare")
    failed = [finding for finding in findings.values() if finding.outcome == "fail"]
    shown = failed or list(findings.values())
    facts = {"outputs": {name: finding.facts for name, finding in findings.items()}}
    return CheckResult(key, "fail" if failed else "pass", "\n".join(f.text for f in shown), facts)


def _elementwise(pair: _Pair, rtol: float, atol: float) -> _Finding:
    result = distances.elementwise(pair.found, pair.reference, rtol, atol)
    rule = f"NumPy's rule |a-b| <= atol + rtol*|b| with rtol={rtol!r}, atol={atol!r}"
    facts: dict[str, Any] = {
        "failing_samples": result.failing_samples,
        "failing_elements": result.failing_elements,
    }
    if result.worst is None:
        return _Finding("pass", f"output {pair.name!r}: all {pair.found.size} elements within {rule}", facts)
    facts |= {
        "worst_sample": str(pair.ids[result.worst[0]]),
        "smallest_atol": result.smallest_atol,
        "smallest_rtol": result.smallest_rtol,
    }
    atol_text, rtol_text = (
        "none" if value is None else distances.rounded_up(value)
        for value in (result.smallest_atol, result.smallest_rtol)
    )
    text = (
        f"output {pair.name!r}: {result.failing_samples} of {plural(len(pair.found), 'sample')} "
        f"({result.failing_elements} of {plural(pair.found.size, 'element')}) outside {rule}\n"
        f"  worst: {pair.element(*result.worst)}\n"
        f"  would pass: atol={atol_text} at rtol={rtol!r}, or rtol={rtol_text} at atol={atol!r}"
    )
    return _Finding("fail", text, facts)


def _worst_sample(
    pair: _Pair,
    words: str,
    distance: Callable[[Array, Array], npt.NDArray[np.float64]],
    limit: Limit,
    *,
    highest: bool = False,
    unit: str = "",
) -> _Finding:
    values = distance(pair.found, pair.reference)
    ranked = np.where(np.isnan(values), np.inf, values if highest else -values)
    sample = int(np.argmax(ranked))
    worst = float(values[sample])
    failing = sum(not limit.holds(float(value)) for value in values)
    facts = {"worst": number(worst), "worst_sample": str(pair.ids[sample]), "failing_samples": failing}
    value = f"{apart(worst, limit, '')} {unit}".rstrip()
    where = f"the worst sample ({pair.ids[sample]})"
    text = f"output {pair.name!r}: {words} is {value} in {where}, limit {limit.text}"
    if not failing:
        return _Finding("pass", text, facts)
    text += (
        f"; {failing} of {plural(len(values), 'sample')} outside\n  worst: {pair.farthest(sample)}\n"
        f"  would pass: {_passing(worst, limit)}"
    )
    return _Finding("fail", text, facts)


def _top1(pair: _Pair, limit: Limit) -> _Finding | None:
    agrees = agreement.top1_agrees(pair.found, pair.reference)
    if agrees is None:
        return None
    share = float(np.count_nonzero(agrees)) / agrees.size
    others = [str(pair.ids[index]) for index in np.flatnonzero(~agrees).tolist()]
    facts = {"share": share, "disagreeing": len(others), "samples": others[:SHOWN_SAMPLES]}
    text = (
        f"output {pair.name!r}: top-1 agrees in {apart(share, limit, '')} ({percent(share)}) of "
        f"{plural(agrees.size, 'sample')}, limit {limit.text}"
    )
    if others:
        more = f" and {len(others) - SHOWN_SAMPLES} more" if len(others) > SHOWN_SAMPLES else ""
        text += f"; {len(others)} disagree: {', '.join(others[:SHOWN_SAMPLES])}{more}"
    if limit.holds(share):
        return _Finding("pass", text, facts)
    first = int(agrees.argmin())
    text += f"\n  first: {pair.farthest(first)}\n  would pass: {_passing(share, limit)}"
    return _Finding("fail", text, facts)


def _bit_exact(pair: _Pair) -> _Finding:
    if pair.found.dtype != pair.reference.dtype:
        text = f"output {pair.name!r} has dtype {pair.found.dtype}, the reference {pair.reference.dtype}"
        return _Finding("fail", text, {"dtype": str(pair.found.dtype), "reference": str(pair.reference.dtype)})
    result = agreement.bit_difference(pair.found, pair.reference)
    facts = {"failing_samples": result.samples, "failing_elements": result.elements}
    if result.first is None:
        return _Finding("pass", f"output {pair.name!r}: all {pair.found.size} elements equal bit for bit", facts)
    text = (
        f"output {pair.name!r}: {result.samples} of {plural(len(pair.found), 'sample')} "
        f"({result.elements} of {plural(pair.found.size, 'element')}) differ in their bits\n"
        f"  first: {pair.element(*result.first)}"
    )
    return _Finding("fail", text, facts)


def _passing(worst: float, limit: Limit) -> str:
    """Return the limit as it would be written in the suite."""
    if not np.isfinite(worst) or limit.op == "==":
        return "none"
    # Rounded away from what was found, so that the printed limit really holds.
    least = limit.op.startswith(">")
    text = distances.rounded_down(worst) if least else distances.rounded_up(worst)
    return f"{'>=' if least else '<='} {text}"


def _value(value: np.generic, other: np.generic) -> str:
    shown, bits = str(value), value.tobytes()
    if shown == str(other) and bits != other.tobytes():
        # The same text and yet not the same bits, a NaN's payload for example.
        return f"{shown} (bytes {bits.hex()})"
    return shown
