from __future__ import annotations

import json
import re
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mlbench.checks.equivalence import check
from pytest_mlbench.spec import Limit, Tolerance


def limit(text: str) -> Limit:
    op, value = text.split()
    return Limit(op, float(value), "", text)


ALL = Tolerance(
    rtol=1e-4,
    atol=1e-5,
    max_abs=limit("<= 0.1"),
    sqnr_db=limit(">= 20"),
    cosine=limit(">= 0.99"),
    top1_agreement=limit(">= 0.9"),
    bit_exact=True,
)
REFERENCE = np.random.default_rng(0).normal(size=(10, 2, 5)).astype(np.float32)


def one(found, reference, tolerance, **kwargs):
    """Return the result of the only rule, the outputs themselves being in order."""
    outputs, result = check({"y": found}, {"y": reference}, tolerance, **kwargs)
    assert outputs.outcome == "pass", outputs.message
    return result


def test_equal_outputs_pass_every_rule() -> None:
    results = check({"y": REFERENCE}, {"y": REFERENCE.copy()}, ALL)
    assert [result.name for result in results] == [
        f"equivalence.{rule}"
        for rule in ("outputs", "elementwise", "max_abs", "sqnr_db", "cosine", "top1_agreement", "bit_exact")
    ]
    assert {result.outcome for result in results} == {"pass"}
    for result in results:
        json.dumps(result.facts, allow_nan=False)
    assert "SQNR is inf dB" in results[3].message


def test_one_bad_sample_among_many_fails_every_rule() -> None:
    reference = np.random.default_rng(1).normal(size=(500, 8))
    found = reference.copy()
    found[321] = -found[321]
    for result in check({"y": found}, {"y": reference}, ALL)[1:]:
        expected = "pass" if result.name == "equivalence.top1_agreement" else "fail"
        assert result.outcome == expected, result.message
        assert "321" in result.message
        json.dumps(result.facts, allow_nan=False)


def test_an_elementwise_failure_tells_where_what_and_how_much() -> None:
    found = REFERENCE.copy()
    found[7, 1, 3] = 2.5
    found[7, 0, 0] += 0.01
    found[2, 0, 4] += 0.02
    reference = REFERENCE.copy()
    reference[7, 1, 3] = 2.0
    result = one(found, reference, Tolerance(rtol=1e-4, atol=1e-5), sample_ids=[f"img{i}" for i in range(10)])
    assert result.outcome == "fail"
    assert "output 'y': 2 of 10 samples (3 of 100 elements) outside NumPy's rule" in result.message
    assert "|a-b| <= atol + rtol*|b| with rtol=0.0001, atol=1e-05" in result.message
    assert "worst: sample img7, element [1, 3]: 2.5 against reference 2.0" in result.message
    assert "would pass: atol=0.5 at rtol=0.0001, or rtol=0.25 at atol=1e-05" in result.message
    facts = result.facts["outputs"]["y"]
    assert (facts["worst_sample"], facts["failing_samples"], facts["failing_elements"]) == ("img7", 2, 3)
    assert facts["smallest_atol"] == pytest.approx(0.4998)


def test_a_tolerance_that_cannot_help_is_none() -> None:
    result = one(np.array([[0.5, 1]]), np.array([[0.0, 1]]), Tolerance(rtol=1e-3))
    assert "atol=0.5 at rtol=0.001, or rtol=none at atol=0.0" in result.message


FLOATS = hnp.arrays(np.float32, (4, 3), elements=st.floats(-50, 50, width=32))


@given(FLOATS, FLOATS, st.sampled_from([0.0, 1e-4, 0.1]), st.sampled_from([0.0, 1e-5, 0.1]))
def test_the_printed_tolerances_really_pass_and_a_bit_less_fails(found, reference, rtol, atol) -> None:
    result = one(found, reference, Tolerance(rtol=rtol, atol=atol))
    assume(result.outcome == "fail")
    printed = re.search(r"would pass: atol=(\S+) at rtol=\S+, or rtol=(\S+) at", result.message)
    least_atol, least_rtol = printed.groups()
    assert one(found, reference, Tolerance(rtol=rtol, atol=float(least_atol))).outcome == "pass"
    assert one(found, reference, Tolerance(rtol=rtol, atol=0.98 * float(least_atol))).outcome == "fail"
    if least_rtol == "none":
        assert (reference[np.abs(found - reference) > atol] == 0).any()
    else:
        assert one(found, reference, Tolerance(rtol=float(least_rtol), atol=atol)).outcome == "pass"
        if atol == 0:
            assert one(found, reference, Tolerance(rtol=0.98 * float(least_rtol))).outcome == "fail"


