"""The self-test of the gate: a real comparison of a built-in net, and how its answers are told."""

from __future__ import annotations

import json
import random

import pytest

from pytest_mlbench import selftest
from pytest_mlbench.agent.adapters import arithmetic_adapter
from pytest_mlbench.record import Comparison
from pytest_mlbench.selftest import SelfTest, Trial


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    for name in ("state", "cache"):
        monkeypatch.setenv(f"MLBENCH_{name.upper()}", str(tmp_path / name))


def comparison(verdict):
    return Comparison("throughput", "1/s", "higher", "rounds", verdict, "throughput is 3 % lower", n=12)


@pytest.mark.parametrize(
    ("expected", "verdict", "is_right"),
    [
        ("regressed", "regressed", True),
        ("regressed", "pass", False),
        ("regressed", "inconclusive", False),
        ("not regressed", "pass", True),
        ("not regressed", "inconclusive", True),
        ("not regressed", "regressed", False),
        ("not regressed", "improved", False),
        ("not regressed", "invalid", False),
    ],
)
def test_an_answer_is_right_when_it_is_the_expected_one(expected, verdict, is_right):
    assert Trial("x", expected, comparison(verdict)).is_right is is_right


def test_right_answers_are_told():
    found = SelfTest((Trial("A/A", "not regressed", comparison("pass")),), 12.4, "")
    assert found.lines() == [
        "self-test A/A: pass, expected not regressed: ok",
        "  throughput is 3 % lower, 12 rounds",
        "the gate can be believed on this machine now (12 s)",
    ]
    assert json.loads(json.dumps(found.to_json()))["right"] is True


def test_a_wrong_answer_is_told_with_what_may_be_the_reason():
    found = SelfTest((Trial("3 % slower", "regressed", comparison("pass")),), 12.4, "end what else runs here")
    assert not found.is_right
    assert found.lines()[0] == "self-test 3 % slower: pass, expected regressed: WRONG"
    assert found.lines()[-1] == "do not believe the gate on this machine now: end what else runs here"
    assert found.to_json()["why"] == "end what else runs here"


def test_a_net_of_half_the_speed_is_found(monkeypatch):
    monkeypatch.setattr(selftest, "SECONDS", 1.0)  # two blocks a process
    found = selftest.compared(selftest.case(False, 1), selftest.case(True, 1), random.Random(1))
    assert found.verdict == "regressed"
    assert 0.5 < found.change < 2
    assert found.n == 16


# --- the net --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "extra", "computed"),
    [(1, True, 200), (33, True, 103), (100, True, 101), (101, True, 100), (1, False, 100), (33, False, 100)],
)
def test_every_nth_call_computes_twice(every, extra, computed):
    count = 0

    def compute():
        nonlocal count
        count += 1

    call = arithmetic_adapter.repeating(compute, every, extra)
    for _ in range(100):
        call()
    assert count == computed


def test_the_net_computes_the_same_however_often():
    outputs = []
    for extra in (False, True):
        net = arithmetic_adapter.load("", {"width": 8, "every": 1, "extra": extra})
        spec = net.inputs[0]
        assert (spec.name, spec.dtype, spec.shape) == ("x", "float32", (1, 8))
        net.bind({"x": arithmetic_adapter.np.ones((1, 8), "float32")})
        net.invoke()
        outputs.append(net.fetch()["y"].tolist())
    assert outputs[0] == outputs[1]
    assert any(outputs[0][0])
    assert [node.where for node in net.placement().nodes] == ["cpu"] * 4
