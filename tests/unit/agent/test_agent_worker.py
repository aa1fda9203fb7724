"""The agent's verbs on a small session of numpy's own, in this process."""

from __future__ import annotations

import sys
import types
import weakref
from array import array

import numpy as np
import pytest

from pytest_mlbench.agent import counters, timing, worker
from pytest_mlbench.agent.api import Node, Placement, TensorSpec
from pytest_mlbench.agent.samples import Refused
from pytest_mlbench.agent.worker import Worker

WEIGHTS = np.array([[1.0, -1.0], [0.5, 0.25], [2.0, 0.0]], np.float32)
ROWS = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)


class FakeSession:
    """Computes x @ w and writes down what was asked, clock readings among it."""

    def __init__(self, options):
        self.options = options
        self.events: list[str] = []
        self.alive: list[weakref.ref] = []
        self.closed = False
        batch = options.get("fixed", -1)
        self.inputs = [TensorSpec("x", "float32", (batch, 3) if batch else (3,))]
        scale = options.get("scale")
        self.outputs = [TensorSpec("y", "int8" if scale else "float32", (-1, 2), scale, options.get("zero_point", 0))]

    def bind(self, inputs):
        self.events.append("bind")
        assert inputs["x"].dtype == np.float32
        assert inputs["x"].flags.c_contiguous
        self._x = weakref.ref(inputs["x"])  # like a framework that reads the array in place, and does not own it
        self.seen = getattr(self, "seen", [])
        self.seen.append(inputs["x"].copy())

    def invoke(self):
        self.events.append("invoke")
        x = self._x()
        assert x is not None, "the bound array is gone"
        self._y = x @ WEIGHTS

    def fetch(self):
        self.events.append("fetch")
        if self.options.get("flat"):
            return {"y": self._y.sum(axis=0)}
        scale = self.options.get("scale")
        return {"y": np.rint(self._y / scale).astype(np.int8) if scale else self._y.copy()}

    def placement(self):
        return Placement("fake", (Node("m", "MatMul", "cpu", "fp32", True),), notes={"tuning": "none"})

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def adapter(monkeypatch):
    """The fake as a framework's adapter, which the agent imports by name."""
    made = types.ModuleType("fake_adapter")
    made.sessions = []
    made.versions = lambda: {"fake": "1.0"}
    made.prepare = lambda path, out_dir, options: f"{out_dir}/{path}.{options['level']}"

    def load(path, options):
        if path == "missing":
            raise FileNotFoundError(path)
        made.sessions.append(FakeSession(options))
        return made.sessions[-1]

    made.load = load
    monkeypatch.setitem(sys.modules, "fake_adapter", made)
    return made


def made(adapter, *, boundary="invoke", batch=1, rows=ROWS, steps=(), seed=0, **options):
    """Return a worker with a loaded model and fitted samples, and its session."""
    one = Worker(None)
    one.receive("x", rows.dtype.str, list(rows.shape), rows.tobytes(), True)
    one.steps(list(steps), {})
    one.load("fake_adapter", "json", "model", options)
    one.fit(batch, boundary, seed)
    return one, adapter.sessions[-1]


def fetched(one, described):
    parts = {}
    for name, facts in described.items():
        total = int(np.prod(facts["shape"])) * np.dtype(facts["dtype"]).itemsize
        data = b"".join(one.fetch_outputs(name, offset) for offset in range(0, total, worker.CHUNK_BYTES))
        parts[name] = np.frombuffer(data, facts["dtype"]).reshape(facts["shape"])
    return parts


# --- loading ------------------------------------------------------------------------------------------------


def test_load_tells_times_tensors_and_versions(adapter):
    one = Worker(None)
    found = one.load("fake_adapter", "json", "model", {"level": 3})
    assert adapter.sessions[-1].options == {"level": 3}
    assert found["import_ns"] >= 0
    assert found["load_ns"] > 0
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": (-1, 3), "scale": None, "zero_point": 0}]
    assert found["outputs"][0]["name"] == "y"
    assert found["versions"] == {"fake": "1.0", "numpy": np.__version__}


