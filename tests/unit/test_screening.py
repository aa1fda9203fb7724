"""How many rounds decide, and which cases get more than a screen's."""

from __future__ import annotations

import pytest

from pytest_mlbench.compare import Question
from pytest_mlbench.errors import MlbenchError, StageError
from pytest_mlbench.rounds import Round
from pytest_mlbench.screening import SCREEN_ROUNDS, Plan, decided, plan
from pytest_mlbench.spec import Regression
from pytest_mlbench.stats import signed_rank

# --- the plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "confirm"), [(0, 10), (1, 10), (2, 12), (12, 16), (13, 16), (50, 18), (204, 21), (205, 21), (819, 24)]
)
def test_rounds_grow_with_the_number_of_comparisons(family, confirm):
    found = plan(family)
    assert found == Plan(0.05 / max(1, family), confirm)
    outward = [*range(1, confirm), -confirm]  # one round the other way, the farthest out of all
    assert (
        signed_rank.p_greater(outward) <= found.alpha < signed_rank.p_greater([*range(1, confirm - 1), -(confirm - 1)])
    )
    assert found.rounds == SCREEN_ROUNDS + confirm


@pytest.mark.parametrize(
    ("seconds", "confirm", "resolution"),
    [(10, 16, 0.03), (30, 48, 0.01), (15, 24, 0.02), (3, 16, 0.03), (1e5, 160, 0.003)],
)
def test_more_time_sees_less(seconds, confirm, resolution):
    found = plan(12, seconds=seconds)
    assert found == Plan(0.05 / 12, confirm, pytest.approx(resolution))
    assert plan(12, 8, seconds) == Plan(0.05 / 12, 8, pytest.approx(resolution)), "rounds asked for are taken"


def test_as_many_rounds_as_asked_are_taken():
    assert plan(12, 8) == Plan(0.05 / 12, 8)
    assert plan(12, 400).confirm == 400
    assert plan(1, 5).confirm == 5


@pytest.mark.parametrize(
    ("family", "asked", "message"),
    [
        (
            12,
            7,
            "--mlbench-rounds 7 can never tell a regression: the smallest p-value it can give is 0.0078, and the 12 "
            "comparisons of this session need 0.0042; give at least 8, or select fewer cases",
        ),
        (
            204,
            1,
            "--mlbench-rounds 1 can never tell a regression: the smallest p-value it can give is 0.5, and the 204 "
            "comparisons of this session need 0.00025; give at least 12, or select fewer cases",
        ),
        (
            1,
            4,
            "--mlbench-rounds 4 can never tell a regression: the smallest p-value it can give is 0.062, and one "
            "comparison needs 0.05; give at least 5",
        ),
        (
            0,
            4,
            "--mlbench-rounds 4 can never tell a regression: the smallest p-value it can give is 0.062, and one "
            "comparison needs 0.05; give at least 5",
        ),
    ],
)
def test_rounds_that_never_decide_are_refused_with_the_number(family, asked, message):
    with pytest.raises(MlbenchError) as raised:
        plan(family, asked)
    assert str(raised.value) == message


@pytest.mark.parametrize("family", [1, 2, 5, 12, 50, 204])
def test_the_number_that_is_told_is_the_least_that_is_taken(family):
    least = next(asked for asked in range(1, 30) if accepted(family, asked))
    with pytest.raises(MlbenchError, match=f"give at least {least}(,|$)"):
        plan(family, least - 1)
    assert plan(family).confirm > least


def accepted(family, asked):
    try:
        return plan(family, asked).confirm == asked
    except MlbenchError:
        return False


@pytest.mark.parametrize("family", [1, 2, 12, 50, 204])
def test_one_round_the_other_way_does_not_undo_it(family):
    """Of whatever rank by its distance from the margin."""
    found = plan(family)
    for rank in range(1, found.confirm + 1):
        distances = [-value if value == rank else value for value in range(1, found.confirm + 1)]
        assert signed_rank.p_greater(distances) <= found.alpha


# --- screen, then confirm -----------------------------------------------------------------------------------------

CALM = (1.0011, 0.9992, 1.0004, 0.9987, 1.0013, 0.9995)
SLOWER = (1.0511, 1.0492, 1.0504, 1.0487, 1.0513, 1.0495)
FASTER = tuple(1 / factor for factor in SLOWER)
CONFIRM = 12


class Written:
    """Rounds as a test wrote them: metric -> the candidate's factors while screening, and when fresh."""

    def __init__(self, **factors):
        self.factors = {name.replace("_", "."): given for name, given in factors.items()}
        self.asked = []
        self.unmeasured = {}

    def take(self, number, stage):
        self.asked.append((number, stage))
        which = ("screen", "confirm").index(stage)
        return [self.round(index, which) for index in range(number)]

    def round(self, index, which):
        here = {name: 1e6 + index for name in self.factors}
        there = {name: self.value(here[name], given[which], index) for name, given in self.factors.items()}
        return Round("base", here, there, (), {"which": which, "index": index})

    def value(self, base, factors, index):
        factor = factors[index % len(factors)]
        # No round repeats another's ratio.
        return None if factor is None else base * (factor + 1e-6 * index)


def questions(*names, margin=0.03):
    units = {"throughput": ("1/s", "higher"), "memory.peak": ("bytes", "lower")}
    found = {}
    for name in names:
        unit, direction = units.get(name, ("ns", "lower"))
        found[name] = Question(name, unit, direction, Regression(margin), 0.05 / 12, 0.03, CONFIRM)
    return found