@given(FLOATS, FLOATS, st.sampled_from(["max_abs", "sqnr_db", "cosine", "top1_agreement"]))
def test_the_printed_limit_really_passes(found, reference, rule) -> None:
    impossible = {"max_abs": "<= -1", "sqnr_db": ">= 1e9", "cosine": ">= 2", "top1_agreement": ">= 2"}[rule]
    result = one(found, reference, Tolerance(**{rule: limit(impossible)}))
    assume(result.outcome == "fail")
    wanted = re.search(r"would pass: (none|[<>]= \S+)", result.message).group(1)
    if wanted == "none":
        assert rule == "sqnr_db"
        return
    assert one(found, reference, Tolerance(**{rule: limit(wanted)})).outcome == "pass"


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [
        (
            Tolerance(max_abs=limit("<= 0.1")),
            ["max |a-b| is 0.5 in the worst sample (b)", "1 of 3 samples outside", "would pass: <= 0.5"],
        ),
        (
            Tolerance(sqnr_db=limit(">= 20")),
            ["SQNR is 12.04 dB in the worst sample (b)", "limit >= 20", "would pass: >= 12"],
        ),
        (
            Tolerance(cosine=limit(">= 0.99")),
            ["cosine similarity is 0.9701 in the worst sample (b)", "would pass: >= 0.97"],
        ),
    ],
)
def test_a_limit_applies_to_the_worst_sample(tolerance, words) -> None:
    reference = np.array([[1.0, 2.0], [2.0, 0.0], [3.0, 4.0]])
    found = np.array([[1.0, 2.0], [2.0, 0.5], [3.0, 4.0]])
    result = one(found, reference, tolerance, sample_ids=["a", "b", "c"])
    assert result.outcome == "fail"
    for word in [*words, "worst: sample b, element [1]: 0.5 against reference 0.0"]:
        assert word in result.message


def test_a_mean_that_looks_fine_does_not_help() -> None:
    reference = np.ones((1000, 4))
    found = reference.copy()
    found[77] *= 2
    assert one(found, reference, Tolerance(sqnr_db=limit(">= 20"))).outcome == "fail"
    assert one(found, reference, Tolerance(max_abs=limit("<= 0.5"))).outcome == "fail"


def test_top1_names_the_samples_that_disagree() -> None:
    reference = np.eye(30)
    found = reference.copy()
    found[4:16] = np.roll(found[4:16], 1, axis=1)
    ids = [f"s{i}" for i in range(30)]
    result = one(found, reference, Tolerance(top1_agreement=limit(">= 0.98")), sample_ids=ids)
    assert result.outcome == "fail"
    assert "top-1 agrees in 0.6 (60 %) of 30 samples, limit >= 0.98" in result.message
    assert "12 disagree: s4, s5, s6, s7, s8, s9, s10, s11, s12, s13 and 2 more" in result.message
    assert "would pass: >= 0.6" in result.message
    allowed = one(found, reference, Tolerance(top1_agreement=limit(">= 0.6")), sample_ids=ids)
    assert allowed.outcome == "pass"
    assert "12 disagree" in allowed.message


def test_top1_needs_an_output_with_classes() -> None:
    result = one(np.ones(4), np.ones(4), Tolerance(top1_agreement=limit(">= 0.5")))
    assert result.outcome == "invalid"
    outputs = {"value": np.ones(3), "probs": np.eye(3)}
    result = check(outputs, outputs, Tolerance(top1_agreement=limit(">= 0.5")))[1]
    assert result.outcome == "pass"
    assert list(result.facts["outputs"]) == ["probs"]