def test_before_a_model_is_loaded_its_verbs_are_refused():
    for verb in (Worker(None).placement, lambda: Worker(None).fit(1, "invoke", 0)):
        with pytest.raises(Refused, match="no model is loaded"):
            verb()


def test_prepare_gives_what_the_adapter_made():
    assert Worker(None).prepare("fake_adapter", "net.onnx", "/tmp/out", {"level": 2}) == "/tmp/out/net.onnx.2"


def test_close_frees_the_model_and_may_be_called_again(adapter):
    one, session = made(adapter)
    one.close()
    one.close()
    assert session.closed
    Worker(None).close()


def test_placement_is_made_of_plain_values(adapter):
    one, _ = made(adapter)
    assert one.placement() == {
        "source": "fake",
        "nodes": [{"name": "m", "op": "MatMul", "where": "cpu", "precision": "fp32", "compute": True}],
        "reason": "",
        "notes": {"tuning": "none"},
    }


# --- what each boundary includes ----------------------------------------------------------------------------


@pytest.fixture
def clocked(adapter, monkeypatch):
    """Write clock readings into the session's events."""

    def start(**options):
        one, session = made(adapter, **options)

        def clock():
            session.events.append("clock")
            return len(session.events)

        monkeypatch.setattr(timing, "clock", clock)
        return one, session

    return start


EXPECTED = {
    "invoke": ["bind", "clock", "invoke", "clock"],
    "set_invoke_get": ["clock", "bind", "invoke", "fetch", "clock"],
    "end_to_end": ["clock", "pre", "bind", "invoke", "fetch", "post", "clock"],
}


@pytest.mark.parametrize("boundary", EXPECTED)
def test_a_boundary_includes_what_it_says(clocked, boundary):
    one, session = clocked(boundary=boundary)
    one._samples.pre = lambda batch: (session.events.append("pre"), batch)[1]
    one._post = lambda batch: (session.events.append("post"), batch)[1]
    one.block(first=0, calls=1, min_ns=0, min_samples=1, max_samples=1)
    events = session.events[1:-1]  # the block's own begin and end
    expected = EXPECTED[boundary]
    assert events == (expected if boundary != "invoke" else [*expected, "fetch"])


@pytest.mark.parametrize("boundary", EXPECTED)
def test_each_of_several_calls_in_a_sample_is_whole(clocked, boundary):
    one, session = clocked(boundary=boundary)
    one.block(first=0, calls=3, min_ns=0, min_samples=2, max_samples=2)
    inside = {"invoke": 1, "set_invoke_get": 3, "end_to_end": 3}[boundary]
    assert session.events.count("invoke") == 6
    assert session.events.count("bind") == 2 * inside
    assert session.events.count("fetch") == 2 * inside


def test_the_first_call_is_timed_alone(clocked):
    one, session = clocked()
    one.first()
    assert session.events == ["bind", "clock", "invoke", "clock"]


@pytest.mark.parametrize("boundary", EXPECTED)
def test_every_boundary_computes_the_same(adapter, boundary):
    one, _ = made(adapter, boundary=boundary, batch=2, steps=[{"scale": 2.0}])
    one.keep_timed(True)
    one.block(first=0, calls=2, min_ns=0, min_samples=4, max_samples=4)
    kept = one.timed_outputs()
    found = fetched(one, kept["outputs"])["y"]
    np.testing.assert_allclose(found, (ROWS[kept["ids"]] * 2) @ WEIGHTS, rtol=1e-6)


def test_a_block_goes_on_in_the_seeded_order_or_repeats_one_sample(adapter):
    one, session = made(adapter)
    first = one.block(first=0, calls=1, min_ns=0, min_samples=4, max_samples=4)
    second = one.block(first=first["next"], calls=1, min_ns=0, min_samples=3, max_samples=3)
    seen = np.concatenate(session.seen)
    assert {row.tobytes() for row in seen} == {row.tobytes() for row in ROWS}
    assert second["next"] == 7
    session.seen.clear()
    one.block(first=3, calls=1, min_ns=0, min_samples=5, max_samples=5, repeat_sample=True)
    assert len({row.tobytes() for row in session.seen}) == 1


