"""Compare base and candidate by paired rounds: estimate, interval, p-value, verdict. Pure.

The unit is the round, one fresh process of each side; its value is a log-ratio, so that rounds on a slow and on a
fast stretch of the machine count alike. Few rounds screen; those that look suspicious are confirmed on fresh rounds,
and only the fresh ones decide (DESIGN decision 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from pytest_mlbench.record import Comparison, Direction, Verdict
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import signed_rank
from pytest_mlbench.units import percent, plain

SCREEN_LEVEL = 0.10  # a screen keeps what looks this unlikely; only 2.5 times fewer rounds for equal power
CONFIDENCE = 0.95  # of the intervals that are shown
TIME_UNITS = ("ns", "1/s")
_LARGEST = math.log(1e100)  # of a log-ratio: what is further apart is no measurement, and its share no number


@dataclass(frozen=True)
class Question:
    """What is asked of one metric: is the candidate worse than the margin?

    `alpha` is the error rate of this one comparison (the family's over the number of comparisons). A comparison
    passes only when a worsening of `resolution`, of the margin or of `ignore_below`, whichever is largest, is ruled
    out. `confirm` rounds are taken of what looks suspicious, so they are what could have found a regression.
    `by_board` says that a board's own clock timed the calls: a microcontroller may take the same time in every round.
    """

    metric: str
    unit: str
    direction: Direction
    regression: Regression
    alpha: float
    resolution: float
    confirm: int
    by_board: bool = False


@dataclass(frozen=True)
class Pairs:
    """One metric's values of base and candidate, one pair a round. None: the round did not measure it."""

    base: tuple[float | None, ...]
    candidate: tuple[float | None, ...]

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(self.base + other.base, self.candidate + other.candidate)


def trouble(question: Question, pairs: Pairs) -> str:
    """Return why these rounds cannot be judged, "" when they can."""
    for name, values in (("base", pairs.base), ("candidate", pairs.candidate)):
        unmeasured = sum(value is None for value in values)
        if unmeasured:
            return f"the {name} did not measure {question.metric} in {unmeasured} of {len(values)} rounds"
        wrong = [value for value in values if value is not None and not (0 < value < math.inf)]
        if wrong:
            return f"the {name} gave {question.metric} = {wrong[0]:g}; a ratio needs finite numbers above 0"
    worsenings = _worsenings(question, pairs)
    if not all(abs(value) <= _LARGEST for value in worsenings):
        return f"{question.metric} of base and candidate are too far apart for a ratio"
    both = zip(pairs.base, pairs.candidate, strict=True)
    ratios = {there / here for here, there in both if here is not None and there is not None}
    if question.unit in TIME_UNITS and not question.by_board and len(worsenings) > 1 and len(ratios) == 1:
        return (
            f"{question.metric} differs by exactly the same in each of {len(worsenings)} rounds, which measured "
            "times never do: the clock is too coarse for this model, or it was not measured anew in each round"
        )
    return ""


def is_settled(question: Question, screen: Pairs) -> bool:
    """Tell whether screening rounds already say "no worse" clearly enough, so that none need be added."""
    worsenings = _worsenings(question, screen)
    if signed_rank.p_greater(worsenings, _log_margin(question)) <= SCREEN_LEVEL:
        return False
    if signed_rank.p_greater([-value for value in worsenings]) <= SCREEN_LEVEL:
        return False  # perhaps improved, which is worth being sure of
    return signed_rank.upper_bound(worsenings, CONFIDENCE) < _bound(question, screen)


def decide(question: Question, screen: Pairs, confirm: Pairs) -> Comparison:
    """Return the comparison with its verdict. Without confirming rounds the screen has settled it.

    Selection by the screen does not bias what is reported: with confirming rounds, only they count.
    """
    wrong = trouble(question, screen + confirm)
    if wrong:
        return _comparison(question, screen, confirm, "invalid", reason=wrong)
    counted = confirm if confirm.base else screen
    worsenings = _worsenings(question, counted)
    p = signed_rank.p_greater(worsenings, _log_margin(question))
    better = signed_rank.p_greater([-value for value in worsenings])
    verdict: Verdict
    ignored = confirm.base and p <= question.alpha and _is_ignored(question, counted)
    if ignored:
        verdict = "pass"
    elif confirm.base and p <= question.alpha:
        verdict = "regressed"
    elif confirm.base and better <= question.alpha:
        verdict = "improved"
    elif signed_rank.upper_bound(worsenings, CONFIDENCE) < _bound(question, counted):
        verdict = "pass"
    else:
        verdict = "inconclusive"
    made = _comparison(question, screen, confirm, verdict, p=p)
    if ignored:
        floor = plain(question.regression.ignore_below, question.unit)
        made = replace(made, reason=f"{made.reason}, which is less than ignore_below = {floor}")
    return made


def _comparison(
    question: Question, screen: Pairs, confirm: Pairs, verdict: Verdict, *, reason: str = "", p: float | None = None
) -> Comparison:
    every, counted = screen + confirm, confirm if confirm.base else screen
    known = verdict != "invalid"
    worsenings = _worsenings(question, counted) if known else []
    found = signed_rank.interval(worsenings, CONFIDENCE) if known else None
    wanted = _log_margin(question)
    seen = signed_rank.detectable(worsenings, question.confirm, question.alpha, wanted) if known else None
    if seen is not None:
        seen = max(seen, _floor(question, counted))
    change = _change(question, signed_rank.hodges_lehmann(worsenings)) if known else None
    interval = None
    if found is not None:
        one, other = _change(question, found[0]), _change(question, found[1])
        interval = (min(one, other), max(one, other))
    made = Comparison(
        metric=question.metric,
        unit=question.unit,
        direction=question.direction,
        method="rounds",
        verdict=verdict,
        base=_typical(counted.base),
        candidate=_typical(counted.candidate),
        change=change,
        interval=interval,
        confidence=CONFIDENCE if interval else None,
        n=len(counted.base),
        p=p,
        alpha=question.alpha,
        margin=question.regression.margin,
        ignore_below=question.regression.ignore_below,
        detectable=abs(_change(question, seen)) if seen is not None and seen <= 2 * _LARGEST else None,
        base_values=tuple(_known(every.base)),
        candidate_values=tuple(_known(every.candidate)),
    )
    return replace(made, reason=reason or words(made))


def words(made: Comparison) -> str:
    """Say how the candidate differs and how sure that is: "6.1 % slower ..."."""
    if made.change is None:
        return made.reason
    text = f"{made.metric} {difference(made.change, made.metric, made.direction)}"
    if made.base is not None and made.candidate is not None:
        text += f" ({plain(made.base, made.unit)} to {plain(made.candidate, made.unit)}"
        if made.interval is not None and made.confidence is not None:
            low, high = made.interval
            text += f"; {percent(made.confidence)} interval {signed(low)} to {signed(high)}"
        text += ")"
    return text


def difference(change: float, metric: str, direction: Direction) -> str:
    """Return a change in words: "6.1 % slower", "2 % more"."""
    if change == 0:
        return "is unchanged"
    amount = percent(abs(change), 2).replace("<", "less than")
    if metric.startswith(("latency.", "stage.")):
        return f"is {amount} {'slower' if change > 0 else 'faster'}"
    if metric == "throughput":
        return f"is {amount} {'higher' if change > 0 else 'lower'}"
    return f"is {amount} {'larger' if change > 0 else 'smaller'}"


def signed(share: float) -> str:
    """Return a share with its sign: "+2.3 %"; "+0.000 %" is a little more than 0."""
    if share == 0:
        return "0 %"
    amount = "0.000 %" if abs(share) < 1e-5 else percent(abs(share), 2)
    return f"{'+' if share > 0 else '-'}{amount}"


def _worsenings(question: Question, pairs: Pairs) -> list[float]:
    """Return a log-ratio a round, above 0 where the candidate is worse."""
    sign = -1.0 if question.direction == "higher" else 1.0
    both = zip(pairs.base, pairs.candidate, strict=True)
    # Two logarithms, and not that of the ratio, which huge values beside tiny ones do not have.
    return [sign * (math.log(there) - math.log(here)) for here, there in both if here is not None and there is not None]


def _log_margin(question: Question, margin: float | None = None) -> float:
    margin = question.regression.margin if margin is None else margin
    return -math.log1p(-margin) if question.direction == "higher" else math.log1p(margin)


def _bound(question: Question, pairs: Pairs) -> float:
    """Return the worsening, in logarithms, that a pass must rule out."""
    return max(_log_margin(question, max(question.regression.margin, question.resolution)), _floor(question, pairs))


def _floor(question: Question, pairs: Pairs) -> float:
    """Return the worsening, in logarithms, that `ignore_below` makes of these rounds' typical base."""
    share = question.regression.ignore_below / (_typical(pairs.base) or math.inf)
    return math.inf if question.direction == "higher" and share >= 1 else _log_margin(question, share)


def _change(question: Question, worsening: float) -> float:
    """Return a worsening, in logarithms, as the change from base to candidate."""
    return math.expm1(-worsening if question.direction == "higher" else worsening)


def _is_ignored(question: Question, counted: Pairs) -> bool:
    base, candidate = _typical(counted.base), _typical(counted.candidate)
    return base is not None and candidate is not None and abs(candidate - base) < question.regression.ignore_below


def _typical(values: Sequence[float | None]) -> float | None:
    known = _known(values)
    found = median(known) if known else math.nan
    return found if math.isfinite(found) else None  # the sum of two huge ones is not


def _known(values: Sequence[float | None]) -> list[float]:
    """Return what a record can hold of the values."""
    return [value for value in values if value is not None and math.isfinite(value)]
