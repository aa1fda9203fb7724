"""The contract of frameworks: held by a small one of a vendor's, and by none of its faults."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest

from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.testing import FrameworkContract, Subject

WEIGHTS = np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)
# A vendor's adapter as it travels. Each fault below changes one line of it.
ADAPTER = """
import numpy as np
from mlbench_agent.adapters.binding import check_inputs
from mlbench_agent.api import Node, Placement, TensorSpec

NAME = "json"


def versions():
    return {"dense": "1.0"}


def load(path, options):
    with np.load(path) as file:
        return Session(file["w"], int(file["batch"]), options)


class Session:
    def __init__(self, w, batch, options):
        self._w, self._x, self._y, self._threads = w, None, None, options["threads"]
        self.inputs = [TensorSpec("x", "float32", (batch, w.shape[0]))]
        self.outputs = [TensorSpec("y", "float32", (batch, w.shape[1]))]

    def bind(self, inputs):
        check_inputs(self.inputs, inputs)
        self._x = inputs["x"]

    def invoke(self):
        if self._w is None:
            raise RuntimeError("the session is closed")
        self._y = self._x @ self._w

    def fetch(self):
        return {"y": self._y.copy()}

    def placement(self):
        return Placement("dense", (Node("0", "MatMul", "cpu", "fp32", True),))

    def close(self):
        self._w = None
"""
_numbers = itertools.count()


@pytest.fixture
def subject_of(tmp_path, monkeypatch):
    """Return a function that gives a Subject whose adapter has a text, and a declaration with some changes."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(text: str = ADAPTER, **changes: object) -> Subject:
        name = f"acme_adapter_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        framework = Framework(
            name="dense",
            format="npz",
            adapter=name,
            module="json",  # part of Python: always there
            install="pip install dense",
            options={"threads": Option(int, "How many threads.", minimum=1, default=1)},
        )
        files = {"fp32": tmp_path / "w.npz", "fixed": tmp_path / "fixed.npz"}
        np.savez(files["fp32"], w=WEIGHTS, batch=-1)
        np.savez(files["fixed"], w=WEIGHTS, batch=2)
        return Subject(
            replace(framework, **changes),
            files=files,
            samples=lambda count, seed: np.random.default_rng(seed).random((count, 4), np.float32),
            reference=lambda batch: batch.astype(np.float64) @ WEIGHTS,
            folder=tmp_path,
            fixed_batch=2,
        )

    return make


class TestDense(FrameworkContract):
    @pytest.fixture
    def subject(self, subject_of):
        return subject_of()


def broken(name: str, subject: Subject, folder, *more: object) -> None:
    """Hold a subject to one test of the contract."""
    check = getattr(FrameworkContract(), f"test_{name}")
    check(subject, *more, *([folder] if name.startswith("a_broken_file") else []))


FAULTS = [
    # what changes, to what, and the test of the contract that finds it
    ('"dense": "1.0"', '"dense": None', "versions_name_the_framework"),
    ('NAME = "json"', 'NAME = "dense"', "declaration_and_adapter_agree"),
    ("def load(", "import serial\n\n\ndef load(", "what_travels_needs_nothing_installed"),
    ("def versions", "def version", "what_travels_needs_nothing_installed"),
    ('TensorSpec("x", "float32", (batch, w.shape[0]))', 'TensorSpec("x", "float32", (batch, 5))', "specs_describe"),
    ("self._x @ self._w", "self._x @ self._w * 1.01", "outputs_equal_an_independent_reference"),
    ("self._x @ self._w", "self._x @ self._w + np.random.random()", "a_call_is_deterministic"),
    ("self._y.copy()", "self._y", "fetch_copies"),
    ('self._x = inputs["x"]', 'self._x = inputs["x"] if self._x is None else self._x', "each_bind_is_the_next"),
    ('self._x = inputs["x"]', 'self._x = inputs["x"]; self._x += 0', "read_only_arrays_can_be_bound"),
    ("check_inputs(self.inputs, inputs)", "pass", "a_batch_the_model_cannot_take_is_refused"),
    ("check_inputs(self.inputs, inputs)", "pass", "wrong_names_are_refused_with_both_sides"),
    (
        "        check_inputs(self.inputs, inputs)",
        "        w, self._w = self._w, None\n        check_inputs(self.inputs, inputs)\n        self._w = w",
        "a_refused_batch_leaves_the_session_working",
    ),
    ('"MatMul", "cpu", "fp32"', '"MatMul", "cpu", "fp16"', "placement_says_what_ran"),
    ('"fp32", True),)', '"fp32", False),)', "placement_says_what_ran"),
    ('"fp32", True),))', '"fp32", True),), "not known")', "placement_says_what_ran"),
    ('return Placement("dense"', 'self._y = None; return Placement("dense"', "placement_leaves_the_session_as_it_was"),
    ("self._x @ self._w", "self._x @ self._w * self._threads", "threads_change_speed_only"),
    ("self._y = self._x", "self.fetch if self._y is None else self.fetch(); self._y = self._x", "invoke_runs_little"),
    ("with np.load(path) as file:", 'import io\n    with np.load("WHOLE") as file:', "a_broken_file"),
    ('raise RuntimeError("the session is closed")', "return", "close_lets_go_of_the_model"),
    ("self._w = None\n", "KEPT.append(self); self._w = None\n\n\nKEPT = []\n", "close_lets_go_of_the_model"),
    ("self._x = inputs", "Session.x = inputs", "two_sessions_do_not_meet"),
]