def test_a_calm_case_takes_no_rounds_but_the_screens():
    pairing = Written(latency_p50=(CALM, None))
    taken, found = decided(pairing, questions("latency.p50"), CONFIRM)
    assert pairing.asked == [(6, "screen")]
    assert len(taken) == 6
    made = found["latency.p50"]
    assert (made.verdict, made.n, len(made.base_values)) == ("pass", 6, 6)


@pytest.mark.parametrize(
    ("screen", "fresh", "verdict"),
    [
        (SLOWER, SLOWER, "regressed"),
        (SLOWER, CALM, "pass"),  # it only looked so
        (FASTER, FASTER, "improved"),
        (FASTER, CALM, "pass"),
        (FASTER, SLOWER, "regressed"),
        ((1.06, 0.95, 1.04, 0.96, 1.05, 0.94), CALM, "pass"),
        ((1.06, 0.95, 1.04, 0.96, 1.05, 0.94), (1.06, 0.95, 1.04, 0.96, 1.05, 0.94), "inconclusive"),
    ],
)
def test_a_suspicious_case_is_decided_by_fresh_rounds(screen, fresh, verdict):
    pairing = Written(latency_p50=(screen, fresh))
    taken, found = decided(pairing, questions("latency.p50"), CONFIRM)
    assert pairing.asked == [(6, "screen"), (12, "confirm")]
    assert [(one.state["which"], one.state["index"]) for one in taken] == [
        *((0, index) for index in range(6)),
        *((1, index) for index in range(12)),
    ]
    made = found["latency.p50"]
    assert (made.verdict, made.n, len(made.base_values)) == (verdict, 12, 18)


def test_fresh_rounds_are_taken_once_for_all_that_need_them():
    pairing = Written(
        latency_p50=(SLOWER, SLOWER), throughput=(FASTER, FASTER), latency_mean=(SLOWER, CALM), memory_peak=(CALM, CALM)
    )
    names = ("latency.p50", "throughput", "latency.mean", "memory.peak")
    _, found = decided(pairing, questions(*names), CONFIRM)
    assert pairing.asked == [(6, "screen"), (12, "confirm")]
    assert list(found) == list(names)
    assert {name: (made.verdict, made.n) for name, made in found.items()} == {
        "latency.p50": ("regressed", 12),
        "throughput": ("regressed", 12),
        "latency.mean": ("pass", 12),
        "memory.peak": ("pass", 6),
    }


def test_what_a_screen_settled_is_not_asked_again():
    """Each look at the same question would be another chance to be wrong."""
    pairing = Written(latency_p50=(SLOWER, SLOWER), memory_peak=(CALM, SLOWER))
    _, found = decided(pairing, questions("latency.p50", "memory.peak"), CONFIRM)
    made = found["memory.peak"]
    assert (made.verdict, made.n, len(made.candidate_values)) == ("pass", 6, 6)


def test_what_cannot_be_judged_takes_no_fresh_rounds():
    pairing = Written(latency_p50=((None,), None))
    taken, found = decided(pairing, questions("latency.p50"), CONFIRM)
    assert pairing.asked == [(6, "screen")]
    assert len(taken) == 6
    assert found["latency.p50"].verdict == "invalid"
    assert found["latency.p50"].reason == "the candidate did not measure latency.p50 in 6 of 6 rounds"


def test_what_cannot_be_judged_keeps_nothing_else_from_it():
    pairing = Written(latency_p99=((None, 1.0), CALM), latency_p50=(SLOWER, SLOWER))
    _, found = decided(pairing, questions("latency.p99", "latency.p50"), CONFIRM)
    assert {name: made.verdict for name, made in found.items()} == {
        "latency.p99": "invalid",
        "latency.p50": "regressed",
    }
    assert found["latency.p99"].reason == "the candidate did not measure latency.p99 in 3 of 6 rounds"


def test_a_metric_that_the_rounds_lack_altogether():
    _, found = decided(Written(latency_p50=(CALM, None)), questions("own.gone"), CONFIRM)
    assert (found["own.gone"].verdict, found["own.gone"].reason) == (
        "invalid",
        "the base did not measure own.gone in 6 of 6 rounds",
    )


def test_why_it_was_not_measured_is_told_where_it_matters():
    pairing = Written(latency_p99=((None,), None), latency_p50=(CALM, None))
    pairing.unmeasured = {"latency.p99": "there was no one-call pass", "latency.p50": "of no matter"}
    _, found = decided(pairing, questions("latency.p99", "latency.p50"), CONFIRM)
    assert found["latency.p99"].reason == (
        "the candidate did not measure latency.p99 in 6 of 6 rounds: there was no one-call pass"
    )
    assert (found["latency.p50"].verdict, "of no matter" in found["latency.p50"].reason) == ("pass", False)


def test_a_value_that_is_lost_in_a_fresh_round_is_told():
    pairing = Written(latency_p50=(SLOWER, (*SLOWER, None)))
    taken, found = decided(pairing, questions("latency.p50"), CONFIRM)
    assert len(taken) == 18
    assert found["latency.p50"].reason == "the candidate did not measure latency.p50 in 1 of 18 rounds"


def test_a_side_that_fails_while_it_is_confirmed_ends_it():
    class Failing(Written):
        def take(self, number, stage):
            if stage == "confirm":
                raise StageError("load", "no memory")
            return super().take(number, stage)

    with pytest.raises(StageError, match="load: no memory"):
        decided(Failing(latency_p50=(SLOWER, SLOWER)), questions("latency.p50"), CONFIRM)
