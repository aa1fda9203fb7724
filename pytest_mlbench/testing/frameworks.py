"""What core expects of a framework and its adapter, as tests that the vendor's package runs on its own:

    class TestFramework(FrameworkContract):
        @pytest.fixture
        def subject(self, tmp_path):
            return Subject(FRAMEWORK, {"fp32": MODEL}, samples, reference, tmp_path)

The model has one input and one output, and computes the same for each sample of a batch.
"""

from __future__ import annotations

import gc
import re
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_mlbench import deploy
from pytest_mlbench.frameworks.api import Framework
from pytest_mlbench.testing.devices import WORD
from pytest_mlbench.testing.plain import not_given
from pytest_mlbench.testing.travelling import adapter_of, names_on_target

Array = npt.NDArray[Any]
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 2e-1}  # relative, and absolute
SQNR_DB = 20  # of int8 outputs against the reference, at least
_OURS = ("mlbench_agent.", "mlbench_adapters.", "pytest_mlbench.agent.")


@dataclass
class Subject:
    """One framework with files it can load; compiles once per file, batch and options.

    `samples(count, seed)` returns a batch of real numbers for the input, `reference(batch)` what the fp32 model must
    make of it, computed without this framework.
    """

    framework: Framework
    files: Mapping[str, Path]  # by precision; "fixed" is one whose batch is fixed to `fixed_batch`, if there is one
    samples: Callable[[int, int], Array]
    reference: Callable[[Array], Array]
    folder: Path  # where it may compile
    executed: Mapping[str, str] = field(default_factory=dict)  # a file's precision -> what runs, where that differs
    batches: tuple[int, ...] = (1, 4)  # that the model takes
    fixed_batch: int = 1
    frames: int = 1  # calls of Python functions of the adapter that one invoke() may take, itself included
    made: dict[Any, Any] = field(default_factory=dict)  # what was compiled

    @property
    def adapter(self) -> ModuleType:
        """Return the adapter as the agent imports it."""
        return adapter_of(self.framework)

    def open(self, precision: str = "fp32", batch: int = 1, **options: Any) -> Any:
        """Return a session; the test is skipped for a precision of which there is no file."""
        defaults = {key: one.default for key, one in self.framework.options.items() if one.default is not None}
        options = {**defaults, "batch": batch, **options}
        if precision in self.framework.converts:
            options["convert"], precision = precision, "fp32"
        if precision not in self.files:
            pytest.skip(f"{self.framework.name} has no {precision} file")
        path: Any = self.files[precision]
        if self.framework.compiles:
            key = (path, repr(sorted(options.items())))
            if key not in self.made:
                self.made[key] = self.adapter.prepare(str(path), str(self.folder), options)
            path = self.made[key]
        return self.adapter.load(str(path), options)


