"""What an agent can be asked: each public method is a verb; arguments and results are plain values and bytes."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import counters, timing
from .api import Session, TensorSpec
from .preprocess import Array, Batch, Function, apply_steps, digest, from_model, generate, load_function, to_model

CHUNK_BYTES = 4 << 20  # one message; a reply is awaited before the next is sent
KEPT_TIMED_OUTPUTS = 64  # inputs whose outputs of the timed pass are kept for comparison


class Refused(Exception):
    """The request cannot be met because the suite's data, model and batch do not fit together."""


class Worker:
    """One model in one framework, and the samples it is given. State lives as long as the process."""

    def __init__(self, lock_file: str | None) -> None:
        self._lock = open(lock_file, "a") if lock_file else None  # noqa: PTH123 - held until the end
        if self._lock is not None:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._raw: Batch = {}
        self._received: dict[str, list[bytes]] = {}
        self._prepared: Batch = {}
        self._bound: Batch = {}
        self._session: Session | None = None
        self._specs: dict[str, TensorSpec] = {}
        self._steps: Sequence[Mapping[str, Any]] = ()
        self._pre: Function | None = None
        self._post: Function | None = None
        self._mapping: dict[str, str] = {}
        self._batch = 1
        self._batched = True
        self._samples = 0
        self._order: Array = np.zeros(0, dtype=np.int64)
        self._outputs: dict[str, Array] = {}
        self._timed: dict[int, Batch] = {}
        self._keep_timed = False
        self._boundary = "invoke"
        self._baseline: dict[str, int] = {}
        self._generated_bytes = 0
        self._peak_reset = False

    # --- start -----------------------------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """Say who and where this is."""
        return {
            "pid": os.getpid(),
            "python": platform.python_version(),
            "executable": sys.executable,
            "numpy": np.__version__,
            "machine": platform.machine(),
            "system": platform.system(),
            "release": platform.release(),
            "node": platform.node(),
            "clock": time.get_clock_info("perf_counter").implementation,
            "clock_resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
        }

    def receive(self, name: str, dtype: str, shape: list[int], data: bytes, done: bool) -> int:
        """Take one chunk of a data set's array; the last one completes it."""
        parts = self._received.setdefault(name, [])
        parts.append(data)
        if done:
            self._raw[name] = np.frombuffer(b"".join(parts), dtype=np.dtype(dtype)).reshape(shape)
            del self._received[name]
            self._samples = int(shape[0])
        return len(data)

    def functions(self, pre: str | None, post: str | None, paths: list[str]) -> dict[str, Any]:
        """Import the user's own pre- and post-processing; returns where each came from."""
        origins: dict[str, Any] = {}
        if pre is not None:
            self._pre, origins["preprocess"] = load_function(pre, paths)
        if post is not None:
            self._post, origins["postprocess"] = load_function(post, paths)
        return origins

    def steps(self, steps: list[dict[str, Any]], mapping: dict[str, str]) -> dict[str, Any]:
        """Set how samples are prepared and prepare all of them; returns the shape of one sample by name."""
        self._steps, self._mapping = steps, mapping
        self._prepared = self._prepare(self._raw)
        return {name: list(array.shape[1:]) for name, array in self._prepared.items()}

    def _prepare(self, raw: Batch) -> Batch:
        batch = {name: apply_steps(array, self._steps) for name, array in raw.items()}
        return self._pre(batch) if self._pre is not None else batch

    # --- model -----------------------------------------------------------------------------------------

    def prepare(self, adapter: str, path: str, out_dir: str, options: dict[str, Any]) -> str:
        """Compile or convert a model; returns the path of what load() takes."""
        return str(importlib.import_module(adapter).prepare(path, out_dir, options))

    def build(self, reference: str, paths: list[str], out: str, seed: int) -> dict[str, str]:
        """Let the suite's own function write its model; returns where the function came from."""
        function, origin = load_function(reference, paths)
        function(out + ".part", seed)
        Path(out + ".part").replace(out)
        return origin

    def versions(self, adapter: str) -> dict[str, str]:
        """Return the versions of the framework and of what it stands on."""
        return {**importlib.import_module(adapter).versions(), "numpy": np.__version__}

    def baseline(self) -> dict[str, Any]:
        """Mark the memory in use before the framework is imported."""
        self._peak_reset = counters.reset_peak()
        self._baseline = counters.memory()
        return {**self._baseline, "reset": self._peak_reset}

    def load(self, adapter: str, framework: str, path: str, options: dict[str, Any]) -> dict[str, Any]:
        """Import the framework and load the model; returns both times, tensors and versions."""
        module = importlib.import_module(adapter)
        begin = timing.clock()
        importlib.import_module(framework)
        imported = timing.clock()
        self._session = module.load(path, options)
        loaded = timing.clock()
        self._specs = {spec.name: spec for spec in self._session.outputs}
        return {
            "import_ns": imported - begin,
            "load_ns": loaded - imported,
            "inputs": [vars(spec) for spec in self._session.inputs],
            "outputs": [vars(spec) for spec in self._session.outputs],
            "versions": self.versions(adapter),
            "memory": counters.memory(),
        }

    def generate(self, kind: str, count: int, seed: int, shapes: dict[str, list[int]], high: int) -> None:
        """Make random samples of the loaded model's own input shapes."""
        before = counters.memory().get("rss_bytes", 0)
        try:
            self._raw = generate(self._model.inputs, kind, count, seed, shapes, high)
        except ValueError as error:
            raise Refused(str(error)) from None
        self._samples = count
        self._prepared = self._prepare(self._raw)
        self._generated_bytes = max(0, counters.memory().get("rss_bytes", 0) - before)

    def fit(self, batch: int, boundary: str, seed: int) -> dict[str, Any]:
        """Match samples with the model's inputs; returns the digest of the prepared tensors and the order's seed.

        Raises Refused, with both sides' names and shapes, when they do not fit.
        """
        self._batch, self._boundary = batch, boundary
        if batch > self._samples:
            raise Refused(f"batch {batch} needs at least as many samples; the data set has {self._samples}")
        named = self._by_input(self._prepared)
        self._batched = all(self._check(spec, named[spec.name]) for spec in self._model.inputs)
        if not self._batched and batch != 1:
            raise Refused(
                f"the model has no batch dimension, so batch {batch} cannot be run; remove it from the suite"
            )
        found = digest(named)
        self._prepared = {spec.name: self._convert(spec, named[spec.name]) for spec in self._model.inputs}
        self._order = np.random.default_rng(seed).permutation(self._samples)
        return {"digest": found, "samples": self._samples, "batched": self._batched}

    def _by_input(self, arrays: Batch) -> Batch:
        names = [spec.name for spec in self._model.inputs]
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

    def _check(self, spec: TensorSpec, array: Array) -> bool:
        """Tell whether the input has a batch dimension before a sample's shape; Refused when nothing fits."""
        sample = array.shape[1:]

        def fits(shape: Sequence[int]) -> bool:
            if len(shape) != len(sample):
                return False
            return all(want in (-1, have) for want, have in zip(shape, sample))  # noqa: B905 - Python 3.9

        if len(spec.shape) == len(sample) + 1 and fits(spec.shape[1:]):
            if spec.shape[0] not in (-1, self._batch) and self._session_fixed(spec):
                raise Refused(
                    f"model input {spec.name!r} has a fixed batch of {spec.shape[0]}, the case asks for {self._batch}: "
                    f"export the model with a free batch dimension or set batch = [{spec.shape[0]}]"
                )
            return True
        if fits(spec.shape):
            return False
        raise Refused(
            f"model input {spec.name!r} takes {list(spec.shape)} {spec.dtype}, one prepared sample is "
            f"{list(sample)} {array.dtype}: change `preprocess` (reshape, transpose) or the data set"
        )

    def _session_fixed(self, spec: TensorSpec) -> bool:
        """Tell whether the framework really refuses another batch (LiteRT resizes what reads as fixed)."""
        assert self._session is not None
        batch = {
            other.name: np.zeros(
                (self._batch, *(max(1, size) for size in other.shape[1:])), dtype=other.dtype
            )
            for other in self._session.inputs
        }
        try:
            self._session.bind(batch)
            self._session.invoke()
        except Exception:
            return True
        return False

    def _convert(self, spec: TensorSpec, array: Array) -> Array:
        try:
            return to_model(array, spec)
        except TypeError as error:
            raise Refused(f"{error}: change `preprocess` (cast) or the data set") from None

    # --- calls -----------------------------------------------------------------------------------------

    @property
    def _model(self) -> Session:
        if self._session is None:
            raise Refused("no model is loaded")
        return self._session

    def _bind(self, inputs: Batch) -> None:
        """Bind, and keep the arrays until the next time: a framework may read them in place."""
        self._bound = inputs
        self._model.bind(inputs)

    def _slice(self, arrays: Batch, indices: Array) -> Batch:
        if not self._batched:
            return {name: array[indices[0]] for name, array in arrays.items()}
        return {name: np.ascontiguousarray(array[indices]) for name, array in arrays.items()}

    def _results(self, fetched: Batch) -> Batch:
        """Return outputs as real numbers with the samples first, post-processed."""
        real = {name: from_model(array, self._specs[name]) for name, array in fetched.items()}
        if not self._batched:
            real = {name: array[None] for name, array in real.items()}
        return self._post(real) if self._post is not None else real

    def first(self) -> int:
        """Run the first inference; returns its nanoseconds."""
        self._bind(self._slice(self._prepared, self._indices(0)))
        return timing.time_call(self._model.invoke)

    def _indices(self, number: int) -> Array:
        """Return the samples of call `number`: the seeded order, taken round and round."""
        start = number * self._batch
        return self._order.take(range(start, start + self._batch), mode="wrap")

    def _call(
        self, boundary: str, indices: Array
    ) -> tuple[Callable[[], Any], Callable[[], Batch]]:
        """Bind a call's input; returns what to time and what gives its outputs afterwards."""
        model = self._model
        if boundary == "invoke":
            self._bind(self._slice(self._prepared, indices))
            return model.invoke, model.fetch
        kept: list[Batch] = []
        if boundary == "set_invoke_get":
            inputs = self._slice(self._prepared, indices)

            def through() -> None:
                model.bind(inputs)
                model.invoke()
                kept[:] = [model.fetch()]

            return through, lambda: kept[0]
        raw = (
            self._slice(self._raw, indices)
            if self._batched
            else {n: a[indices] for n, a in self._raw.items()}
        )
        specs = model.inputs

        def end_to_end() -> None:
            named = self._by_input(self._prepare(raw))
            bound = {spec.name: to_model(named[spec.name], spec) for spec in specs}
            model.bind(bound if self._batched else {name: array[0] for name, array in bound.items()})
            model.invoke()
            kept[:] = [model.fetch()]
            self._results(kept[0])

        return end_to_end, lambda: kept[0]

    def run_outputs(self, batch: int | None, count: int | None) -> dict[str, Any]:
        """Run every sample once, in order (`count`: the first ones); keeps the outputs for fetch_outputs().

        The last batch is filled up with its own last sample, whose extra outputs are dropped.
        """
        batch = batch or self._batch
        total = min(self._samples, count or self._samples)
        parts: dict[str, list[Array]] = {}
        for start in range(0, total, batch):
            wanted = np.minimum(np.arange(start, start + batch), total - 1)
            self._bind(self._slice(self._prepared, wanted))
            self._model.invoke()
            for name, array in self._results(self._model.fetch()).items():
                if array.shape[:1] != (batch,):
                    raise Refused(
                        f"output {name!r} has shape {list(array.shape)} for a batch of {batch}: its first dimension "
                        "must be the samples; a `postprocess` function can put it there"
                    )
                parts.setdefault(name, []).append(array[: total - start])
        self._outputs = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        return self._described()

    def _described(self) -> dict[str, Any]:
        self._outputs = {name: np.ascontiguousarray(array) for name, array in self._outputs.items()}
        return {name: {"dtype": a.dtype.str, "shape": list(a.shape)} for name, a in self._outputs.items()}

    def fetch_outputs(self, name: str, offset: int) -> bytes:
        """Return at most CHUNK_BYTES of a kept output, from `offset`."""
        flat = self._outputs[name].reshape(-1).view(np.uint8)
        return flat[offset : offset + CHUNK_BYTES].tobytes()

    # --- timing ----------------------------------------------------------------------------------------

    def warm_up(self, min_s: float, min_samples: int) -> dict[str, Any]:
        """Run calls that are not measured, then find how many calls make a sample."""
        begin, number, taken = timing.clock(), 0, []
        while number < min_samples or timing.clock() - begin < min_s * 1e9:
            call, _ = self._call(self._boundary, self._indices(number))
            taken.append(timing.time_call(call))
            number += 1
        clock_ns = timing.clock_cost_ns()
        call_ns = float(np.median(taken[len(taken) // 2 :])) - clock_ns
        return {
            "samples": number,
            "duration_ns": timing.clock() - begin,
            "clock_ns": clock_ns,
            "call_ns": call_ns,
            "calls": timing.calls_per_sample(call_ns, clock_ns),
        }

    def block(
        self,
        first: int,
        calls: int,
        min_ns: int,
        min_samples: int,
        max_samples: int,
        repeat_sample: bool = False,
    ) -> dict[str, Any]:
        """Time one block of samples from call number `first` on; `repeat_sample` binds the same input each time."""

        def sample(number: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
            indices = self._indices(0 if repeat_sample else number)
            call, outputs = self._call(self._boundary, indices)
            if self._keep_timed and not repeat_sample and len(self._timed) < KEPT_TIMED_OUTPUTS:
                return call, lambda: self._keep(indices, outputs())
            return call, outputs

        before = counters.usage()
        result = timing.run_block(sample, first, calls, min_ns, min_samples, max_samples)
        after = counters.usage()
        result["used"] = {name: after[name] - before[name] for name in after}
        return result

    def keep_timed(self, keep: bool) -> None:
        """Keep the outputs of the first timed calls, for comparison with the accuracy pass."""
        self._keep_timed = keep

    def _keep(self, indices: Array, fetched: Batch) -> None:
        for name, array in self._results(fetched).items():
            for position, index in enumerate(indices):
                self._timed.setdefault(int(index), {}).setdefault(name, array[position])

    def timed_outputs(self) -> dict[str, Any]:
        """Make the kept outputs of the timed pass the ones fetch_outputs() gives; returns their sample numbers."""
        ids = sorted(self._timed)
        names = self._timed[ids[0]] if ids else {}
        self._outputs = {name: np.stack([self._timed[index][name] for index in ids]) for name in names}
        return {"ids": ids, "outputs": self._described()}

    # --- facts -----------------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """Return memory and processor use so far."""
        return {
            "memory": counters.memory(),
            "used": counters.usage(),
            "peak_reset": self._peak_reset,
            "generated_bytes": self._generated_bytes,
        }

    def placement(self) -> dict[str, Any]:
        """Return what ran where and in which precision."""
        found = self._model.placement()
        return {
            "source": found.source,
            "nodes": [vars(node) for node in found.nodes],
            "reason": found.reason,
            "notes": dict(found.notes),
        }

    def close(self) -> None:
        """Free the model."""
        if self._session is not None:
            self._session.close()
            self._session = None
