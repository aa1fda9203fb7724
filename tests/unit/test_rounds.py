"""Paired rounds of two real processes: their order, what they time, and whose failure is whose."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_mlbench import deploy, fitness, registry, rounds
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import InvalidCase, StageError, SuiteError
from pytest_mlbench.execute import Executor
from pytest_mlbench.matrix import Case
from pytest_mlbench.measure import AgentTarget
from pytest_mlbench.metrics import latency, memory, stages
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.provenance import Side
from pytest_mlbench.record import Metric
from pytest_mlbench.rounds import Pairing, Round, pairs
from pytest_mlbench.scenarios.api import BLOCK_NS, BLOCK_SAMPLES, WarmUp
from pytest_mlbench.spec import BenchmarkSpec, DatasetSpec, FrameworkSpec, ModelSpec, ScenarioSpec, SuiteSpec
from pytest_mlbench.stats.early_stopping import percentile

VENDOR = Path(__file__).parents[1] / "vendor"
SCENARIO = ScenarioSpec(warmup_s=0.0, warmup_samples=3)
BUILT_IN = {"latency": latency.measure, "memory": memory.measure, "stages": stages.measure}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the framework with faults sends POSIX signals")


@dataclass
class Seen:
    """What the processes did: (side, event) in order, and all that belongs to it."""

    side_of: dict[int, str] = field(default_factory=dict)
    started: list[tuple[str, int]] = field(default_factory=list)
    events: list[tuple[str, str, SimpleNamespace]] = field(default_factory=list)

    def of(self, kind):
        return [(side, what) for side, event, what in self.events if event == kind]

    def order(self, kind):
        return [side[0] for side, _ in self.of(kind)]


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """Note what is asked of the agents; their blocks are short, so that tests are."""
    for name in ("state", "cache"):
        monkeypatch.setenv(f"MLBENCH_{name.upper()}", str(tmp_path / name))
    monkeypatch.syspath_prepend(str(VENDOR))
    noted = Seen()

    class Watched(AgentTarget):
        def note(self, event, **what):
            noted.events.append((noted.side_of[self.agent.hello["pid"]], event, SimpleNamespace(**what)))

        def warm_up(self, min_s, min_samples):
            found = super().warm_up(min_s, min_samples)
            self.note("warm-up", min_s=min_s, min_samples=min_samples, found=found)
            return found

        def block(self, calls, *, max_samples, min_ns=BLOCK_NS, min_samples=BLOCK_SAMPLES, repeat_sample=False):
            given = {"max_samples": max_samples, "min_samples": min_samples, "repeat_sample": repeat_sample}
            found = super().block(calls, min_ns=min_ns // 25, **given)
            self.note("block", calls=calls, min_ns=min_ns, found=found, **given)
            return found

    monkeypatch.setattr(rounds, "AgentTarget", Watched)
    return noted


@pytest.fixture
def executor(seen, tmp_path):
    """Return a function that makes one side of a case, in a folder of its own."""

    class Noting(Executor):
        @contextlib.contextmanager
        def deployed(self):
            with super().deployed() as deployment:
                pid, name = deployment.agent.hello["pid"], self.case.suite.path.parent.name
                seen.side_of[pid] = name
                seen.started.append((name, pid))
                yield deployment

    def make(name, *, weights=((1.0, -1.0), (0.5, 0.25)), side=None, preprocess=None, dataset=None, **options):
        from mlbench_faulty import FRAMEWORK

        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        model = folder / "model.json"
        model.write_text(json.dumps({"weights": weights}), encoding="utf-8")
        suite = folder / "bench_x.toml"
        suite.touch()
        spec = ModelSpec("net", files={"faulty": {"fp32": model}})
        framework = FrameworkSpec("faulty", "faulty", options)
        benchmark = BenchmarkSpec(
            "b",
            ("net",),
            (framework,),
            ("fp32",),
            ("cpu",),
            timeout_s=20,
            preprocess=preprocess,
            dataset=dataset.name if dataset else None,
        )
        whole = SuiteSpec("x", suite, {"net": spec}, {dataset.name: dataset} if dataset else {}, (benchmark,))
        case = Case(whole, benchmark, spec, framework, "fp32", "cpu", 1, None, SCENARIO, "net-faulty-fp32-cpu")
        return Noting(Preparation(case, FRAMEWORK, Cpu(), side=side), registry.Registry())

    return make


@pytest.fixture
def pairing(executor):
    """Return a function that pairs two sides."""

    def make(base=None, candidate=None, *, metrics=("latency.p50",), functions=BUILT_IN, seed=1, **more):
        base, candidate = base or executor("base"), candidate or executor("candidate")
        planned = {"seconds": 100.0, "planned": 4, **more}
        return Pairing(base, candidate, metrics, functions, random.Random(seed), **planned)

    return make


def gone(pid, within_s=3.0):
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def began_by(seed):
    """Return a seed's first choice and the other side."""
    first = random.Random(seed).choice(("base", "candidate"))
    return first, ({"base", "candidate"} - {first}).pop()


