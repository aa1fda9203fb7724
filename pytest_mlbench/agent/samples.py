"""The samples a model is given: received from the host or generated, prepared, matched with its inputs, ordered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .api import TensorSpec
from .preprocess import Array, Batch, Function, apply_steps, check_given, digest, generate, named, to_model


class Refused(Exception):
    """The request cannot be met because the suite's data, model and batch do not fit together."""


class Samples:
    """A data set on the target. First raw, then prepared by the declared steps, then in the model's own dtypes."""

    def __init__(self) -> None:
        self.raw: Batch = {}
        self.count = 0
        self.batch = 1
        self.batched = True  # does any input have a batch dimension?
        self.pre: Function | None = None
        self._received: dict[str, list[bytes]] = {}
        self._prepared: Batch = {}
        self._steps: Sequence[Mapping[str, Any]] = ()
        self._mapping: Mapping[str, str] = {}
        self._specs: Sequence[TensorSpec] = ()
        self._unbatched: set[str] = set()
        self._order: Array = np.zeros(0, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays held, raw and prepared; one that both share counts once.

        Added up, and not the growth of the process: an allocator that hands out freed pages grows by nothing.
        """
        buffers = {}
        for array in (*self.raw.values(), *self._prepared.values()):
            while isinstance(array.base, np.ndarray):
                array = array.base
            buffers[id(array)] = array.nbytes
        return sum(buffers.values())

    def receive(self, name: str, dtype: str, shape: Sequence[int], data: bytes, done: bool) -> None:
        """Take one chunk of an array; the last one completes it."""
        parts = self._received.setdefault(name, [])
        parts.append(data)
        if done:
            self.raw[name] = np.frombuffer(b"".join(parts), dtype=np.dtype(dtype)).reshape(shape)
            self.count = int(shape[0])
            del self._received[name]

    def generate(
        self, specs: list[TensorSpec], kind: str, count: int, seed: int, shapes: Mapping[str, Sequence[int]], high: int
    ) -> None:
        """Make random samples of a model's own input shapes, of which a first dimension of `self.batch` is no part."""
        try:
            self.raw = generate(specs, kind, count, seed, shapes, high, self.batch)
        except ValueError as error:
            raise Refused(str(error)) from None
        self.count = count
        self.prepare(self._steps, self._mapping)

    def prepare(self, steps: Sequence[Mapping[str, Any]], mapping: Mapping[str, str]) -> None:
        """Prepare all samples; `mapping` names the array of each model input where the names differ."""
        self._steps, self._mapping = steps, mapping
        self._prepared = self._prepare(self.raw)
        if self.pre is not None:
            self._check_given(self.pre)

    def _check_given(self, pre: Function) -> None:
        wrong = check_given(pre, self._prepared)
        for name, array in self._prepared.items() if not wrong else ():
            if array.shape[:1] != (self.count,):
                shape = list(array.shape)
                wrong = f"{named(pre)} gave {name!r} with shape {shape}, expected {self.count} samples first"
        if wrong:
            raise Refused(f"{wrong}; correct the `preprocess` function")

    def _prepare(self, raw: Batch) -> Batch:
        try:
            batch = {name: apply_steps(array, self._steps) for name, array in raw.items()}
        except ValueError as error:
            raise Refused(str(error)) from None
        return self.pre(batch) if self.pre is not None else batch

    def fit(self, specs: Sequence[TensorSpec], batch: int, seed: int) -> str:
        """Match the prepared samples with a model's inputs; returns the digest of the prepared tensors.

        Raises Refused, with both sides' names and shapes, when they do not fit.
        """
        self._specs, self.batch = specs, batch
        if batch > self.count:
            raise Refused(f"batch {batch} needs at least as many samples; the data set has {self.count}")
        named = self._by_input(self._prepared)
        self._unbatched = {spec.name for spec in specs if not self._has_batch(spec, named[spec.name])}
        self.batched = len(self._unbatched) < len(specs)
        if self._unbatched and batch != 1:
            which = f"model input {min(self._unbatched)!r}" if self.batched else "the model"
            raise Refused(f"{which} has no batch dimension, so batch {batch} cannot be run; remove it from the suite")
        found = digest(named)
        self._prepared = {spec.name: self._convert(spec, named[spec.name]) for spec in specs}
        self._order = np.random.default_rng(seed).permutation(self.count)
        return found

    def _by_input(self, arrays: Batch) -> Batch:
        names = [spec.name for spec in self._specs]
        if not self._mapping and len(names) == len(arrays) == 1:
            return {names[0]: next(iter(arrays.values()))}
        wanted = {name: self._mapping.get(name, name) for name in names}
        missing = [f"{name!r} (array {array!r})" for name, array in wanted.items() if array not in arrays]
        if missing:
            raise Refused(
                f"the data set has no array for model input {', '.join(missing)}; its arrays are "
                f"{', '.join(map(repr, arrays))}: name them like the inputs or set `inputs` in the data set"
            )
        return {name: arrays[array] for name, array in wanted.items()}

    def _has_batch(self, spec: TensorSpec, array: Array) -> bool:
        """Tell whether the input has a batch dimension before a sample's shape; Refused when nothing fits."""
        sample = array.shape[1:]

        def fits(shape: Sequence[int]) -> bool:
            if len(shape) != len(sample):
                return False
            return all(want in (-1, have) for want, have in zip(shape, sample))  # noqa: B905 - Python 3.9

        if len(spec.shape) == len(sample) + 1 and fits(spec.shape[1:]):
            if spec.shape[0] not in (-1, self.batch):
                raise Refused(
                    f"model input {spec.name!r} has a fixed batch of {spec.shape[0]}, the case asks for {self.batch}: "
                    f"export the model with a free batch dimension or set batch = [{spec.shape[0]}]"
                )
            return True
        if fits(spec.shape):
            return False
        raise Refused(
            f"model input {spec.name!r} takes {list(spec.shape)} {spec.dtype}, one prepared sample is "
            f"{list(sample)} {array.dtype}: change `preprocess` (reshape, transpose) or the data set"
        )

    def _convert(self, spec: TensorSpec, array: Array) -> Array:
        try:
            return to_model(array, spec)
        except TypeError as error:
            raise Refused(f"{error}: change `preprocess` (cast) or the data set") from None

    def indices(self, number: int) -> Array:
        """Return the samples of call `number`: the seeded order, taken round and round."""
        start = number * self.batch
        return self._order.take(range(start, start + self.batch), mode="wrap")

    def inputs(self, indices: Array) -> Batch:
        """Return one call's inputs, ready to bind."""
        return self.of(self._prepared, indices)

    def of(self, arrays: Batch, indices: Array) -> Batch:
        """Return some samples of `arrays` as the model takes them: a batch, or one without a batch dimension."""
        return self._bare({name: np.ascontiguousarray(array[indices]) for name, array in arrays.items()})

    def _bare(self, batch: Batch) -> Batch:
        """Take the batch dimension, of size 1, off the inputs that have none."""
        if not self._unbatched:
            return batch
        bare = self._unbatched
        return {name: array.reshape(array.shape[1:]) if name in bare else array for name, array in batch.items()}

    def from_raw(self, raw: Batch) -> Batch:
        """Prepare raw samples all the way to a call's inputs (the path that end_to_end times)."""
        named = self._by_input(self._prepare(raw))
        return self._bare({spec.name: to_model(named[spec.name], spec) for spec in self._specs})
