"""Accuracy of a classifier from the outputs of the accuracy pass and the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_mlbench.errors import InvalidCase
from pytest_mlbench.metrics.api import Measurement
from pytest_mlbench.metrics.catalogue import absent, found
from pytest_mlbench.record import Metric
from pytest_mlbench.stats.wilson import wilson

TASKS = ("classification", "image_classification")
CONFIDENCE = 0.95
# With five classes every label is among the first five.
TOP5_CLASSES = 6


def measure(m: Measurement) -> list[Metric]:
    """Return accuracy.top1 and accuracy.top5 (shares), each with its Wilson 95 % interval.

    Of classes with equal scores the lower number comes first, as in numpy's argmax, so that the figure is the
    one a user's own argmax gives and a constant output is no better than chance. Without labels, with NaN in the
    scores, or when no output holds a score per class, both are absent and say so.
    """
    try:
        classes, ranks = _measured_ranks(m)
    except InvalidCase as problem:
        return [absent(name, str(problem)) for name in ("accuracy.top1", "accuracy.top5")]
    top1 = _share("accuracy.top1", ranks < 1)
    if classes < TOP5_CLASSES:
        reason = f"top-5 says nothing with {classes} classes; it needs {TOP5_CLASSES}"
        return [top1, absent("accuracy.top5", reason)]
    return [top1, _share("accuracy.top5", ranks < 5)]


def correct(outputs: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for each sample whether its label is the argmax of the scores (shape: samples).

    InvalidCase when the outputs cannot be scored: no output with a score per class, a count of samples that
    differs from the labels', a label outside the classes, or NaN.
    """
    result: npt.NDArray[np.bool_] = ranks(outputs, labels) < 1
    return result


def ranks(outputs: Mapping[str, npt.NDArray[Any]], labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return for each sample how many classes come before its label: higher scores, or equal ones of a lower number.

    InvalidCase as for `correct`.
    """
    name, scores = class_scores(outputs)
    truth = np.asarray(labels).ravel()
    if len(scores) != truth.size:
        raise InvalidCase(f"output {name!r} has {len(scores)} samples and there are {truth.size} labels")
    if not truth.size:
        raise InvalidCase("there are no samples to score")
    if truth.dtype.kind not in "iu":
        raise InvalidCase(f"labels must be whole class numbers, they are {truth.dtype}")
    outside = (truth < 0) | (truth >= scores.shape[1])
    if outside.any():
        first = int(np.argmax(outside))
        raise InvalidCase(
            f"label {truth[first]} of sample {first} is outside the {scores.shape[1]} classes of {name!r}"
        )
    bad = np.isnan(scores).any(axis=1)
    if bad.any():
        raise InvalidCase(
            f"output {name!r} contains NaN in {np.count_nonzero(bad)} of {bad.size} samples "
            f"(first: sample {int(np.argmax(bad))})"
        )
    own = np.take_along_axis(scores, truth[:, None].astype(np.int64), axis=1)
    before = np.arange(scores.shape[1])[None, :] < truth[:, None]
    counted: npt.NDArray[np.int64] = np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)
    return counted


def class_scores(outputs: Mapping[str, npt.NDArray[Any]]) -> tuple[str, npt.NDArray[Any]]:
    """Return the name and the (samples, classes) scores of the first declared output that has a class axis.

    That is an output with one axis beside the samples that is longer than 1: (n, C), (n, 1, C), (n, C, 1, 1).
    InvalidCase when there is none.
    """
    for name, output in outputs.items():
        per_sample = [size for size in output.shape[1:] if size != 1]
        if len(per_sample) == 1 and per_sample[0] > 1 and output.dtype.kind in "biuf":
            return name, output.reshape(output.shape[0], per_sample[0])
    shapes = ", ".join(f"{name} {output.shape}" for name, output in outputs.items()) or "none"
    raise InvalidCase(f"no output holds one score per class; outputs: {shapes}")


def _measured_ranks(m: Measurement) -> tuple[int, npt.NDArray[np.int64]]:
    task = m.case.model.task
    if task not in TASKS:
        raise InvalidCase(f"the model's task is {task!r}; accuracy is known for {' and '.join(TASKS)}")
    if m.labels is None:
        raise InvalidCase("the data set has no labels")
    if m.outputs is None:
        raise InvalidCase("the accuracy pass did not run")
    return class_scores(m.outputs)[1].shape[1], ranks(m.outputs, m.labels)


def _share(name: str, hits: npt.NDArray[np.bool_]) -> Metric:
    count, n = int(np.count_nonzero(hits)), int(hits.size)
    return found(
        name,
        count / n,
        n=n,
        interval=wilson(count, n, CONFIDENCE),
        confidence=CONFIDENCE,
        note=f"{count} of {n}; of equal scores the lower class comes first",
    )