def test_a_block_tells_its_own_processor_use(adapter):
    one, _ = made(adapter)
    found = one.block(first=0, calls=1, min_ns=30_000_000, min_samples=1, max_samples=1 << 30)
    assert set(found["used"]) == set(counters.usage())
    assert 0 < found["used"]["user_ns"] + found["used"]["system_ns"] < 2_000_000_000
    assert len(array("q", found["samples"])) == found["next"]


# --- bound arrays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", EXPECTED)
def test_the_bound_array_lives_until_the_next_bind(adapter, boundary):
    """The fake holds its input weakly, as a framework that reads it in place: a lost array fails in invoke()."""
    one, session = made(adapter, boundary=boundary)
    for number in range(4):
        one.block(first=number, calls=1, min_ns=0, min_samples=1, max_samples=1)
        session.invoke()  # nothing of the block is on the stack any more
    one.run_outputs()
    session.invoke()


def test_an_earlier_bound_array_is_let_go(adapter):
    one, session = made(adapter)
    one.first()
    earlier = session._x
    assert earlier() is not None
    one.run_outputs()
    assert earlier() is None


# --- outputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_outputs_come_in_the_order_of_the_samples(adapter, batch):
    one, session = made(adapter, batch=batch)
    found = fetched(one, one.run_outputs())["y"]
    np.testing.assert_allclose(found, ROWS @ WEIGHTS, rtol=1e-6)
    assert session.events.count("invoke") == -(-7 // batch)


def test_the_last_batch_is_filled_with_the_last_sample(adapter):
    one, session = made(adapter, batch=4)
    one.run_outputs()
    np.testing.assert_array_equal(session.seen[-1], ROWS[[4, 5, 6, 6]])


def test_outputs_are_real_numbers(adapter):
    one, _ = made(adapter, scale=0.25, zero_point=3)
    found = fetched(one, one.run_outputs())["y"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (np.rint(ROWS @ WEIGHTS / 0.25) - 3) * 0.25)


def test_outputs_of_an_unbatched_model_have_the_samples_first(adapter):
    one, _ = made(adapter, fixed=0)
    found = fetched(one, one.run_outputs())["y"]
    assert found.shape == (7, 2)
    np.testing.assert_allclose(found, ROWS @ WEIGHTS, rtol=1e-6)


def test_postprocessing_may_rename_and_reshape(adapter):
    one, _ = made(adapter, batch=2)
    one._post = lambda batch: {"best": batch["y"].argmax(axis=1)}
    np.testing.assert_array_equal(fetched(one, one.run_outputs())["best"], (ROWS @ WEIGHTS).argmax(axis=1))


def test_an_output_without_the_samples_first_is_refused(adapter):
    one, _ = made(adapter, batch=3, flat=True)
    message = r"output 'y' has shape \[2\] for a batch of 3: its first dimension must be the samples"
    with pytest.raises(Refused, match=message):
        one.run_outputs()


def test_large_outputs_are_fetched_in_pieces(adapter, monkeypatch):
    monkeypatch.setattr(worker, "CHUNK_BYTES", 10)  # no multiple of an element
    one, _ = made(adapter)
    described = one.run_outputs()
    assert described == {"y": {"dtype": "<f4", "shape": [7, 2]}}
    assert len(one.fetch_outputs("y", 0)) == 10
    np.testing.assert_allclose(fetched(one, described)["y"], ROWS @ WEIGHTS, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_of_the_timed_pass_equal_those_of_the_accuracy_pass(adapter, batch):
    one, _ = made(adapter, batch=batch, seed=5)
    one.keep_timed(True)
    one.block(first=0, calls=1, min_ns=0, min_samples=3, max_samples=3)
    kept = one.timed_outputs()
    timed = fetched(one, kept["outputs"])["y"]
    every = fetched(one, one.run_outputs())["y"]
    assert kept["ids"] == sorted(kept["ids"])
    assert len(kept["ids"]) == min(7, 3 * batch)
    np.testing.assert_array_equal(timed, every[kept["ids"]])


def test_timed_outputs_are_not_kept_unasked_nor_without_end(adapter, monkeypatch):
    one, _ = made(adapter)
    one.block(first=0, calls=1, min_ns=0, min_samples=3, max_samples=3)
    assert one.timed_outputs() == {"ids": [], "outputs": {}}
    monkeypatch.setattr(worker, "KEPT_TIMED_OUTPUTS", 2)
    one.keep_timed(True)
    one.block(first=0, calls=1, min_ns=0, min_samples=3, max_samples=3, repeat_sample=True)
    assert one.timed_outputs()["ids"] == []
    one.block(first=0, calls=1, min_ns=0, min_samples=6, max_samples=6)
    assert len(one.timed_outputs()["ids"]) == 2


# --- warm-up ------------------------------------------------------------------------------------------------


def test_the_warm_up_makes_the_calls_it_is_asked_for(adapter):
    one, session = made(adapter)
    found = one.warm_up(0.0, 9)
    assert found["samples"] == 9 == session.events.count("invoke")
    found = one.warm_up(0.02, 1)
    assert found["duration_ns"] >= 20_000_000
    assert found["calls"] == timing.calls_per_sample(found["call_ns"], found["clock_ns"])


def test_a_warm_up_of_nothing_still_calibrates(adapter):
    one, _ = made(adapter)
    found = one.warm_up(0.0, 0)
    assert found["calls"] >= 1
    assert np.isfinite(found["call_ns"])


def test_the_warm_up_calibrates_on_its_second_half(adapter, monkeypatch):
    """The first calls of a model are slower: they would make samples too short."""
    one, _ = made(adapter)
    times = iter([90_000] * 6 + [1_000] * 3)  # slow: most of all, and less than half of the second half
    monkeypatch.setattr(timing, "time_call", lambda call: next(times))
    monkeypatch.setattr(timing, "clock_cost_ns", lambda: 40.0)
    assert one.warm_up(0.0, 9)["call_ns"] == 960


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_baseline_starts_the_peak_anew():
    one = Worker(None)
    block = np.ones(64 << 20, np.uint8)
    del block
    before = one.baseline()
    if not before["reset"]:
        pytest.skip("this kernel does not reset the peak")
    assert before["peak_bytes"] < before["rss_bytes"] + (16 << 20)
    block = np.ones(48 << 20, np.uint8)
    after = one.counters()["memory"]
    assert (40 << 20) < after["peak_bytes"] - before["rss_bytes"] < (64 << 20)
    del block


def test_counters_tell_the_memory_of_generated_samples(adapter):
    one = Worker(None)
    one.steps([], {})
    one.load("fake_adapter", "json", "model", {})
    assert one.counters()["generated_bytes"] == 0
    one.generate("normal", 2_000, 0, {}, 2, 1)
    assert one.counters()["generated_bytes"] == 2_000 * 3 * 4  # raw and prepared are one array
    one.steps([{"scale": 2.0}], {})
    one.generate("normal", 2_000, 0, {}, 2, 1)
    assert one.counters()["generated_bytes"] == 2 * 2_000 * 3 * 4


def test_who_the_agent_is():
    import os
    import platform

    found = Worker(None).hello()
    assert found["pid"] == os.getpid()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["executable"] == sys.executable
    assert 0 < found["clock_resolution_ns"] <= 1000
    assert all(isinstance(value, (str, int, float)) for value in found.values())


# --- building -----------------------------------------------------------------------------------------------


def test_a_model_is_built_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_nets.py").write_text(
        "from pathlib import Path\n"
        "def net(path, seed):\n    Path(path).write_text(str(seed))\n    if seed == 13: raise OSError('half')\n",
        encoding="utf-8",
    )
    one = Worker(None)
    origin = one.build("own_nets:net", [str(tmp_path)], str(tmp_path / "net.onnx"), 4)
    assert (tmp_path / "net.onnx").read_text() == "4"
    assert origin["file"] == str(tmp_path / "own_nets.py")
    with pytest.raises(OSError, match="half"):
        one.build("own_nets:net", [str(tmp_path)], str(tmp_path / "other.onnx"), 13)
    assert not (tmp_path / "other.onnx").exists()
    sys.modules.pop("own_nets")