# --- order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 0])
def test_blocks_are_timed_in_turn_and_the_side_that_begins_alternates(pairing, seen, seed):
    one, other = began_by(seed)
    taken = pairing(seed=seed).take(3, "screen")
    assert [each.first for each in taken] == [one, other, one]
    a, b = one[0], other[0]
    first, second = [a, b, b, a, a, b, b, a], [b, a, a, b, b, a, a, b]
    assert seen.order("block") == [*first, *second, *first]
    # Before each block the model's own data come back to the caches: one call that is not timed.
    short = [(side, what.min_samples) for side, what in seen.of("warm-up") if what.min_samples == 1]
    assert short == [(side, 1) for side, _ in seen.of("block")]
    assert [what.min_s for _, what in seen.of("warm-up")].count(0.0) == len(seen.of("warm-up"))


def test_the_seed_draws_which_side_begins():
    assert began_by(0) != began_by(1)  # so that the test above has seen both


def test_blocks_never_overlap(pairing, seen):
    pairing().take(1, "screen")
    bounds = [(what.found.begin_ns, what.found.end_ns) for _, what in seen.of("block")]
    assert bounds == sorted(bounds)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(bounds))


def test_each_round_is_a_fresh_process_of_each_side(pairing, seen):
    pairing(seed=1).take(2, "screen")
    one, other = began_by(1)
    assert [name for name, _ in seen.started] == [one, other, other, one]
    assert len({pid for _, pid in seen.started}) == 4
    assert all(gone(pid) for _, pid in seen.started)


def test_progress_is_told_of_each_round(pairing):
    told = []
    pairing(progress=lambda stage, share: told.append((stage, share)), blocks=2).take(2, "confirm")
    assert told == [("confirm", 0.0), ("confirm", 0.5)]


# --- what is timed --------------------------------------------------------------------------------------------------


def test_both_sides_take_the_same_number_of_calls_in_all_rounds(pairing, executor, seen):
    made = pairing(candidate=executor("candidate", spin_us=300))  # alone it would take one call a sample
    made.take(2, "screen")
    calls = {what.calls for _, what in seen.of("block")}
    assert calls == {made.calls}
    first = next(what.found for _, what in seen.of("warm-up"))
    assert made.calls == first.calls  # of whichever side was warmed up first


def test_a_block_is_75_ms_or_5_samples_whichever_is_longer(pairing, seen):
    pairing().take(1, "screen")
    asked = {(what.min_ns, what.min_samples, what.repeat_sample) for _, what in seen.of("block")}
    assert asked == {(75_000_000, 5, False)}


def call_ns(block, calls):
    return block.found.sample_ns / calls