class FrameworkContract:
    """Hold a framework to frameworks/api.py and its adapter to agent/api.py. A subclass gives the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> Subject:
        """Return the framework with its files."""
        found: Subject = not_given(self, "subject", "a Subject")
        return found

    # --- the host half ---------------------------------------------------------------------------------

    def test_declaration_is_whole(self, subject: Subject) -> None:
        """Suites name it and its options; a user reads how it is installed."""
        framework = subject.framework
        assert WORD.fullmatch(framework.name), f"the name {framework.name!r} may hold letters, digits, `_` and `.` only"
        assert "install" in framework.install, f"install is {framework.install!r}, expected a command that installs it"
        for key, option in framework.options.items():
            assert option.help.endswith("."), f"option {key}: its help is a sentence with a full stop"
            assert type(option.default) is option.type, f"option {key}: the default is no {option.type.__name__}"
            assert not option.choices or option.default in option.choices, f"option {key}: the default is no choice"
            least = option.minimum
            told = f"option {key}: the default is below the minimum"
            assert least is None or (isinstance(option.default, int) and option.default >= least), told

    def test_declaration_and_adapter_agree(self, subject: Subject) -> None:
        """The one is read by pytest, the other on the target."""
        adapter, framework = subject.adapter, subject.framework
        assert adapter.NAME == framework.module, f"NAME is {adapter.NAME!r}, the declaration has {framework.module!r}"
        assert hasattr(adapter, "prepare") == framework.compiles, "`compiles` says whether the adapter has prepare()"

    def test_what_travels_needs_nothing_installed(self, subject: Subject) -> None:
        """Its modules are imported where the framework may be missing, which is then told with its install line."""
        modules = [deploy.target_module(one) for one in (subject.framework.adapter, *subject.framework.shipped)]
        names = names_on_target(deploy.agent_sources(subject.framework), modules)[modules[0]]
        assert names >= {"NAME", "versions", "load"}, "an adapter has NAME, versions() and load()"

    # --- the target half -------------------------------------------------------------------------------

    def test_versions_name_the_framework(self, subject: Subject) -> None:
        """Records keep them."""
        found = subject.adapter.versions()
        assert found, "versions() is empty"
        assert all(isinstance(value, str) and value[:1].isdigit() for value in found.values()), found

    def test_specs_describe_the_model(self, subject: Subject) -> None:
        """Samples are matched to them."""
        session, image = subject.open(), subject.samples(1, 0)
        (given,), (result,) = session.inputs, session.outputs
        assert tuple(given.shape[1:]) == image.shape[1:]
        assert tuple(result.shape[1:]) == subject.reference(image).shape[1:]
        assert given.shape[0] in (-1, 1)
        assert np.dtype(given.dtype).name == given.dtype, "dtype is numpy's name, such as float32"

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_outputs_equal_an_independent_reference(self, subject: Subject, precision: str) -> None:
        """For each batch that the model takes."""
        for batch in subject.batches:
            image = subject.samples(batch, batch)
            found, wanted = run(subject.open(precision, batch), image), subject.reference(image)
            assert found.shape == wanted.shape
            if precision == "int8":
                assert sqnr_db(wanted, found) > SQNR_DB
            else:
                close(found, wanted, TOLERANCE[precision])

    def test_a_call_is_deterministic(self, subject: Subject) -> None:
        """In one session, and from one to the next."""
        batch = subject.batches[-1]
        session, image = subject.open(batch=batch), subject.samples(batch, 0)
        first = run(session, image)
        session.invoke()
        np.testing.assert_array_equal(real(session, session.fetch()), first)
        np.testing.assert_array_equal(run(subject.open(batch=batch), image), first)

    def test_fetch_copies(self, subject: Subject) -> None:
        """The next call leaves what was fetched alone, and the caller may write into it."""
        session = subject.open()
        session.bind(feed(session, subject.samples(1, 1)))
        session.invoke()
        kept = session.fetch()
        before = {name: array.copy() for name, array in kept.items()}
        run(session, subject.samples(1, 2))
        for name, array in kept.items():
            np.testing.assert_array_equal(array, before[name])
        for array in session.fetch().values():
            array[...] = 0
        assert real(session, session.fetch()).any(), "writing into what fetch() returned changed the session's own"

    def test_each_bind_is_the_next_calls_input(self, subject: Subject) -> None:
        """No input is kept from an earlier call."""
        session = subject.open()
        for seed in range(4):
            image = subject.samples(1, seed)
            close(run(session, image), subject.reference(image))

    def test_bound_arrays_outlive_the_callers_name(self, subject: Subject) -> None:
        """The arrays are kept by whoever needs them."""
        batch = subject.batches[-1]
        session, shape = subject.open(batch=batch), subject.samples(batch, 6).shape
        session.bind(feed(session, subject.samples(batch, 5)))
        gc.collect()
        rubbish = [np.full(shape, 9, session.inputs[0].dtype) for _ in range(64)]  # takes memory that was freed
        session.invoke()
        close(real(session, session.fetch()), subject.reference(subject.samples(batch, 5)))
        assert len(rubbish) == 64

    def test_read_only_arrays_can_be_bound(self, subject: Subject) -> None:
        """Samples may be mapped from a file."""
        session, image = subject.open(), subject.samples(1, 0)
        arrays = feed(session, image)
        for array in arrays.values():
            array.flags.writeable = False
        session.bind(arrays)
        session.invoke()
        close(real(session, session.fetch()), subject.reference(image))

    def test_a_batch_the_model_cannot_take_is_refused(self, subject: Subject) -> None:
        """By ValueError, which names the input and what was bound."""
        session = subject.open("fixed", batch=subject.fixed_batch)
        (spec,) = session.inputs
        assert spec.shape[0] == subject.fixed_batch
        with pytest.raises(ValueError, match=re.escape(spec.name)) as caught:
            session.bind({spec.name: subject.samples(subject.fixed_batch + 2, 0)})
        assert str(subject.fixed_batch + 2) in str(caught.value), f"the message tells no size: {caught.value}"

    def test_a_refused_batch_leaves_the_session_working(self, subject: Subject) -> None:
        """An input of another rank or size is refused too."""
        session, image = subject.open(), subject.samples(1, 0)
        wanted = run(session, image)
        (spec,) = session.inputs
        with pytest.raises(ValueError, match=re.escape(spec.name)):
            session.bind({spec.name: np.concatenate([image, image, image], axis=1)})
        np.testing.assert_array_equal(run(session, image), wanted)

    @pytest.mark.parametrize("change", ["missing", "other", "extra"])
    def test_wrong_names_are_refused_with_both_sides(self, subject: Subject, change: str) -> None:
        """By ValueError with the names of the model and those that were bound."""
        session, image = subject.open(), subject.samples(1, 0)
        (spec,) = session.inputs
        arrays = {"missing": {}, "other": {"nobody": image}, "extra": {spec.name: image, "nobody": image}}
        with pytest.raises(ValueError, match=re.escape(spec.name)) as caught:
            session.bind(arrays[change])
        told = f"the message does not name what was bound: {caught.value}"
        assert change == "missing" or "nobody" in str(caught.value), told

    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_placement_says_what_ran(self, subject: Subject, precision: str) -> None:
        """Per node, in words; or why it is not known."""
        session = subject.open(precision)
        run(session, subject.samples(1, 0))
        placement = session.placement()
        assert placement.source, "`source` names the instrument"
        assert bool(placement.nodes) != bool(placement.reason), "give nodes, or the reason why there are none"
        for node in placement.nodes:
            assert node.op and node.name and node.where == node.where.lower(), node  # noqa: PT018 - one node, one answer
        computing = {node.precision for node in placement.nodes if node.compute}
        assert bool(computing) == bool(placement.nodes), "no node computes: a model is named for some"
        assert computing <= {subject.executed.get(precision, precision), "unknown"}, computing

    def test_placement_leaves_the_session_as_it_was(self, subject: Subject) -> None:
        """It is asked for between the calls of a case."""
        session = subject.open()
        wanted = run(session, subject.samples(1, 0))
        first = session.placement()
        np.testing.assert_array_equal(real(session, session.fetch()), wanted)
        session.invoke()
        np.testing.assert_array_equal(real(session, session.fetch()), wanted)
        assert session.placement() == first

    def test_threads_change_speed_only(self, subject: Subject) -> None:
        """When it has the option."""
        if "threads" not in subject.framework.options:
            pytest.skip("it has no option `threads`")
        batch = subject.batches[-1]
        image = subject.samples(batch, 0)
        one, two = (run(subject.open(batch=batch, threads=count), image) for count in (1, 2))
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5)

    def test_invoke_runs_little_python_of_the_adapter(self, subject: Subject) -> None:
        """It is what is timed."""
        session = subject.open()
        session.bind(feed(session, subject.samples(1, 0)))
        session.invoke()
        entered: list[str] = []

        def watch(frame: FrameType, event: str, _argument: object) -> None:
            name = str(frame.f_globals.get("__name__"))
            if event == "call" and name.startswith(_OURS):
                entered.append(f"{name}.{frame.f_code.co_name}")

        invoke = session.invoke
        sys.setprofile(watch)
        try:
            invoke()
        finally:
            sys.setprofile(None)
        assert len(entered) <= subject.frames, entered

    def test_the_callable_taken_before_a_bind_stays_valid(self, subject: Subject) -> None:
        """The agent looks `invoke` up once."""
        session = subject.open()
        invoke = session.invoke
        session.bind(feed(session, subject.samples(1, 1)))
        invoke()
        close(real(session, session.fetch()), subject.reference(subject.samples(1, 1)))

    def test_a_broken_file_fails_with_the_frameworks_own_error(self, subject: Subject, tmp_path: Path) -> None:
        """Whatever it raises, with a message; never a session."""
        broken = tmp_path / f"broken.{subject.framework.format}"
        broken.write_bytes(b"not a model" * 100)
        with pytest.raises(Exception, match=r"\w"):
            replace(subject, files={"fp32": broken}, folder=tmp_path, made={}).open()

    def test_close_lets_go_of_the_model(self, subject: Subject) -> None:
        """A closed session computes nothing, and says so."""
        session = subject.open()
        run(session, subject.samples(1, 0))
        session.close()
        with pytest.raises(RuntimeError, match="closed"):
            session.invoke()
        gone = weakref.ref(session)
        del session
        gc.collect()
        assert gone() is None, "something still refers to a session that was closed"

    def test_two_sessions_do_not_meet(self, subject: Subject) -> None:
        """The reference and the model that is measured may live in one process."""
        first, second = subject.open(), subject.open()
        first.bind(feed(first, subject.samples(1, 1)))
        second.bind(feed(second, subject.samples(1, 2)))
        first.invoke()
        second.invoke()
        for session, seed in ((first, 1), (second, 2)):
            close(real(session, session.fetch()), subject.reference(subject.samples(1, seed)))
        first.close()
        assert run(second, subject.samples(1, 0)).shape == subject.reference(subject.samples(1, 0)).shape


def feed(session: Any, image: Array) -> dict[str, Array]:
    """Return samples for a session's single input, stored as that input stores real numbers."""
    (spec,) = session.inputs
    if spec.scale is None:
        return {spec.name: image.astype(spec.dtype)}
    stored = np.round(image / spec.scale) + spec.zero_point
    limits = np.iinfo(spec.dtype)
    return {spec.name: np.clip(stored, limits.min, limits.max).astype(spec.dtype)}


def real(session: Any, outputs: Mapping[str, Array]) -> Array:
    """Return the single output as real numbers."""
    (spec,) = session.outputs
    array = outputs[spec.name]
    if spec.scale is None:
        return array
    found: Array = (array.astype(np.float64) - spec.zero_point) * spec.scale
    return found


def run(session: Any, image: Array) -> Array:
    """Compute a batch once."""
    session.bind(feed(session, image))
    session.invoke()
    return real(session, session.fetch())


def close(found: Array, wanted: Array, tolerance: float = TOLERANCE["fp32"]) -> None:
    """Fail when two outputs differ by more than a tolerance."""
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def sqnr_db(reference: Array, found: Array) -> float:
    """Return the ratio of signal to the noise of quantisation, in dB."""
    noise = np.mean((reference - found) ** 2)
    return float(10 * np.log10(np.mean(reference**2) / noise)) if noise else float("inf")