@pytest.mark.parametrize(
    ("found", "reference", "words"),
    [
        ([[1.0, -0.0]], [[1.0, 0.0]], "element [1]: -0.0 against reference 0.0"),
        ([[1.0, 2.0]], np.array([[1, 2]], np.float32), "dtype float64, the reference float32"),
        ([[1.0, 2.0]], np.array([[1.0, 2.0]], ">f8"), "dtype float64, the reference >f8"),
        ([[1.0, 2.0]], [[1.0, np.nextafter(2.0, 3)]], "1 of 1 sample (1 of 2 elements) differ in their bits"),
    ],
)
def test_bit_exact_means_bits(found, reference, words) -> None:
    result = one(np.asarray(found), np.asarray(reference), Tolerance(bit_exact=True))
    assert result.outcome == "fail"
    assert words in result.message


def test_two_nan_with_different_payloads_show_their_bytes() -> None:
    found = np.array([[0x7FF8000000000001]], np.uint64).view(np.float64)
    structure, bits = check({"y": found}, {"y": np.array([[np.nan]])}, Tolerance(bit_exact=True))
    assert structure.outcome == bits.outcome == "fail"
    assert "nan (bytes 010000000000f87f) against reference nan (bytes 000000000000f87f)" in bits.message


def test_strings_can_only_be_bit_exact() -> None:
    names = np.array(["cat", "dog"])
    assert one(names, names, Tolerance(bit_exact=True)).outcome == "pass"
    (result,) = check({"y": names}, {"y": names}, Tolerance(rtol=1.0))
    assert result.outcome == "fail"
    assert "dtype <U3, which no numeric rule can compare" in result.message
    things = np.array([{}, {}], dtype=object)
    (result,) = check({"y": things}, {"y": things}, Tolerance(bit_exact=True))
    assert result.outcome == "fail"


@pytest.mark.parametrize(
    ("outputs", "reference", "words"),
    [
        ({}, {"y": REFERENCE}, "output 'y' is missing (there are: none)"),
        ({"z": REFERENCE}, {"y": REFERENCE}, "output 'y' is missing (there are: z)"),
        ({"z": REFERENCE}, {"y": REFERENCE}, "output 'z' is not in the reference (y)"),
        ({"y": REFERENCE[:9]}, {"y": REFERENCE}, "output 'y' has 9 samples, the reference 10"),
        (
            {"y": REFERENCE[:, :, :4]},
            {"y": REFERENCE},
            "output 'y' has shape (2, 4) per sample, the reference (2, 5)",
        ),
        ({"y": REFERENCE.reshape(10, 10)}, {"y": REFERENCE}, "has shape (10,) per sample"),
        ({"y": np.float32(1)}, {"y": np.float32(1)}, "has no axis of samples"),
        ({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}, "is empty (shape (0, 3))"),
        ({"y": np.zeros((3, 0))}, {"y": np.zeros((3, 0))}, "is empty (shape (3, 0))"),
    ],
)
def test_outputs_that_do_not_fit_fail_by_name(outputs, reference, words) -> None:
    (result,) = check(outputs, reference, ALL)
    assert (result.name, result.outcome) == ("equivalence.outputs", "fail")
    assert words in result.message


def test_a_missing_output_fails_although_the_others_agree() -> None:
    outputs, result = check({"y": REFERENCE}, {"y": REFERENCE, "z": REFERENCE}, Tolerance(rtol=1e-3))
    assert outputs.outcome == "fail"
    assert "output 'z' is missing (there are: y)" in outputs.message
    assert result.outcome == "pass"


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        (np.nan, 1.0, "1 element NaN here; first: sample 3, element [1, 2]: nan against reference 1.0"),
        (
            1.0,
            np.nan,
            "1 element NaN in the reference; first: sample 3, element [1, 2]: 1.0 against reference nan",
        ),
        (np.nan, np.nan, "1 element NaN here, 1 element NaN in the reference"),
        (np.inf, 1.0, "1 element infinite on one side or of opposite sign"),
        (np.inf, -np.inf, "1 element infinite on one side or of opposite sign"),
    ],
)
def test_nan_and_unmatched_infinities_fail_whatever_the_rule(here, there, words) -> None:
    found, reference = REFERENCE.copy(), REFERENCE.copy()
    found[3, 1, 2], reference[3, 1, 2] = here, there
    lax = Tolerance(rtol=1e30, max_abs=limit("<= 1e30"), sqnr_db=limit(">= -1e30"), cosine=limit(">= -1"))
    results = {r.name.removeprefix("equivalence."): r for r in check({"y": found}, {"y": reference}, lax)}
    assert results["outputs"].outcome == "fail"
    assert words in results["outputs"].message
    assert [results[rule].outcome for rule in ("elementwise", "max_abs", "sqnr_db")] == ["fail"] * 3
    assert "sample 3" in results["elementwise"].message
    for result in results.values():
        json.dumps(result.facts, allow_nan=False)