def test_the_best_block_is_the_value_of_a_process(pairing, seen):
    metrics = ("latency.p50", "latency.mean", "latency.min", "throughput")
    made = pairing(metrics=metrics)
    (taken,) = made.take(1, "screen")
    for side in ("base", "candidate"):
        blocks = [call_ns(what, made.calls) for name, what in seen.of("block") if name == side]
        assert len(blocks) == 4
        assert getattr(taken, side) == pytest.approx(
            {
                "latency.p50": min(float(np.sort(one)[one.size // 2]) for one in blocks),  # MLPerf's percentile
                "latency.mean": min(float(one.mean()) for one in blocks),
                "latency.min": min(float(one.min()) for one in blocks),
                "throughput": max(1e9 / float(one.mean()) for one in blocks),
            }
        )


def test_rounds_on_another_processor_than_the_first_are_no_rounds(pairing):
    made = pairing()
    (first,) = made.take(1, "screen")
    assert not any("processor" in told for told in first.troubles)
    made._processor = "Xeon 8272CL"  # as if this machine had been moved after the first
    (second,) = made.take(1, "screen")
    assert any(told.startswith("the processor changed from Xeon 8272CL to ") for told in second.troubles)


def test_a_slower_candidate_is_seen(pairing, executor):
    made = pairing(executor("base", spin_us=300), executor("candidate", spin_us=900))
    (taken,) = made.take(1, "screen")
    assert made.calls == 1
    assert 2.0 < taken.candidate["latency.p50"] / taken.base["latency.p50"] < 4.5


def test_tails_take_all_calls_of_a_process(pairing, executor, seen):
    sides = executor("base", spin_us=300), executor("candidate", spin_us=300)
    made = pairing(*sides, metrics=("latency.p50", "latency.p90"))
    (taken,) = made.take(1, "screen")
    assert made.calls == 1
    assert len(seen.of("block")) == 8  # the timed blocks are one-call readings themselves
    for side in ("base", "candidate"):
        pooled = np.concatenate([what.found.sample_ns for name, what in seen.of("block") if name == side])
        assert getattr(taken, side)["latency.p90"] == percentile(pooled, 0.9)


def test_tails_of_a_quick_model_come_from_one_call_readings(pairing, seen):
    made = pairing(metrics=("latency.p50", "latency.p99"))
    (taken,) = made.take(1, "screen")
    assert made.calls > 1
    one, other = began_by(1)
    assert [(side, what.calls) for side, what in seen.of("block")][-2:] == [(one, 1), (other, 1)]
    assert len(seen.of("block")) == 10
    for side in ("base", "candidate"):
        singles = next(what.found.sample_ns for name, what in seen.of("block") if name == side and what.calls == 1)
        assert getattr(taken, side)["latency.p99"] in singles


def test_no_one_call_readings_are_taken_that_nobody_wants(pairing, seen):
    made = pairing(metrics=("latency.p50", "memory.peak"))
    made.take(1, "screen")
    assert {what.calls for _, what in seen.of("block")} == {made.calls}
    assert made.calls > 1


def test_other_metrics_come_from_the_whole_process(pairing):
    made = pairing(metrics=("memory.peak", "stage.load", "latency.p50"))
    one, other = made.take(2, "screen")
    for taken in (one, other):
        for side in (taken.base, taken.candidate):
            assert list(side) == ["memory.peak", "stage.load", "latency.p50"]
            assert side["stage.load"] > 0
            assert side["memory.peak"] is None or side["memory.peak"] > 0
    assert one.base["stage.load"] != other.base["stage.load"]  # each process loads anew
    found = pairs([one, other], "stage.load")
    assert found.base == (one.base["stage.load"], other.base["stage.load"])
    assert found.candidate == (one.candidate["stage.load"], other.candidate["stage.load"])


# --- how long it takes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call_ns", "calls", "planned", "seconds", "blocks"),
    [
        (1e3, 50, 18, 10.0, 4),  # 18 rounds of 4 blocks of 75 ms: 5.4 s
        (1e3, 50, 18, 5.3, 2),
        (1e3, 50, 33, 10.0, 4),
        (1e3, 50, 34, 10.0, 2),
        (20e6, 1, 18, 10.0, 4),  # five calls are 100 ms
        (30e6, 1, 18, 10.0, 2),
        (10e9, 1, 18, 10.0, 2),  # never fewer
        (-5.0, 9, 18, 10.0, 4),  # quicker than the clock
    ],
)
def test_slow_models_get_fewer_blocks(pairing, call_ns, calls, planned, seconds, blocks):
    made = pairing(planned=planned, seconds=seconds)
    made._plan(WarmUp(3, 0, 40.0, call_ns, calls))
    assert (made.calls, made.blocks) == (calls, blocks)
    made._plan(WarmUp(3, 0, 40.0, 1e12, calls + 7))  # the other side, and later rounds, change nothing
    assert (made.calls, made.blocks) == (calls, blocks)


def test_fewer_blocks_are_still_timed_in_turn(pairing, executor, seen):
    made = pairing(executor("base", call_ms=20), executor("candidate", call_ms=20), seconds=1.0)
    made.take(2, "screen")
    one, other = (name[0] for name in began_by(1))
    assert seen.order("block") == [one, other, other, one, other, one, one, other]


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_a_round_as_a_record_keeps_it(pairing):
    (taken,) = pairing(blocks=2).take(1, "screen")
    line = taken.to_json()
    assert json.loads(json.dumps(line)) == line
    assert set(line) == {"first", "troubles", "state"}
    assert line["state"]["elapsed_ns"] > 0
    assert set(line["state"]) == set(fitness.RoundState.__dataclass_fields__)


def test_a_round_is_troubled_by_what_the_machine_told_of_it(pairing, executor, monkeypatch):
    asked = []

    def troubles(state, allowed, needed):
        asked.append((state.elapsed_ns > 0, allowed, needed))
        return ["heat slowed the processor down"]

    monkeypatch.setattr(fitness, "troubles", troubles)
    monkeypatch.setattr(rounds, "_cores", lambda: 4)
    candidate = executor("candidate")
    for threads, needed in ((None, 1), (2, 2), (16, 4)):
        candidate.preparation.case = SimpleNamespace(**{**vars(candidate.case), "threads": threads})
        (taken,) = pairing(candidate=candidate, blocks=2).take(1, "screen")
        assert taken.troubles == ("heat slowed the processor down",)
        assert asked.pop() == (True, 4, needed)


def test_values_of_rounds_by_metric():
    taken = [
        Round("base", {"a": 1.0, "b": None}, {"a": 2.0}, (), {}),
        Round("candidate", {"a": 3.0}, {"a": None, "b": 5.0}, (), {}),
    ]
    assert (pairs(taken, "a").base, pairs(taken, "a").candidate) == ((1.0, 3.0), (2.0, None))
    assert (pairs(taken, "b").base, pairs(taken, "b").candidate) == ((None, None), (None, 5.0))


# --- whose sources --------------------------------------------------------------------------------------------------

PREPARE = "def keep(batch):\n    return batch\n"


@pytest.fixture
def sided(executor, tmp_path):
    """Return a function that makes both sides with pre-processing of their own."""
    roots = {name: tmp_path / name for name in ("base", "candidate")}

    def make(**texts):
        made = []
        for name, root in roots.items():
            root.mkdir()
            text = texts.get(name, PREPARE)
            if text:
                (root / "own_preparing.py").write_text(text, encoding="utf-8")
            other = roots["candidate" if name == "base" else "base"]
            data = root / "data.npz"
            np.savez(data, x=np.ones((4, 2), np.float32))
            dataset = DatasetSpec("d", file=data)
            side = Side(name, root, other)
            made.append(executor(name, side=side, preprocess="own_preparing:keep", dataset=dataset))
        return made

    return make


def test_what_each_side_imported_of_its_own_is_known(pairing, sided, tmp_path):
    made = pairing(*sided(candidate=PREPARE + "# changed\n"), blocks=2)
    made.take(1, "screen")
    assert {name: dict(found) for name, found in made.sources.items()} == {
        name: {"own_preparing": str(tmp_path / name / "own_preparing.py")} for name in ("base", "candidate")
    }


def test_without_sides_no_sources_are_asked_for(pairing):
    made = pairing(blocks=2)
    made.take(1, "screen")
    assert made.sources == {"base": {}, "candidate": {}}


@pytest.mark.parametrize(("name", "other"), [("base", "candidate"), ("candidate", "base")])
def test_a_side_that_loads_the_others_modules_is_invalid(pairing, sided, tmp_path, monkeypatch, name, other, seen):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / other))
    made = pairing(*sided(**{name: ""}), blocks=2)
    with pytest.raises(InvalidCase) as raised:
        made.take(1, "screen")
    assert str(raised.value).startswith(
        f"the {name} must load its own modules, from {tmp_path / name}, but it loaded own_preparing from "
        f"{tmp_path / other / 'own_preparing.py'}: "
    )
    assert all(gone(pid) for _, pid in seen.started)