@pytest.mark.parametrize(("old", "new", "name"), FAULTS, ids=[f"{index}-{one[2]}" for index, one in enumerate(FAULTS)])
def test_a_fault_is_found(subject_of, tmp_path, old, new, name):
    assert ADAPTER.count(old) == 1
    full = next(one for one in vars(FrameworkContract) if one.startswith(f"test_{name}"))
    text = ADAPTER.replace(old, new.replace("WHOLE", (tmp_path / "w.npz").as_posix()))
    if "Session.x" in text:
        text = text.replace("self._x @", "Session.x @")
    more = {"outputs_equal": ["fp32"], "placement_says": ["fp32"], "wrong_names": ["missing"]}
    given = next((words for begin, words in more.items() if name.startswith(begin)), [])
    with pytest.raises(BaseException) as caught:
        broken(full.removeprefix("test_"), subject_of(text), tmp_path, *given)
    assert not isinstance(caught.value, (pytest.skip.Exception, KeyboardInterrupt))


def test_an_array_that_nobody_keeps_is_found(subject_of):
    text = ADAPTER.replace('self._x = inputs["x"]', 'self._at = inputs["x"].ctypes.data, inputs["x"].shape')
    taken = "np.ctypeslib.as_array((__import__('ctypes').c_float * 16).from_address(self._at[0])).reshape(4, 4)"
    with pytest.raises(AssertionError):
        broken("bound_arrays_outlive_the_callers_name", subject_of(text.replace("self._x @", f"{taken} @")), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my-dense"}, "the name 'my-dense' may hold letters"),
        ({"install": "see our page"}, "expected a command that installs it"),
        ({"options": {"a": Option(int, "no full stop", default=1)}}, "option a: its help is a sentence"),
        ({"options": {"a": Option(int, "A.", default="1")}}, "option a: the default is no int"),
        ({"options": {"a": Option(str, "A.", choices=("x",), default="y")}}, "option a: the default is no choice"),
        ({"options": {"a": Option(int, "A.", minimum=2, default=1)}}, "option a: the default is below the minimum"),
    ],
)
def test_a_declaration_that_is_not_whole(subject_of, changes, message):
    with pytest.raises(AssertionError, match=message):
        FrameworkContract().test_declaration_is_whole(subject_of(**changes))


def test_a_framework_that_compiles_and_has_nothing_to_do_so(subject_of):
    with pytest.raises(AssertionError, match=r"`compiles` says whether the adapter has prepare\(\)"):
        FrameworkContract().test_declaration_and_adapter_agree(subject_of(compiles=True))


def test_a_framework_that_compiles_does_so_once_for_a_file_and_its_options(subject_of, tmp_path):
    text = ADAPTER + "\n\nMADE = []\n\n\ndef prepare(path, out_dir, options):\n    MADE.append(path)\n    return path\n"
    subject = subject_of(text, compiles=True)
    for _ in range(2):
        subject.open()
    subject.open(batch=4)
    assert len(subject.adapter.MADE) == 2


def test_a_precision_of_which_there_is_no_file_is_skipped(subject_of):
    with pytest.raises(pytest.skip.Exception, match="dense has no bf16 file"):
        subject_of().open("bf16")


def test_an_adapter_is_imported_as_it_travels(subject_of):
    subject = subject_of()
    assert subject.adapter.__name__ == f"mlbench_adapters.{subject.framework.adapter}"
    assert subject.framework.adapter not in sys.modules
    assert sys.modules["mlbench_agent.api"].__name__ == "mlbench_agent.api"
