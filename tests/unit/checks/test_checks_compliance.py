from __future__ import annotations

import json

import numpy as np
import pytest

from pytest_mlbench.checks.compliance import (
    check_batch_invariance,
    check_repeat_sample,
    check_timed_outputs,
)
from pytest_mlbench.spec import Limit, Tolerance


@pytest.mark.parametrize(
    ("repeated", "varied", "outcome"),
    [
        ([100] * 8, [100] * 8, "pass"),
        ([50] * 8, [100] * 8, "fail"),
        ([90] * 8, [100] * 8, "fail"),  # 11.1 % faster
        ([92] * 8, [100] * 8, "pass"),  # 8.7 % faster
        ([100] * 8, [110] * 8, "pass"),  # the bound itself
        ([100] * 8, [50] * 8, "pass"),  # slower is no cache
        ([50] * 5, [100] * 5, "fail"),
        ([50] * 4 + [100], [100] * 5, "pass"),  # 4 of 5: p = 0.19
        ([50] * 7 + [100], [100] * 8, "fail"),  # 7 of 8: p = 0.035
        ([50] * 6 + [100] * 2, [100] * 8, "pass"),  # 6 of 8: p = 0.14
        ([100] * 7 + [10], [100] * 8, "pass"),  # one disturbed block
        ([50] * 4, [100] * 4, "insufficient"),
        ([], [], "insufficient"),
        ([50] * 8, [100] * 7, "invalid"),
        ([0] * 8, [100] * 8, "invalid"),
        ([50] * 8, [-1] * 8, "invalid"),
        ([np.nan] * 8, [100] * 8, "invalid"),
    ],
)
def test_a_cache_is_found_and_noise_is_not(repeated, varied, outcome) -> None:
    result = check_repeat_sample(repeated, varied)
    assert result.name == "compliance.repeat_sample"
    assert result.outcome == outcome
    json.dumps(result.facts, allow_nan=False)


def test_the_message_tells_the_speed_up_and_the_evidence() -> None:
    result = check_repeat_sample([50] * 8, [100] * 8)
    assert "runs 100 % faster than varied ones (median of 8 pairs), limit 10 % faster" in result.message
    assert "8 of 8 pairs are above it (sign test p = 0.00391)" in result.message
    assert "cached" in result.message
    assert "5 % slower" in check_repeat_sample([100] * 5, [95] * 5).message
    assert "at least 5" in check_repeat_sample([1], [1]).message


def test_noise_fails_less_than_once_in_a_hundred() -> None:
    random = np.random.default_rng(5)
    outcomes = [check_repeat_sample(*random.lognormal(4, 0.2, size=(2, 8))).outcome for _ in range(500)]
    assert outcomes.count("fail") <= 5


def test_a_cache_that_halves_the_time_is_found_in_spite_of_noise() -> None:
    random = np.random.default_rng(6)
    found = 0
    for _ in range(100):
        repeated, varied = random.lognormal(4, 0.1, size=(2, 12))
        found += check_repeat_sample(repeated / 2, varied).outcome == "fail"
    assert found >= 98


SCORED = {
    "probs": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32),
    "id": np.arange(20),
}
IDS = [3, 17, 3, 0]


def timed(**changes):
    return {name: array[IDS].copy() for name, array in SCORED.items()} | changes


def test_timed_outputs_are_those_that_were_scored() -> None:
    result = check_timed_outputs(timed(), SCORED, IDS)
    assert (result.name, result.outcome) == ("compliance.timed_outputs", "pass")
    assert result.facts["samples"] == 4


def test_a_changed_element_is_named_by_sample_and_place() -> None:
    outputs = timed()
    outputs["probs"][1, 2] += 1
    result = check_timed_outputs(outputs, SCORED, IDS)
    assert result.outcome == "fail"
    assert "timed outputs are not the scored ones" in result.message
    assert "output 'probs': 1 of 4 samples" in result.message
    assert "sample 17, element [2]" in result.message


def test_the_last_bit_counts_unless_a_tolerance_is_given() -> None:
    outputs = timed()
    outputs["probs"] = np.nextafter(outputs["probs"], np.float32(9))
    assert check_timed_outputs(outputs, SCORED, IDS).outcome == "fail"
    assert check_timed_outputs(outputs, SCORED, IDS, rtol=1e-6).outcome == "pass"
    assert check_timed_outputs(outputs, SCORED, IDS, atol=1e-5).outcome == "pass"
    assert check_timed_outputs(outputs, SCORED, IDS, atol=1e-12).outcome == "fail"


@pytest.mark.parametrize(
    ("outputs", "ids", "outcome", "words"),
    [
        ({}, [], "invalid", "kept no outputs"),
        (timed(), [3, 17, 3, 20], "invalid", "ids 3..20 are outside the 20 of 'probs'"),
        (timed(), [3, 17, 3, -1], "invalid", "ids -1..17"),
        ({"probs": SCORED["probs"][IDS]}, IDS, "fail", "output 'id' is missing"),
        (timed(more=np.zeros(4)), IDS, "fail", "output 'more' is not in the reference"),
        (timed(id=np.arange(3)), IDS, "invalid", "4 sample ids were given and output 'id' has 3 samples"),
        (timed(id=SCORED["id"][IDS].astype(np.int32)), IDS, "fail", "has dtype int32, the reference int64"),
    ],
)
def test_outputs_that_do_not_fit_never_pass(outputs, ids, outcome, words) -> None:
    result = check_timed_outputs(outputs, SCORED, ids)
    assert result.outcome == outcome
    assert words in result.message


def test_batches_are_compared_by_the_suites_rules() -> None:
    single = {"y": np.eye(6) * 4 + 1}
    rules = Tolerance(rtol=1e-3, top1_agreement=Limit(">=", 1, "", ">= 1"))
    results = check_batch_invariance(single, {"y": single["y"] * (1 + 1e-4)}, rules)
    assert {result.name: result.outcome for result in results} == {
        "compliance.batch_invariance.outputs": "pass",
        "compliance.batch_invariance.elementwise": "pass",
        "compliance.batch_invariance.top1_agreement": "pass",
    }


def test_a_batch_that_mixes_its_samples_fails() -> None:
    single = {"y": np.eye(6) * 4 + 1}
    results = check_batch_invariance(single, {"y": np.roll(single["y"], 1, axis=0)}, Tolerance(rtol=1e-3))
    assert [result.outcome for result in results] == ["pass", "fail"]


def test_the_single_sample_is_the_reference_of_the_batch() -> None:
    (_, result) = check_batch_invariance({"y": np.ones((2, 3))}, {"y": np.zeros((2, 3))}, Tolerance(rtol=1e-3))
    assert "0.0 against reference 1.0" in result.message
