from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.stats import edivisive
from pytest_mlbench.stats.edivisive import change_points

Array = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator], Array]


def alarms(draw: Draw, runs: int = 100) -> int:
    """Return in how many of `runs` seeded series something is found."""
    return sum(bool(change_points(draw(np.random.default_rng(seed)), seed=seed)) for seed in range(runs))


def noise(n: int, sd: float = 2.0) -> Draw:
    return lambda random: random.normal(100, sd, n)


def step(n: int, at: int, size: float, sd: float = 2.0) -> Draw:
    return lambda random: random.normal(100, sd, n) + size * (np.arange(n) >= at)


def found(draw: Draw, at: int, runs: int = 60, near: int = 2) -> int:
    """Return in how many of `runs` seeded series the step at `at` is found, within `near` values."""
    hits = 0
    for seed in range(runs):
        points = change_points(draw(np.random.default_rng(seed)), seed=seed)
        hits += any(abs(point.index - at) <= near for point in points)
    return hits


# --- what it is for ------------------------------------------------------------------------------------------


def test_a_step_is_found_where_it_is_with_the_level_on_each_side() -> None:
    series = [10.0, 10.2, 9.9, 10.1, 10.0, 9.8, 10.1, 10.0, 12.1, 12.0, 11.9, 12.2, 12.0, 12.1]
    (point,) = change_points(series)
    assert (point.index, point.before, point.after) == (8, 10.0, pytest.approx(12.05))
    assert 1 / 200 <= point.p <= 0.05


def test_a_rise_and_a_fall_are_both_found_and_levels_are_those_between_them() -> None:
    # The change up is as far from the end as from the change down: only a bounded second part shows it purely.
    random = np.random.default_rng(3)
    series = random.normal(100, 1, 60)
    series[20:40] += 8
    up, down = change_points(series)
    assert (up.index, down.index) == (20, 40)
    assert up.after == down.before == float(np.median(series[20:40]))
    assert up.before == float(np.median(series[:20]))
    assert down.after == float(np.median(series[40:]))


def test_a_staircase_gives_each_stair() -> None:
    series = np.repeat([1.0, 2.0, 3.0, 2.5], 15) + np.random.default_rng(0).normal(0, 0.05, 60)
    assert [point.index for point in change_points(series)] == [15, 30, 45]


@pytest.mark.parametrize(("n", "at", "least"), [(30, 15, 54), (30, 24, 48), (60, 30, 56)])
def test_a_step_of_5_percent_in_noise_of_2_percent_is_found(n: int, at: int, least: int) -> None:
    assert found(step(n, at, 5), at) >= least


def test_four_values_of_the_new_level_are_enough_for_a_clear_step() -> None:
    series = np.random.default_rng(1).normal(100, 1, 34)
    series[30:] += 10
    assert [point.index for point in change_points(series)] == [30]
    assert change_points(series[:32]) == []  # two are not


# --- what it must not say ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        noise(30),
        lambda random: random.lognormal(0, 0.5, 30),
        lambda random: 100 + 12.0 * (random.random(40) < 0.5) + random.normal(0, 1, 40),
        lambda random: 100 + random.normal(0, 1, 40) + 80.0 * (random.random(40) < 0.05),
    ],
    ids=["white", "skewed", "bimodal", "spikes"],
)
def test_a_series_without_a_step_gives_a_false_alarm_in_a_few_percent_at_most(draw: Draw) -> None:
    # 100 series at 5 %: more than 10 alarms would come by chance in 1 % of cases.
    assert alarms(draw) <= 10


def test_the_permutation_test_alone_holds_its_level_although_the_best_split_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edivisive, "SUPERIORITY", 0.0)
    assert 1 <= alarms(noise(30), 200) <= 18  # 5 % of 200; a p that ignored the choice would give most of them


@pytest.mark.parametrize("where", [0, 7, 15, 29])
def test_one_spike_is_no_change_point(where: int) -> None:
    series = np.random.default_rng(5).normal(100, 1, 30)
    series[where] += 50
    assert change_points(series) == []


def test_two_modes_in_unequal_shares_are_vetoed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Significantly more slow values in the second half, but both modes throughout: no level changed.
    random = np.random.default_rng(8)
    slow = np.concatenate([random.random(60) < 0.3, random.random(60) < 0.75])
    series = 13 + 12.0 * slow + random.normal(0, 1, 120)
    assert change_points(series) == []
    monkeypatch.setattr(edivisive, "SUPERIORITY", 0.0)
    assert change_points(series) != []