# --- whose failure --------------------------------------------------------------------------------------------------

FAULTS = [
    ("load", "load: injected fault"),
    ("first", "first: injected fault"),
    ("warm-up", "warm-up: injected fault"),
    ("measure", "measure: injected fault"),
]


@pytest.mark.parametrize(("stage", "message"), FAULTS)
def test_a_failure_of_the_base_is_one_of_the_comparison(pairing, executor, seen, stage, message):
    made = pairing(executor("base", fault="raise", stage=stage))
    with pytest.raises(InvalidCase) as raised:
        made.take(1, "screen")
    assert str(raised.value).startswith(f"the base failed in stage {stage}: ")
    assert message.partition(": ")[2] in str(raised.value)
    assert all(gone(pid) for _, pid in seen.started)


@pytest.mark.parametrize(("stage", "message"), FAULTS)
def test_a_failure_of_the_candidate_is_one_of_the_case(pairing, executor, seen, stage, message):
    made = pairing(candidate=executor("candidate", fault="raise", stage=stage))
    with pytest.raises(StageError) as raised:
        made.take(1, "screen")
    assert raised.value.stage == stage
    assert message.partition(": ")[2] in str(raised.value)
    assert "RuntimeError: injected fault" in raised.value.detail
    assert all(gone(pid) for _, pid in seen.started)


