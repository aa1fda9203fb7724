"""The session over a board: tensors, results, its clock, and what a reset takes away; on a fake board's real line."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

pytest.importorskip("serial")
if not hasattr(os, "openpty"):
    pytest.skip("the fake board is a pseudo-terminal", allow_module_level=True)

from pytest_mlbench.agent.adapters import firmware_adapter
from pytest_mlbench.agent.adapters.firmware_adapter import snapped, tensors
from pytest_mlbench.agent.api import TargetClock, TensorSpec
from pytest_mlbench.agent.board import BoardLost, WrongBoard
from pytest_mlbench.agent.samples import Refused
from pytest_mlbench.agent.tiny_protocol import ReplyError
from pytest_mlbench.agent.worker import Worker
from pytest_mlbench.testing.fake_board import FakeBoard, Fault

SIDECAR = {
    "model": "net01",
    "inputs": [{"name": "x", "dtype": "int8", "shape": [1, 40]}],
    "outputs": [{"name": "y", "dtype": "int8", "shape": [1, 2], "scale": 0.25, "zero_point": 3}],
}
TIMES = {"boot_timeout_s": 1.0, "reply_timeout_s": 0.3, "infer_timeout_s": 1.0}
INPUT = np.arange(-20, 20, dtype=np.int8).reshape(1, 40)


def net(data):
    x = np.frombuffer(data, np.int8)
    return [x[0] / 4, x[39] / 4]


def fake(**settings):
    return FakeBoard(**{"infer": net, "model_id": "net01", "vendor": "acme", **settings})


def load(board, sidecar=SIDECAR, **connection):
    options = {"connection": {"port": board.port, **TIMES, **connection}, "sidecar": json.dumps(sidecar)}
    return firmware_adapter.load("", options)


def test_an_input_goes_in_and_its_results_come_out_in_stored_values():
    with fake() as board:
        session = load(board)
        session.bind({"x": INPUT})
        session.invoke()
        found = session.fetch()["y"]
        session.close()
    assert found.dtype == np.int8
    assert found.tolist() == [[-20 + 3, 19 + 3]]


def test_the_board_times_calls_by_its_own_clock():
    with fake(call_us=3000) as board:
        session = load(board)
        assert session.clock == TargetClock("m-lap of the board", 1000)
        session.bind({"x": INPUT})
        one, five = session.time_calls(1), session.time_calls(5)
        session.close()
    assert one >= 3_000_000
    assert five >= 15_000_000
    assert "infer 5 0" in board.commands


def test_the_input_is_loaded_once_for_many_calls_and_again_after_a_restart():
    with fake(faults=[Fault("restart", "infer", after=2)]) as board:
        session = load(board)
        session.bind({"x": INPUT})
        for _ in range(4):
            session.invoke()
        session.close()
    assert sum(command.startswith("db load") for command in board.commands) == 2
    assert [step["step"] for step in session.happened] == ["resync"]
    assert session.fetch()["y"].tolist() == [[-17, 22]]


def test_another_board_after_recovery_is_not_measured_on():
    with fake(faults=[Fault("deaf", "infer", after=1)]) as board:
        session = load(board)
        session.bind({"x": INPUT})
        session.invoke()
        board.vendor = "other"
        with pytest.raises(WrongBoard, match=r"after recovery the board says .*other.*, before it said .*acme"):
            session.invoke()
        session.close()


def test_a_lost_board_carries_its_traffic_and_what_was_tried():
    faults = [Fault("hang", "infer"), Fault("hang", "reset", times=99)]
    with fake(faults=faults) as board:
        session = load(board, soft_reset="reset")
        session.bind({"x": INPUT})
        board.reset = lambda level: None
        with pytest.raises(BoardLost) as raised:
            session.invoke()
        session.close()
    assert [step["step"] for step in raised.value.happened] == ["resync", "reopen", "soft_reset"]
    assert "> infer 1 0%" in raised.value.transcript
    assert "* recovery: soft_reset" in raised.value.transcript


def test_in_energy_mode_the_clock_says_why_it_cannot_time():
    with fake(mode="energy") as board:
        session = load(board, mode="energy")
        assert "only a power meter sees them" in session.clock.reason
        session.bind({"x": INPUT})
        session.invoke()
        assert session.fetch()["y"].tolist() == [[-17, 22]]
        with pytest.raises(Refused, match="only a power meter"):
            session.time_calls(1)
        session.close()


def test_facts_identify_the_board():
    with fake() as board:
        session = load(board)
        facts = session.facts()
        session.close()
    assert {key: facts[key] for key in ("name", "vendor", "model", "mode", "port", "recovered")} == {
        "name": "dut-[acme]",
        "vendor": "acme",
        "model": "net01",
        "mode": "performance",
        "port": board.port,
        "recovered": [],
    }


def test_nodes_are_what_the_images_maker_declares():
    nodes = [{"name": "fc", "op": "FullyConnected", "precision": "int8"}]
    with fake() as board:
        told, untold = load(board, {**SIDECAR, "nodes": nodes}), None
        told.close()
        untold = load(board)
        untold.close()
    (node,) = told.placement().nodes
    assert (node.where, node.precision, node.compute) == ("board", "int8", True)
    assert told.placement().source == "the image's sidecar, as its maker declares"
    assert untold.placement().nodes == ()
    assert "a board does not tell what it runs" in untold.placement().reason


# --- through the agent's worker -----------------------------------------------------------------------------


def worker_of(board, count=5, **connection):
    worker = Worker(lock_file=None)
    x = np.tile(INPUT, (count, 1))
    worker.receive("x", x.dtype.str, list(x.shape), x.tobytes(), done=True)
    worker.steps([], {})
    options = {"connection": {"port": board.port, **TIMES, **connection}, "sidecar": json.dumps(SIDECAR)}
    adapter = "pytest_mlbench.agent.adapters.firmware_adapter"
    return worker, worker.load(adapter, "numpy", "", options)


def test_the_worker_takes_samples_by_the_boards_clock_that_its_ticks_do_not_distort():
    with fake(call_us=150) as board:
        worker, loaded = worker_of(board)
        assert loaded["clock"] == {"name": "m-lap of the board", "tick_ns": 1000, "reason": ""}
        assert set(loaded["stages_ns"]) == {"connect"}
        worker.fit(1, "invoke", 0)
        assert worker.first() >= 150_000
        warm = worker.warm_up(0.0, 2)
        assert warm["clock_ns"] == 1000.0
        assert warm["calls"] * warm["call_ns"] >= 1000 * 1000, "a tick is at most a thousandth of a sample"
        block = worker.block(0, warm["calls"], 0, 3, 3)
        readings = np.frombuffer(block["samples"], np.int64)
        assert worker.facts()["vendor"] == "acme"
        worker.close()
    assert len(readings) == 3
    assert (readings % 1000 == 0).all(), "whole ticks"
    assert (readings >= warm["calls"] * 150_000).all()


def test_a_boundary_that_the_board_cannot_time_is_refused():
    with fake() as board:
        worker, _ = worker_of(board)
        with pytest.raises(Refused, match="the boundary end_to_end cannot be timed by m-lap of the board"):
            worker.fit(1, "end_to_end", 0)
        worker.close()


def test_without_a_clock_the_first_call_has_no_time_and_outputs_are_there():
    with fake(mode="energy") as board:
        worker, loaded = worker_of(board, mode="energy")
        assert "power meter" in loaded["clock"]["reason"]
        worker.fit(1, "invoke", 0)
        assert worker.first() is None
        assert worker.run_outputs()["y"]["shape"] == [5, 2]
        worker.close()


# --- tensors ------------------------------------------------------------------------------------------------

QUANTISED = TensorSpec("y", "int8", (1, 4), 0.2, -5)


def test_results_become_the_stored_values_they_were_printed_from():
    stored = np.arange(-128, 128, 1)
    for start in range(0, 256, 4):
        four = stored[start : start + 4]
        printed = tuple(round(float((value + 5) * 0.2), 3) for value in four)
        assert snapped(printed, QUANTISED).tolist() == [four.tolist()]


@pytest.mark.parametrize("scale", [1 / 256, 0.00390625, 0.0123, 0.202])
def test_three_decimals_cut_off_or_rounded_give_the_same_value(scale):
    spec = TensorSpec("y", "int8", (1, 1), scale, 0)
    for value in range(-128, 128):
        real = value * scale
        for printed in (round(real, 3), int(real * 1000) / 1000):
            assert snapped((printed,), spec).tolist() == [[value]]


@pytest.mark.parametrize("results", [(0.1, 0, 0, 0), (float("nan"), 0, 0, 0), (float("inf"), 0, 0, 0)])
def test_results_of_another_scale_are_refused(results):
    with pytest.raises(ReplyError, match=r"are no multiples of the scale 0.2 of output 'y': is the sidecar that of"):
        snapped(results, QUANTISED)


def test_results_without_a_scale_are_numbers():
    found = snapped((0.125, -1.5), TensorSpec("y", "float32", (1, 2)))
    assert found.dtype == np.float32
    assert found.tolist() == [[0.125, -1.5]]


@pytest.mark.parametrize("model", ["kws01", "ic01", "vww01", "ad01"])
def test_the_models_of_mlperf_tiny_need_no_sidecar(model):
    sizes = {"kws01": 490, "ic01": 3072, "vww01": 27648, "ad01": 4 * 640}
    (given,), (made,), nodes = tensors({}, model)
    assert np.prod(given.shape) * np.dtype(given.dtype).itemsize == sizes[model]
    assert made.dtype == "float32"
    assert nodes == ()


ONE = {"name": "x", "dtype": "int8", "shape": [1, 2]}


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({}, "nothing says what the board's model 'zzz' takes and gives: put a sidecar beside its image"),
        ({"inputs": [ONE]}, "`outputs` must be a list of one tensor"),
        ({"inputs": [ONE, ONE], "outputs": [ONE]}, "`inputs` must be a list of one tensor"),
        (
            {"inputs": [ONE], "outputs": [{"name": "y"}]},
            r"outputs\[0\]: KeyError: 'dtype'; expected name, dtype, shape",
        ),
        ({"inputs": [{**ONE, "dtype": "int9"}], "outputs": [ONE]}, r"inputs\[0\]: TypeError: .*int9"),
        ({"inputs": ["x"], "outputs": [ONE]}, r"inputs\[0\]: AttributeError"),
        ({"inputs": [ONE], "outputs": [ONE], "nodes": [{"name": "a"}]}, r"nodes\[0\]: 'op'; expected name, op and"),
    ],
)
def test_a_sidecar_that_does_not_say_it_is_refused_with_its_key(sidecar, message):
    with pytest.raises(Refused, match=message):
        tensors(sidecar, "zzz")