def test_the_weakest_of_several_is_vetoed_and_its_levels_are_joined() -> None:
    random = np.random.default_rng(8)
    slow = np.concatenate([random.random(60) < 0.3, random.random(60) < 0.75])
    series = np.concatenate([13 + 12.0 * slow + random.normal(0, 1, 120), random.normal(60, 1, 20)])
    (point,) = change_points(series)
    assert (point.index, point.before) == (120, float(np.median(series[:120])))


def test_equal_values_have_no_change() -> None:
    assert change_points([5.0] * 40) == []


@pytest.mark.parametrize("n", [0, 1, 7])
def test_too_few_values_have_no_change(n: int) -> None:
    assert change_points([1.0] * (n // 2) + [9.0] * (n - n // 2)) == []


def test_values_without_noise_have_a_change_where_they_change() -> None:
    (point,) = change_points([5.0] * 10 + [6.0] * 10)
    assert (point.index, point.before, point.after) == (10, 5.0, 6.0)


# --- the formulas --------------------------------------------------------------------------------------------


def naive_gain(first: Array, second: Array) -> float:
    """Return Q of the paper's equations (4) to (6), written out."""
    m, n = len(first), len(second)
    between = sum(abs(x - y) for x in first for y in second)
    inside = [sum(abs(x - y) for i, x in enumerate(part) for y in part[:i]) for part in (first, second)]
    energy = 2 / (m * n) * between - inside[0] / (m * (m - 1) / 2) - inside[1] / (n * (n - 1) / 2)
    return m * n / (m + n) * energy


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=14), st.integers(2, 4))
def test_every_split_has_the_paper_s_statistic(values: list[float], min_size: int) -> None:
    series = np.array(values)
    gains = edivisive._gains(np.abs(series[:, None] - series)[None], min_size)[0]
    n = len(series)
    scale = float(np.abs(series).max()) + 1e-300
    for i, t in enumerate(range(min_size, n - min_size + 1)):
        for j, k in enumerate(range(2 * min_size, n + 1)):
            if k - t < min_size:
                assert gains[i, j] == -np.inf
            else:
                assert gains[i, j] / scale == pytest.approx(naive_gain(series[:t], series[t:k]) / scale, abs=1e-9)


def test_superiority_is_that_of_the_rank_sum_and_takes_the_winning_side() -> None:
    one, other = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0])
    # of six pairs other is above in 4 (1<2, 1<4, 2<4, 3<4) and equal in 1
    assert edivisive._superiority(one, other) == pytest.approx(4.5 / 6)
    assert edivisive._superiority(other, one) == pytest.approx(4.5 / 6)
    assert edivisive._superiority(one, one) == 0.5


# --- arguments -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_points_and_scale_and_offset_do_not_matter() -> None:
    series = step(40, 20, 3)(np.random.default_rng(11))
    points = change_points(series, seed=4)
    assert points == change_points(list(series), seed=4)
    scaled = change_points(series * 1e6 - 3e7, seed=4)
    assert [(point.index, point.p) for point in points] == [(point.index, point.p) for point in scaled]
    assert points != []


def test_a_smaller_alpha_needs_more_permutations_and_gives_a_smaller_p() -> None:
    series = step(40, 20, 10)(np.random.default_rng(0))
    (point,) = change_points(series, alpha=0.001, permutations=999)
    assert (point.index, point.p) == (20, 0.001)
    with pytest.raises(ValueError, match=r"199 permutations cannot give p <= 0.001: at least 1 / alpha - 1"):
        change_points(series, alpha=0.001)
    assert change_points(series, alpha=0.05, permutations=19) != []  # 1 / 20 is just enough


def test_a_longer_least_level_hides_a_shorter_one() -> None:
    series = np.random.default_rng(2).normal(100, 1, 40)
    series[30:36] += 12
    assert [point.index for point in change_points(series)] == [30, 36]
    assert [point.index for point in change_points(series, min_size=15)] == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="a value is not finite"):
        change_points([1.0] * 10 + [value])


@pytest.mark.parametrize("size", [1, 0, -3])
def test_a_level_has_two_values_at_least(size: int) -> None:
    with pytest.raises(ValueError, match=f"min_size must be 2 or more, got {size}"):
        change_points([1.0] * 10, min_size=size)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_alpha_is_a_fraction(alpha: float) -> None:
    with pytest.raises(ValueError, match="cannot give p"):
        change_points([1.0] * 10, alpha=alpha)
