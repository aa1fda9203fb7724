"""Compare what was not measured in pairs: one value a run, and counts of right answers. Pure.

The unit is the run: one value of each, however many calls stand behind it. Nothing pairs a run of the base with one
of the candidate, so the test is that of two independent samples, on logarithms, so that it is about ratios.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low

from pytest_mlbench.checks.facts import plural
from pytest_mlbench.compare import CONFIDENCE, TIME_UNITS, words
from pytest_mlbench.record import Comparison, Metric, Verdict
from pytest_mlbench.screening import FAMILY_ALPHA, RESOLUTION
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import fisher, rank_sum

_LARGEST = math.log(1e100)  # of a log-ratio: what is further apart is no measurement, and its share no number
_FEW = 3  # equal times that are too many to be chance
_MOST_SAMPLES = 10**9  # behind an accuracy: more than any data set has, and as many as are counted quickly


@dataclass(frozen=True)
class Asked:
    """What is asked of one metric: is the candidate worse than the margin? `family` comparisons are made in all."""

    metric: Metric
    regression: Regression
    family: int

    @property
    def alpha(self) -> float:
        """Return the error rate of this one comparison (Bonferroni)."""
        return FAMILY_ALPHA / max(1, self.family)


def values(asked: Asked, base: Sequence[float], candidate: Sequence[float]) -> Comparison:
    """Return the comparison of one value a run, by the Mann-Whitney test and the Hodges-Lehmann shift.

    Inconclusive where so few runs could never tell a regression, whatever they measured; else as with rounds:
    regressed beyond the margin, improved below 0, pass where a worsening of the margin or of 3 % is ruled out.
    """
    made = _blank(asked, "invalid", base, candidate)
    wrong = _trouble(asked.metric, base, candidate)
    if wrong:
        return replace(made, reason=wrong)
    sign = -1.0 if asked.metric.direction == "higher" else 1.0
    there, here = ([sign * math.log(value) for value in side] for side in (base, candidate))
    margin = asked.regression.margin
    beyond = [value + _worse(asked, margin) for value in there]
    p = rank_sum.p_greater(here, beyond)
    found = rank_sum.interval(here, there, CONFIDENCE)
    bounds = rank_sum.interval(here, there, 2 * CONFIDENCE - 1)  # whose upper end alone has that confidence
    smallest = rank_sum.smallest_p(len(here), len(there))
    verdict: Verdict = "inconclusive"
    if smallest > asked.alpha:
        pass
    elif p <= asked.alpha:
        verdict = "regressed"
    elif rank_sum.p_greater(there, here) <= asked.alpha:
        verdict = "improved"
    elif bounds is not None and bounds[1] < _worse(asked, max(margin, RESOLUTION)):
        verdict = "pass"
    seen = rank_sum.detectable(here, there, asked.alpha, _worse(asked, margin))
    interval = None if found is None else sorted(_change(asked.metric, end) for end in found)
    made = replace(
        made,
        verdict=verdict,
        change=_change(asked.metric, rank_sum.shift(here, there)),
        interval=None if interval is None else (interval[0], interval[1]),
        confidence=None if interval is None else CONFIDENCE,
        p=p,
        detectable=abs(_change(asked.metric, seen)) if seen is not None and seen <= 2 * _LARGEST else None,
    )
    few = _too_few(asked, len(base), len(candidate), smallest) if smallest > asked.alpha else ""
    return replace(made, reason=few + words(made))


def accuracy(asked: Asked, base: Sequence[Metric], candidate: Sequence[Metric]) -> Comparison:
    """Return the comparison of an accuracy from how many of how many answers were right, by Fisher's exact test.

    Run files do not keep the answers, so nothing tells which were lost: a drop that chance could explain is
    inconclusive, not a pass. Runs of one side answer the same samples, so they add no certainty: their median counts.
    """
    name = asked.metric.name
    made = _blank(asked, "invalid", _known(base), _known(candidate))
    wrong = _wrong_counts("base", base) or _wrong_counts("candidate", candidate)
    sizes = {metric.n for metric in (*base, *candidate)}
    if not wrong and len(sizes) > 1:
        wrong = f"{name} is of other samples: {' and '.join(sorted(map(str, sizes)))}, so it cannot be compared"
    if wrong:
        return replace(made, reason=wrong)
    n = int(candidate[0].n or 0)
    there, here = (median_low(round((metric.value or 0) * n) for metric in side) for side in (base, candidate))
    p, better = fisher.p_less(here, n, there, n), fisher.p_less(there, n, here, n)
    verdict: Verdict = "inconclusive" if here < there else "pass"
    if here < there and p <= asked.alpha:
        verdict = "regressed"
    elif here > there and better <= asked.alpha:
        verdict = "improved"
    seen = fisher.most_found_less(n, there, n, asked.alpha)
    told = f"{name} is {here / n:.2%}, the base's {there / n:.2%}, of {plural(n, 'sample')}{_spread(base, candidate)}"
    return replace(
        made,
        verdict=verdict,
        reason=f"{told}; run files do not pair the answers, so only their counts are compared (Fisher's exact test)",
        base=there / n,
        candidate=here / n,
        change=(here - there) / n,
        interval=fisher.difference_interval(here, n, there, n, CONFIDENCE),
        confidence=CONFIDENCE,
        n=n,
        p=p,
        detectable=None if seen is None else (there - seen) / n,
    )


def invalid(asked: Asked, reason: str) -> Comparison:
    """Return the comparison of a metric that cannot be compared."""
    return replace(_blank(asked, "invalid", (), ()), reason=reason, alpha=None)


def _blank(asked: Asked, verdict: Verdict, base: Sequence[float], candidate: Sequence[float]) -> Comparison:
    """Return a comparison with what is known before it is decided."""
    metric = asked.metric
    return Comparison(
        metric=metric.name,
        unit=metric.unit,
        direction=metric.direction,
        method="runs",
        verdict=verdict,
        base=_typical(base),
        candidate=_typical(candidate),
        n=len(base) + len(candidate),
        alpha=asked.alpha,
        margin=asked.regression.margin,
        base_values=tuple(base),
        candidate_values=tuple(candidate),
    )


def _trouble(metric: Metric, base: Sequence[float], candidate: Sequence[float]) -> str:
    """Return why these values cannot be judged, "" when they can."""
    for name, side in (("base", base), ("candidate", candidate)):
        wrong = [value for value in side if not value > 0]
        if wrong:
            return f"the {name} gave {metric.name} = {wrong[0]:g}; a ratio needs finite numbers above 0"
    every = [math.log(value) for value in (*base, *candidate)]
    if max(every) - min(every) > _LARGEST:
        return f"the values of {metric.name} are too far apart for a ratio"
    if metric.unit not in TIME_UNITS:
        return ""
    for name, side in (("of the base", base), ("of the candidate", candidate), ("of both sides", (*base, *candidate))):
        if len(side) >= _FEW and max(side) == min(side):
            return (
                f"{metric.name} is exactly the same in all {len(side)} runs {name}, which measured times never are: "
                "the clock is too coarse for this model, or these are copies of one run"
            )
    return ""


def _too_few(asked: Asked, base: int, candidate: int, smallest: float) -> str:
    """Say how many runs it takes, in front of what was found."""
    many = f"{asked.family} comparisons need" if asked.family > 1 else "a verdict needs"
    return (
        f"{plural(base, 'run')} against {candidate} can never tell (their smallest p-value is {smallest:.2g}, and "
        f"{many} {asked.alpha:.2g}; {rank_sum.values_needed(asked.alpha)} runs a side could): "
    )


def _wrong_counts(name: str, side: Sequence[Metric]) -> str:
    """Return why an accuracy is no count of right answers, "" when it is."""
    for metric in side:
        n, value = metric.n, metric.value
        if not isinstance(n, int) or isinstance(n, bool) or not 0 < n <= _MOST_SAMPLES:
            told = "does not tell of how many samples it is" if n is None else f"is of {n} samples, which cannot be"
            return f"the {name}'s {metric.name} {told}, so right answers cannot be counted"
        if value is None or not 0 <= value <= 1 or abs(value * n - round(value * n)) > 1e-6:
            return f"the {name}'s {metric.name} = {value} is no share of {plural(n, 'sample')}"
    return ""


def _spread(base: Sequence[Metric], candidate: Sequence[Metric]) -> str:
    """Tell where runs of one side disagree, which answers to the same samples should not."""
    told = ""
    for name, side in (("base", base), ("candidate", candidate)):
        known = _known(side)
        if min(known) < max(known):
            told += f" (the median of {len(known)} runs of the {name}, from {min(known):.2%} to {max(known):.2%})"
    return told


def _known(side: Sequence[Metric]) -> list[float]:
    return [metric.value for metric in side if metric.value is not None]


def _worse(asked: Asked, margin: float) -> float:
    """Return a margin as a worsening, in logarithms."""
    return -math.log1p(-margin) if asked.metric.direction == "higher" else math.log1p(margin)


def _change(metric: Metric, worsening: float) -> float:
    """Return a worsening, in logarithms, as the change from base to candidate."""
    return math.expm1(-worsening if metric.direction == "higher" else worsening)


def _typical(side: Sequence[float]) -> float | None:
    found = median(side) if side else math.nan
    return found if math.isfinite(found) else None  # the sum of two huge ones is not