def test_a_process_that_dies_is_told_of_its_side(pairing, executor):
    with pytest.raises(InvalidCase, match="the base failed in stage measure: the agent ended: exit status 3"):
        pairing(executor("base", fault="exit", stage="measure")).take(1, "screen")
    with pytest.raises(deploy.AgentLost, match="measure: the agent ended: exit status 3"):
        pairing(candidate=executor("candidate", fault="exit", stage="measure")).take(1, "screen")


def test_a_base_that_is_not_installed_or_has_unfit_data_cannot_be_run(pairing, executor, tmp_path):
    missing = executor("base", fault="no_module", stage="load")
    with pytest.raises(InvalidCase, match=r"the base cannot be run: .*No module named 'mlbench_faulty_engine': pip "):
        pairing(missing).take(1, "screen")
    np.savez(tmp_path / "wide.npz", x=np.ones((4, 5), np.float32))
    wrong = DatasetSpec("d", file=tmp_path / "wide.npz")
    with pytest.raises(InvalidCase, match=r"the base cannot be run: .*bench_x.toml: dataset.d: "):
        pairing(executor("base", dataset=wrong)).take(1, "screen")
    with pytest.raises(SuiteError, match=r"candidate.bench_x.toml: dataset.d: "):
        pairing(candidate=executor("candidate", dataset=wrong)).take(1, "screen")


# --- metric functions of others -------------------------------------------------------------------------------------


def work(measurement):
    return [Metric("own.work", float(measurement.samples.calls), "", "lower")]


def of_outputs(measurement):
    return [Metric("own.f1", float(measurement.outputs["y"].mean()), "", "higher")]


def unmeasured(measurement):
    return [Metric("own.energy", None, "j", "lower", reason="there is no meter")]


def test_a_function_that_needs_outputs_disturbs_no_other_metric(pairing):
    made = pairing(metrics=("own.work",), functions={"own:of_outputs": of_outputs, "own:work": work}, blocks=2)
    (taken,) = made.take(1, "screen")
    assert taken.base == taken.candidate == {"own.work": float(made.calls)}


def test_a_metric_whose_function_fails_is_the_failure_of_its_side(pairing):
    functions = {"own:of_outputs": of_outputs, "own:work": work}
    told = (
        "metrics: metric function own:of_outputs raised TypeError: 'NoneType' object is not subscriptable "
        "(in a round of the comparison, which takes no outputs and has no labels)"
    )
    of_base = InvalidCase, f"the base failed in stage {told}"
    expected = {"base": of_base, "candidate": (StageError, told)}
    for seed in (0, 1):  # the side that began is asked first
        kind, message = expected[began_by(seed)[0]]
        with pytest.raises(kind) as raised:
            pairing(metrics=("own.f1",), functions=functions, blocks=2, seed=seed).take(1, "screen")
        assert str(raised.value) == message


def test_why_a_round_has_no_value_is_kept(pairing):
    functions = {**BUILT_IN, "own:unmeasured": unmeasured}
    made = pairing(metrics=("own.energy", "latency.p99.upper99", "latency.p50"), functions=functions, blocks=2)
    (taken,) = made.take(1, "screen")
    assert taken.base["own.energy"] is None
    assert taken.base["latency.p50"] > 0
    assert made.unmeasured["own.energy"] == "there is no meter"
    assert "latency.p50" not in made.unmeasured


def test_a_metric_that_nobody_gives_is_not_measured(pairing):
    (taken,) = pairing(metrics=("own.gone", "latency.p50"), blocks=2).take(1, "screen")
    assert taken.base["own.gone"] is taken.candidate["own.gone"] is None
