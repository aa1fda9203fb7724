from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pytest_mlbench.errors import InvalidCase
from pytest_mlbench.metrics import quality
from pytest_mlbench.stats.wilson import wilson

SCORES = np.array(
    [
        [9, 1, 2, 3, 4, 5, 0],  # label 0 first
        [9, 8, 7, 6, 5, 4, 3],  # label 4 fifth
        [9, 8, 7, 6, 5, 4, 3],  # label 5 sixth
        [1, 1, 1, 1, 1, 1, 1],  # all equal: label 0 comes first
        [9, 9, 1, 1, 1, 1, 1],  # label 1 shares the first place: second
    ],
    dtype=np.float32,
)
LABELS = np.array([0, 4, 5, 0, 1])


def top(measurement, outputs, labels, task="image_classification"):
    m = measurement(outputs=outputs, labels=labels, task=task)
    return {metric.name: metric for metric in quality.measure(m)}


def test_shares_have_counts_and_wilson_intervals(measurement) -> None:
    metrics = top(measurement, {"probs": SCORES}, LABELS)
    assert metrics["accuracy.top1"].value == 0.4
    assert metrics["accuracy.top5"].value == 0.8
    assert metrics["accuracy.top1"].interval == wilson(2, 5)
    assert metrics["accuracy.top5"].interval == wilson(4, 5)
    assert {(m.n, m.confidence, m.unit, m.direction) for m in metrics.values()} == {(5, 0.95, "", "higher")}
    assert "2 of 5" in metrics["accuracy.top1"].note


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, np.inf, -np.inf])
def test_a_constant_output_is_no_better_than_chance(measurement, value) -> None:
    metrics = top(measurement, {"probs": np.full((40, 10), value)}, np.arange(40) % 10)
    assert metrics["accuracy.top1"].value == 0.1
    assert metrics["accuracy.top5"].value == 0.5


@given(
    hnp.arrays(np.float32, (12, 9), elements=st.floats(-4, 4, width=16)),
    hnp.arrays(np.int64, 12, elements=st.integers(0, 8)),
)
def test_ranks_are_those_of_the_definition(scores, labels) -> None:
    ranks = quality.ranks({"y": scores}, labels)
    order = np.argsort(-scores, axis=1, kind="stable")
    assert ranks.tolist() == [int(np.flatnonzero(row == label)[0]) for row, label in zip(order, labels, strict=True)]
    assert quality.correct({"y": scores}, labels).tolist() == (scores.argmax(axis=1) == labels).tolist()


@given(hnp.arrays(np.float64, (6, 8), elements=st.floats(-100, 100), unique=True), st.permutations(range(8)))
def test_the_order_of_classes_does_not_matter(scores, order) -> None:
    labels = np.arange(6)
    moved = np.argsort(order)[labels]
    assert quality.ranks({"y": scores[:, list(order)]}, moved).tolist() == (
        quality.ranks({"y": scores}, labels).tolist()
    )


@pytest.mark.parametrize("shape", [(5, 7), (5, 1, 7), (5, 7, 1, 1), (5, 1, 1, 7)])
def test_axes_of_length_one_do_not_matter(shape) -> None:
    assert quality.correct({"y": SCORES.reshape(shape)}, LABELS).tolist() == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_integer_scores_are_compared_exactly() -> None:
    big = 2**60
    scores = np.array([[big, big + 1, big - 1]])
    assert quality.correct({"y": scores}, np.array([1])).tolist() == [True]
    assert quality.correct({"y": scores}, np.array([0])).tolist() == [False]


def test_the_first_output_with_a_class_axis_is_scored() -> None:
    outputs = {
        "class_id": np.zeros(5, np.int64),
        "features": np.zeros((5, 3, 3)),
        "names": np.full((5, 7), "a"),
        "logits": SCORES,
        "other": -SCORES,
    }
    assert quality.class_scores(outputs)[0] == "logits"
    assert quality.correct(outputs, LABELS).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("outputs", "labels", "words"),
    [
        ({"y": np.zeros((5, 3, 3))}, LABELS, r"no output holds one score per class; outputs: y \(5, 3, 3\)"),
        ({"y": np.zeros((5, 1))}, LABELS, "no output holds one score per class"),
        ({}, LABELS, "outputs: none"),
        ({"y": SCORES}, LABELS[:4], "'y' has 5 samples and there are 4 labels"),
        ({"y": SCORES}, np.array([0, 1, 7, 1, 1]), "label 7 of sample 2 is outside the 7 classes"),
        ({"y": SCORES}, np.array([0, 1, 2, -1, 1]), "label -1 of sample 3"),
        ({"y": SCORES}, LABELS.astype(float), "whole class numbers, they are float64"),
        ({"y": SCORES[:0]}, LABELS[:0], "no samples to score"),
        (
            {"y": np.where(np.arange(5)[:, None] == 3, np.nan, SCORES)},
            LABELS,
            r"NaN in 1 of 5 samples \(first: sample 3\)",
        ),
    ],
)
def test_what_cannot_be_scored_says_why(measurement, outputs, labels, words) -> None:
    with pytest.raises(InvalidCase, match=words):
        quality.correct(outputs, labels)
    metrics = top(measurement, outputs, labels)
    assert len(metrics) == 2
    assert all(re.search(words, metric.reason) for metric in metrics.values())
    assert {m.value for m in metrics.values()} == {None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "the data set has no labels"),
        ({"outputs": None}, "the accuracy pass did not run"),
        ({"task": None}, "the model's task is None"),
        ({"task": "segmentation"}, "the model's task is 'segmentation'"),
    ],
)
def test_a_missing_part_is_named(measurement, changes, words) -> None:
    given = {"outputs": {"y": SCORES}, "labels": LABELS, "task": "classification", **changes}
    for metric in quality.measure(measurement(**given)):
        assert metric.value is None
        assert words in metric.reason


@pytest.mark.parametrize(("classes", "known"), [(2, False), (5, False), (6, True)])
def test_top5_needs_more_than_five_classes(measurement, classes, known) -> None:
    metrics = top(measurement, {"y": np.eye(classes)}, np.arange(classes))
    assert metrics["accuracy.top1"].value == 1.0
    assert (metrics["accuracy.top5"].value is not None) is known
    if not known:
        assert f"with {classes} classes" in metrics["accuracy.top5"].reason