def test_matching_infinities_are_equal() -> None:
    found, reference = REFERENCE.copy(), REFERENCE.copy()
    found[:, 0, 0] = reference[:, 0, 0] = -np.inf
    assert {result.outcome for result in check({"y": found}, {"y": reference}, ALL)} == {"pass"}


def test_several_outputs_share_one_result_and_the_bad_one_is_named() -> None:
    outputs = {"boxes": REFERENCE, "scores": REFERENCE[:, 0] + 1, "count": np.arange(10)}
    reference = {"count": np.arange(10), "scores": REFERENCE[:, 0], "boxes": REFERENCE}
    structure, result = check(outputs, reference, Tolerance(atol=1e-3))
    assert structure.outcome == "pass"
    assert result.outcome == "fail"
    assert result.message.startswith("output 'scores': 10 of 10 samples")
    assert "boxes" not in result.message
    assert set(result.facts["outputs"]) == {"boxes", "scores", "count"}


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.bool_])
def test_any_shape_and_number_type_is_compared(shape, dtype) -> None:
    reference = np.random.default_rng(2).integers(0, 2, shape).astype(dtype)
    found = reference.copy()
    found[4] = 1 - found[4].astype(np.int8)
    assert one(reference, reference, Tolerance(atol=0.0)).outcome == "pass"
    result = one(found, reference, Tolerance(atol=0.5))
    assert result.outcome == "fail"
    assert "worst: sample 4" in result.message


@pytest.mark.parametrize(
    ("outputs", "reference", "tolerance", "ids", "words"),
    [
        ({"y": REFERENCE}, {"y": REFERENCE}, Tolerance(), None, "sets no rule"),
        ({}, {}, ALL, None, "neither the case nor its reference"),
        (
            {"y": REFERENCE},
            {"y": REFERENCE},
            ALL,
            ["a"],
            "1 sample ids were given and output 'y' has 10 samples",
        ),
    ],
)
def test_nothing_to_decide_is_invalid_and_never_a_pass(outputs, reference, tolerance, ids, words) -> None:
    (result,) = check(outputs, reference, tolerance, ids)
    assert result.outcome == "invalid"
    assert words in result.message


def test_only_one_of_the_two_tolerances_leaves_the_other_at_zero() -> None:
    reference = np.array([[100.0, 0.0]])
    large, zero = np.array([[100.05, 0.0]]), np.array([[100.0, 0.05]])
    assert one(large, reference, Tolerance(rtol=1e-3)).outcome == "pass"
    assert one(zero, reference, Tolerance(rtol=1e-3)).outcome == "fail"
    assert one(zero, reference, Tolerance(atol=0.1)).outcome == "pass"


def test_ten_thousand_samples_of_a_thousand_classes_are_quick_and_small() -> None:
    reference = np.random.default_rng(0).normal(size=(10_000, 1000)).astype(np.float32)
    found = reference + np.float32(1e-6)
    start = time.process_time()
    results = check({"y": found}, {"y": reference}, Tolerance(rtol=1e-4, atol=1e-5, sqnr_db=limit(">= 20")))
    took = time.process_time() - start
    assert {result.outcome for result in results} == {"pass"}
    assert took < 2
    tracemalloc.start()
    try:
        check({"y": found}, {"y": reference}, ALL)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64e6
