"""What core expects of a device, as tests that the vendor's package runs on its own:

    class TestBoard(DeviceContract):
        @pytest.fixture
        def device(self):
            return BOARD

A device that cannot be used now (its probe() says why) has the tests that would use it skipped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_mlbench import deploy, lease
from pytest_mlbench.agent import locks
from pytest_mlbench.agent.tiny_protocol import LineSettings
from pytest_mlbench.devices.api import VERIFIED, Device
from pytest_mlbench.devices_command import probed
from pytest_mlbench.errors import Unavailable
from pytest_mlbench.frameworks.firmware import FRAMEWORK as FIRMWARE
from pytest_mlbench.testing.plain import missing, not_given, not_plain
from pytest_mlbench.testing.travelling import names_on_target

WORD = re.compile(r"[A-Za-z0-9_.]+")  # what an axis of a case id may hold
TARGET_S = 60.0  # for what is asked of an agent

_ATTRIBUTES: Mapping[str, Any] = {
    "name": str,
    "resources": tuple,
    "shares": tuple,
    "verified": str,
    "is_host": bool,
    "frameworks": tuple,
    "emulated": bool,
    "shipped": tuple,
}
_NO_ANSWER = ("asking it failed: ", "it did not say within ")  # what probed() says of one that raises, or hangs
_CALLS = ("gateway", "connection", "place", "facts", "probe")
_READER = """
import hashlib
from pathlib import Path


