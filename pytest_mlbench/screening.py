"""Screen, then confirm: few rounds for every case, fresh ones for those that look suspicious."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_mlbench import compare
from pytest_mlbench.compare import Pairs, Question
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.record import Comparison
from pytest_mlbench.rounds import Pairing, Round, pairs
from pytest_mlbench.stats import signed_rank

FAMILY_ALPHA = 0.05  # the chance that a session without any regression has a red case, at most
SCREEN_ROUNDS = 6
SECONDS = 10.0  # of measuring a side, enough to find RESOLUTION
# "No worse" is said only where at least this much would have been noticed.
RESOLUTION = 0.03
_MOST_TIMES = 10.0  # the rounds of a longer time take no more than this: 0.3 % is what processes differ by anyway


@dataclass(frozen=True)
class Plan:
    """The error rate of one comparison, how many rounds confirm one that looks suspicious, and what they can see."""

    alpha: float
    confirm: int
    resolution: float = RESOLUTION

    @property
    def rounds(self) -> int:
        """Return the most rounds of one case."""
        return SCREEN_ROUNDS + self.confirm


def plan(family: int, asked: int | None = None, seconds: float = SECONDS) -> Plan:
    """Return the plan for `family` comparisons in one session (Bonferroni), with `asked` confirming rounds.

    Three times the `seconds` for a side are three times the rounds, and a third of the change must be ruled out.
    MlbenchError when so few rounds could never decide.
    """
    share = min(max(1.0, seconds / SECONDS), _MOST_TIMES)
    alpha = FAMILY_ALPHA / max(1, family)
    needed = signed_rank.rounds_needed(alpha)
    if asked is not None and asked < needed:
        many, fewer = f"the {family} comparisons of this session need", ", or select fewer cases"
        if family <= 1:
            many, fewer = "one comparison needs", ""
        raise MlbenchError(
            f"--mlbench-rounds {asked} can never tell a regression: the smallest p-value it can give is "
            f"{2.0**-asked:.2g}, and {many} {alpha:.2g}; give at least {needed}{fewer}"
        )
    return Plan(alpha, asked or round(share * _with_one_reversed(alpha, needed)), RESOLUTION / share)


def _with_one_reversed(alpha: float, rounds: int) -> int:
    """Return how many rounds decide although one of them, even the farthest out, points the other way."""
    while signed_rank.p_greater([*range(1, rounds), -rounds]) > alpha:
        rounds += 1
    return rounds


def decided(
    pairing: Pairing, questions: Mapping[str, Question], confirm: int
) -> tuple[list[Round], dict[str, Comparison]]:
    """Take the rounds that the questions (by metric) need, and decide each; returns all rounds in order."""
    screen = pairing.take(SCREEN_ROUNDS, "screen")
    screened = {name: pairs(screen, name) for name in questions}
    settled = {
        name: bool(compare.trouble(one, screened[name])) or compare.is_settled(one, screened[name])
        for name, one in questions.items()
    }
    fresh = [] if all(settled.values()) else pairing.take(confirm, "confirm")
    found = {}
    for name, one in questions.items():
        made = compare.decide(one, screened[name], Pairs((), ()) if settled[name] else pairs(fresh, name))
        why = pairing.unmeasured.get(name, "") if made.verdict == "invalid" else ""
        found[name] = replace(made, reason=f"{made.reason}: {why}") if why else made
    return screen + fresh, found
