"""What an agent can be asked: each public method is a verb; arguments and results are plain values and bytes."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import counters, timing
from .api import Session, TargetClock, TensorSpec
from .preprocess import Array, Batch, Function, check_given, from_model, load_function
from .samples import Refused, Samples

CHUNK_BYTES = 4 << 20  # one message; a reply is awaited before the next is sent
MOST_OF_SAMPLE_NS = 200e6  # how long a sample may get here to be long for the clock of a target
KEPT_TIMED_OUTPUTS = 64  # inputs whose outputs of the timed pass are kept for comparison


class Worker:
    """One model in one framework, and the samples it is given. State lives as long as the process."""

    def __init__(self, lock_file: str | None, further_locks: Sequence[str] = ()) -> None:
        files = [name for name in (lock_file, *further_locks) if name]
        self._locks = [open(name, "rb") for name in files]  # noqa: PTH123 - held until the end
        for stream in self._locks:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_SH)
        self._samples = Samples()
        self._bound: Batch = {}
        self._session: Session | None = None
        self._specs: dict[str, TensorSpec] = {}
        self._post: Function | None = None
        self._outputs: Batch = {}
        self._timed: dict[int, Batch] = {}
        self._keep_timed = False
        self._boundary = "invoke"
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
        self._samples.receive(name, dtype, shape, data, done)
        return len(data)

    def functions(self, pre: str | None, post: str | None, paths: list[str]) -> dict[str, Any]:
        """Import the user's own pre- and post-processing; returns where each came from."""
        origins: dict[str, Any] = {}
        if pre is not None:
            self._samples.pre, origins["preprocess"] = load_function(pre, paths)
        if post is not None:
            self._post, origins["postprocess"] = load_function(post, paths)
        return origins

    def steps(self, steps: list[dict[str, Any]], mapping: dict[str, str]) -> None:
        """Set how samples are prepared and prepare those that have been received."""
        self._samples.prepare(steps, mapping)

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

    def sources(self, names: list[str]) -> dict[str, str]:
        """Return the files of the loaded modules that are no installed ones, or whose first name is in `names`."""
        keys = ("stdlib", "platstdlib", "purelib", "platlib")
        installed = tuple(sysconfig.get_path(key) + os.sep for key in keys)
        found: dict[str, str] = {}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            first = name.partition(".")[0]
            if not file.endswith(".py") or first in ("mlbench_agent", "mlbench_adapters"):
                continue
            if first in names or not file.startswith(installed):
                found[name] = file
        return found

    def versions(self, adapter: str) -> dict[str, str]:
        """Return the versions of the framework and of what it stands on."""
        return {**importlib.import_module(adapter).versions(), "numpy": np.__version__}

    def baseline(self) -> dict[str, Any]:
        """Mark the memory in use before the framework is imported."""
        self._peak_reset = counters.reset_peak()
        return {**counters.memory(), "reset": self._peak_reset}

    def load(self, adapter: str, framework: str, path: str, options: dict[str, Any]) -> dict[str, Any]:
        """Import the framework and load the model; returns both times, tensors and versions."""
        module = importlib.import_module(adapter)
        begin = timing.clock()
        importlib.import_module(framework)
        imported = timing.clock()
        self._session = module.load(path, options)
        loaded = timing.clock()
        self._specs = {spec.name: spec for spec in self._session.outputs}
        stages_ns = dict(getattr(self._session, "stages_ns", {}))
        own = self._own_clock
        return {
            "import_ns": imported - begin,
            "load_ns": loaded - imported - sum(stages_ns.values()),
            "stages_ns": stages_ns,
            "clock": vars(own) if own is not None else {},
            "inputs": [vars(spec) for spec in self._session.inputs],
            "outputs": [vars(spec) for spec in self._session.outputs],
            "versions": self.versions(adapter),
            "memory": counters.memory(),
        }

    def generate(self, kind: str, count: int, seed: int, shapes: dict[str, list[int]], high: int, batch: int) -> None:
        """Make random samples of the loaded model's own input shapes, prepared by the steps set before."""
        self._samples.batch = batch
        self._samples.generate(self._model.inputs, kind, count, seed, shapes, high)
        self._generated_bytes = self._samples.nbytes

    def fit(self, batch: int, boundary: str, seed: int) -> dict[str, Any]:
        """Match samples with the model's inputs; returns the digest of the prepared tensors and what was matched."""
        if self._own_clock is not None and boundary != "invoke":
            raise Refused(
                f"the boundary {boundary} cannot be timed by {self._own_clock.name}, which sees the inference alone: "
                'set boundary = "invoke"'
            )
        self._boundary = boundary
        found = self._samples.fit(self._model.inputs, batch, seed)
        return {"digest": found, "samples": self._samples.count, "batched": self._samples.batched}

    # --- calls -----------------------------------------------------------------------------------------

    @property
    def _model(self) -> Session:
        if self._session is None:
            raise Refused("no model is loaded")
        return self._session

    @property
    def _own_clock(self) -> TargetClock | None:
        """Return the target's own clock where it has one; its calls are not timed by this process."""
        found = getattr(self._session, "clock", None)
        return found if isinstance(found, TargetClock) else None

    def _by_own_clock(self, calls: int) -> int:
        session: Any = self._model
        own = self._own_clock
        if own is not None and own.reason:
            raise Refused(own.reason)
        return int(session.time_calls(calls))

    def _bind(self, inputs: Batch) -> None:
        """Bind, and keep the arrays until the next time: a framework may read them in place."""
        self._bound = inputs
        self._model.bind(inputs)

    def _results(self, fetched: Batch) -> Batch:
        """Return outputs as real numbers with the samples first, post-processed."""
        real = {name: from_model(array, self._specs[name]) for name, array in fetched.items()}
        if not self._samples.batched:
            real = {name: array[None] for name, array in real.items()}
        return self._post(real) if self._post is not None else real

    def first(self) -> int | None:
        """Run the first inference; returns its nanoseconds, None where the target's own clock cannot time it."""
        self._bind(self._samples.inputs(self._samples.indices(0)))
        own = self._own_clock
        if own is None:
            return timing.time_call(self._model.invoke)
        if own.reason:
            self._model.invoke()
            return None
        return self._by_own_clock(1)

    def _call(self, boundary: str, indices: Array) -> tuple[Callable[[], Any], Callable[[], Batch]]:
        """Bind a call's input; returns what to time and what gives its outputs afterwards."""
        model = self._model
        if boundary == "invoke":
            self._bind(self._samples.inputs(indices))
            return model.invoke, model.fetch
        kept: list[Batch] = []
        if boundary == "set_invoke_get":
            inputs = self._samples.inputs(indices)

            def through() -> None:
                model.bind(inputs)
                self._bound = inputs
                model.invoke()
                kept[:] = [model.fetch()]

            return through, lambda: kept[0]
        raw = {name: array[indices] for name, array in self._samples.raw.items()}

        def end_to_end() -> None:
            inputs = self._samples.from_raw(raw)
            model.bind(inputs)
            self._bound = inputs
            model.invoke()
            kept[:] = [model.fetch()]
            self._results(kept[0])

        return end_to_end, lambda: kept[0]

    def run_outputs(self) -> dict[str, Any]:
        """Run every sample once, in order; keeps the outputs for fetch_outputs().

        The last batch is filled up with its own last sample, whose extra outputs are dropped.
        """
        batch, total = self._samples.batch, self._samples.count
        parts: dict[str, list[Array]] = {}
        for start in range(0, total, batch):
            wanted = np.minimum(np.arange(start, start + batch), total - 1)
            self._bind(self._samples.inputs(wanted))
            self._model.invoke()
            results = self._results(self._model.fetch())
            wrong = check_given(self._post, results) if self._post is not None else ""
            if wrong:
                raise Refused(f"{wrong}; correct the `postprocess` function")
            for name, array in results.items():
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
        """Run calls that are not measured, at least one, then find how many calls make a sample."""
        if self._own_clock is not None:
            return self._warm_up_by(self._own_clock, min_s, min_samples)
        begin, number, taken = timing.clock(), 0, []
        while number < max(1, min_samples) or timing.clock() - begin < min_s * 1e9:
            call, _ = self._call(self._boundary, self._samples.indices(number))
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

    def _warm_up_by(self, own: TargetClock, min_s: float, min_samples: int) -> dict[str, Any]:
        """Warm up a target that has a clock of its own, and find how many calls its ticks do not distort."""
        begin, number, taken = timing.clock(), 0, 0
        while number < max(1, min_samples) or timing.clock() - begin < min_s * 1e9:
            self._bind(self._samples.inputs(self._samples.indices(number)))
            taken = self._by_own_clock(1)
            number += 1
        calls, call_ns = 1, float(taken)
        if taken < timing.CLOCK_READINGS_PER_SAMPLE * own.tick_ns:
            calls, call_ns = timing.calibrated(self._by_own_clock, own.tick_ns, MOST_OF_SAMPLE_NS)
        return {
            "samples": number,
            "duration_ns": timing.clock() - begin,
            "clock_ns": float(own.tick_ns),
            "call_ns": call_ns,
            "calls": calls,
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
            indices = self._samples.indices(0 if repeat_sample else number)
            call, outputs = self._call(self._boundary, indices)
            if self._keep_timed and not repeat_sample and len(self._timed) < KEPT_TIMED_OUTPUTS:
                return call, lambda: self._keep(indices, outputs())
            return call, outputs

        own = self._by_own_clock if self._own_clock is not None else None
        before = counters.usage()
        result = timing.run_block(sample, first, calls, min_ns, min_samples, max_samples, own)
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
            "device_memory": dict(told()) if (told := getattr(self._session, "device_memory", None)) else {},
        }

    def facts(self) -> dict[str, Any]:
        """Return what the session knows of its target that this process does not."""
        told = getattr(self._session, "facts", None)
        return dict(told()) if told is not None else {}

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