def prepare(path, out_dir, options):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
"""


class DeviceContract:
    """Hold a device to devices/api.py. A subclass gives the fixture `device`, and `absent` where it can be missing."""

    @pytest.fixture
    def device(self) -> Device:
        """Return the device that is held to the contract."""
        found: Device = not_given(self, "device", "the device")
        return found

    @pytest.fixture
    def absent(self) -> Device | None:
        """Return a device of the same kind that is not there, whose probe() must say so; None where none can be."""
        return None

    @pytest.fixture(autouse=True)
    def own_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keep the locks of these tests apart from those of sessions that measure on this machine."""
        monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "locks"))

    # --- what it says of itself ------------------------------------------------------------------------

    def test_it_has_every_member(self, device: Device) -> None:
        """Each attribute is there and of its type, each method can be called."""
        lost = [name for name in (*_ATTRIBUTES, *_CALLS) if not hasattr(device, name)]
        assert lost == [], f"the device has no {', '.join(lost)}; devices/api.py says what they are"
        for name, kind in _ATTRIBUTES.items():
            found = getattr(device, name)
            assert isinstance(found, kind), f"{name} is a {type(found).__name__} ({found!r}), expected {kind.__name__}"
            if kind is tuple:
                assert all(isinstance(word, str) and word for word in found), f"{name} must hold words, found {found!r}"
        for name in _CALLS:
            assert callable(getattr(device, name)), f"{name} is no method"

    def test_its_words_can_stand_in_a_case_id(self, device: Device) -> None:
        """A name is part of ids, of files of locks and of command lines with -k."""
        assert WORD.fullmatch(device.name), f"the name {device.name!r} may hold letters, digits, `_` and `.` only"
        assert not device.name.startswith("any."), f"the name {device.name!r} begins with `any.`, which selects by tag"
        bad = [word for word in device.frameworks if not WORD.fullmatch(word)]
        assert bad == [], f"frameworks {bad} may hold letters, digits, `_` and `.` only"

    def test_its_resources_begin_with_its_name(self, device: Device) -> None:
        """Who waits for the device, and who asks who holds it, looks for its name."""
        held = device.resources
        assert held[:1] == (device.name,), f"resources are {held}, expected {device.name!r} first"
        assert len(set(held)) == len(held), f"resources name one thing twice: {held}"
        both = sorted({*held} & {*device.shares})
        assert both == [], f"{both} cannot be held alone and be shared"

    def test_it_says_how_far_it_was_verified(self, device: Device) -> None:
        """Docs and `mlbench devices` show it."""
        assert device.verified in VERIFIED, f"verified is {device.verified!r}, expected one of {', '.join(VERIFIED)}"

    def test_an_emulator_here_burdens_the_processor(self, device: Device) -> None:
        """Else a case of this machine would be timed beside it."""
        if device.emulated and device.is_host:
            told = "it emulates on this machine: name `cpu` in shares, or in resources"
            assert "cpu" in (*device.shares, *device.resources), told

    # --- whether it is there ---------------------------------------------------------------------------

    def test_probe_answers_nothing_or_a_sentence_with_its_remedy(self, device: Device) -> None:
        """It answers in time, and the same when asked again."""
        reason = _probe(device)
        assert reason == "" or _is_told(reason), f"probe() says {reason!r}: say what is wrong, then the remedy"
        assert _probe(device) == reason, "probe() says another thing when it is asked again"

    def test_probe_tells_of_a_device_that_is_not_there(self, absent: Device | None) -> None:
        """The reason is what a user reads when a case is skipped or fails."""
        if absent is None:
            pytest.skip("no fixture `absent` gives a device that is not there")
        reason = _probe(absent)
        assert reason, "probe() says that a device which is not there can be used"
        assert _is_told(reason), f"probe() says {reason!r}: say what is wrong, then the remedy behind `;` or `:`"

    def test_probe_takes_no_lease(self, device: Device) -> None:
        """While another session holds the device, it answers as before; it leaves nothing held."""
        reason = _probe(device)
        with lease.hold(device.resources, timeout_s=5.0):
            assert _probe(device) == reason, "probe() answers differently while another session holds the device"
        held = {name: locks.users(name) for name in device.resources}
        assert not any(held.values()), f"after probe() something is held: {held}"

    # --- plain values ----------------------------------------------------------------------------------

    def test_facts_are_plain_and_stay(self, device: Device) -> None:
        """They are kept in records, and two records are compared only when they are equal."""
        _usable(device)
        first, second = dict(device.facts()), dict(device.facts())
        wrong = not_plain(first, "facts()")
        assert not wrong, "; ".join(wrong)
        changed = sorted(key for key in {*first, *second} if first.get(key) != second.get(key))
        assert changed == [], f"facts() changes from call to call: {changed}; keep what identifies the target only"

    def test_connection_is_plain_and_names_what_travels(self, device: Device) -> None:
        """An agent that drives a board gets it as an option."""
        connection = _connection(device)
        wrong = not_plain(connection, "connection()")
        assert not wrong, "; ".join(wrong)
        if not connection:
            assert "firmware" not in device.frameworks, "a board's connection() says how it is reached; it is empty"
            return
        transport = connection.get("transport", "")
        known = {deploy.target_module(module) for module in device.shipped}
        if str(transport).startswith("mlbench_adapters."):
            told = (
                f"connection()['transport'] is {transport!r}, but what travels is {sorted(known)}; name it in shipped"
            )
            assert transport in known, told
        bad = [key for key in vars(LineSettings()) if type(connection.get(key)) is str and key not in ("mode", "name")]
        assert bad == [], f"connection() gives {bad} as text, which the protocol wants as numbers or bools"

    # --- what travels ----------------------------------------------------------------------------------

    def test_what_travels_needs_nothing_installed(self, device: Device) -> None:
        """Its modules run where the agent is: with Python 3.9's syntax, the standard library and numpy."""
        targets = [deploy.target_module(module) for module in device.shipped]
        assert len(set(targets)) == len(targets), f"two modules would both travel as one: {device.shipped}"
        if not targets:
            return
        names = names_on_target(deploy.agent_sources(FIRMWARE, device), targets)
        transport = _connection(device).get("transport", "")
        assert transport not in names or "open_transport" in names[transport], f"{transport} has no open_transport()"

    # --- the target ------------------------------------------------------------------------------------

    def test_an_agent_starts_and_reads_what_was_placed(self, device: Device, tmp_path: Path) -> None:
        """The agent gets the path that place() returned, with the file's own content behind it."""
        _usable(device)
        file = tmp_path / "the model's file.bin"
        file.write_bytes(bytes(range(256)) * 8)
        placed = device.place(file)
        assert device.place(file) == placed, "place() gives the same file another path when it is asked again"
        sources = {**deploy.agent_sources(), "mlbench_adapters": "", "mlbench_adapters.contract_reader": _READER}
        with deploy.Agent(device, None, sources) as agent:
            adapter = "mlbench_adapters.contract_reader"
            asked = {"adapter": adapter, "path": placed, "out_dir": "", "options": {}}
            found = agent.call("inputs", "prepare", TARGET_S, **asked)
            told = f"{placed} on the target has another content than the file that was placed"
            assert found == hashlib.sha256(file.read_bytes()).hexdigest(), told


def _probe(device: Device) -> str:
    reason = probed({device.name: device})[device.name]
    assert isinstance(reason, str), f"probe() returns {reason!r}, expected text"
    assert not reason.startswith(_NO_ANSWER), f"probe(): {reason}"
    return reason


def _is_told(reason: str) -> bool:
    """Tell whether a reason is one line, of some words, with a remedy after what is wrong."""
    return len(reason.split()) >= 4 and re.search(r"[:;?]\s+\S", reason) is not None and "\n" not in reason


def _usable(device: Device) -> None:
    reason = _probe(device)
    if reason:
        missing(f"device {device.name} cannot be used now: {reason}")


def _connection(device: Device) -> dict[str, Any]:
    try:
        return dict(device.connection())
    except Unavailable as error:
        missing(str(error))
