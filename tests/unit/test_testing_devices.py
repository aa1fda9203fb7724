"""The contracts of devices and their types find what is wrong, and say what would be right."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_mlbench import lease
from pytest_mlbench.devices.api import Setting
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.devices_command import probed
from pytest_mlbench.errors import Unavailable
from pytest_mlbench.testing import DeviceContract, DeviceTypeContract
from pytest_mlbench.testing import devices as testing_devices
from pytest_mlbench.testing.plain import not_plain

CONTRACT = DeviceContract()
TYPE_CONTRACT = DeviceTypeContract()
failed = pytest.fail.Exception
skipped = pytest.skip.Exception


@dataclass(frozen=True)
class Board(Cpu):
    """A board that a test breaks in one way."""

    name: str = "acme_m4"
    resources: tuple[str, ...] = ("acme_m4",)
    told: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def connection(self) -> Mapping[str, Any]:
        return self.told

    def facts(self) -> Mapping[str, Any]:
        return self.told

    def probe(self) -> str:
        return self.reason


GOOD = Board()


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_STATE", str(tmp_path / "locks"))


def broken(**changes: Any) -> Board:
    return replace(GOOD, **changes)


# --- what it says of itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (object(), "the device has no name, resources, .*, probe; devices/api.py says what they are"),
        (broken(resources="acme_m4"), r"resources is a str \('acme_m4'\), expected tuple"),
        (broken(resources=("acme_m4", "")), r"resources must hold words, found \('acme_m4', ''\)"),
        (broken(is_host="yes"), "is_host is a str"),
        (broken(shipped=["a"]), "shipped is a list"),
    ],
)
def test_a_member_that_is_missing_or_of_another_type(device, message):
    with pytest.raises(AssertionError, match=message):
        CONTRACT.test_it_has_every_member(device)


def test_a_member_that_is_no_method():
    class NoMethod(Board):
        probe = ""

    with pytest.raises(AssertionError, match="probe is no method"):
        CONTRACT.test_it_has_every_member(NoMethod())


@pytest.mark.parametrize("name", ["acme-m4", "acme m4", "", "acme/m4", "any.m4"])
def test_a_name_that_no_case_id_can_hold(name):
    with pytest.raises(AssertionError, match="the name"):
        CONTRACT.test_its_words_can_stand_in_a_case_id(broken(name=name))


def test_a_framework_that_no_suite_can_name():
    with pytest.raises(AssertionError, match=r"frameworks \['firm ware'\] may hold letters"):
        CONTRACT.test_its_words_can_stand_in_a_case_id(broken(frameworks=("firmware", "firm ware")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources": ("cpu", "acme_m4")}, r"resources are \('cpu', 'acme_m4'\), expected 'acme_m4' first"),
        ({"resources": ()}, r"resources are \(\)"),
        ({"resources": ("acme_m4", "ppk", "ppk")}, "resources name one thing twice"),
        ({"resources": ("acme_m4", "cpu"), "shares": ("cpu",)}, r"\['cpu'\] cannot be held alone and be shared"),
    ],
)
def test_resources_that_do_not_begin_with_its_name(changes, message):
    with pytest.raises(AssertionError, match=message):
        CONTRACT.test_its_resources_begin_with_its_name(broken(**changes))


def test_a_word_for_verification_that_nobody_knows():
    with pytest.raises(AssertionError, match="verified is 'fully', expected one of hardware, third-party"):
        CONTRACT.test_it_says_how_far_it_was_verified(broken(verified="fully"))


def test_an_emulator_that_burdens_nobody():
    with pytest.raises(AssertionError, match="it emulates on this machine: name `cpu` in shares"):
        CONTRACT.test_an_emulator_here_burdens_the_processor(broken(emulated=True))
    CONTRACT.test_an_emulator_here_burdens_the_processor(broken(emulated=True, shares=("cpu",)))
    CONTRACT.test_an_emulator_here_burdens_the_processor(broken(emulated=True, is_host=False))


# --- whether it is there ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["no", "not there", "the board is broken", "line one: bad\nremedy here now"])
def test_a_reason_without_a_remedy(reason):
    for check in (CONTRACT.test_probe_answers_nothing_or_a_sentence_with_its_remedy,
                  CONTRACT.test_probe_tells_of_a_device_that_is_not_there):  # fmt: skip
        with pytest.raises(AssertionError, match="say what is wrong, then the remedy"):
            check(broken(reason=reason))


@pytest.mark.parametrize(
    "reason", ["there is no board in slot 3; plug one in", "x is not installed: apt-get install x"]
)
def test_a_reason_with_its_remedy(reason):
    CONTRACT.test_probe_answers_nothing_or_a_sentence_with_its_remedy(broken(reason=reason))
    CONTRACT.test_probe_tells_of_a_device_that_is_not_there(broken(reason=reason))


def test_a_probe_that_raises():
    class Raises(Board):
        def probe(self) -> str:
            raise OSError

    with pytest.raises(AssertionError, match=r"probe\(\): asking it failed: OSError"):
        CONTRACT.test_probe_answers_nothing_or_a_sentence_with_its_remedy(Raises())


def test_a_probe_that_hangs(monkeypatch):
    hangs = threading.Event()

    class Hangs(Board):
        def probe(self) -> str:
            hangs.wait()
            return ""

    monkeypatch.setattr(testing_devices, "probed", lambda devices: probed(devices, 0.05))
    with pytest.raises(AssertionError, match=r"probe\(\): it did not say within 0.05 s whether it can be used"):
        CONTRACT.test_probe_answers_nothing_or_a_sentence_with_its_remedy(Hangs())
    hangs.set()


def test_a_probe_that_answers_no_text():
    class Answers(Board):
        def probe(self) -> bool:  # type: ignore[override]
            return True

    with pytest.raises(AssertionError, match="returns True, expected text"):
        CONTRACT.test_probe_answers_nothing_or_a_sentence_with_its_remedy(Answers())


def test_a_device_that_is_not_there_and_can_be_used():
    with pytest.raises(AssertionError, match="a device which is not there can be used"):
        CONTRACT.test_probe_tells_of_a_device_that_is_not_there(GOOD)
    with pytest.raises(skipped, match="no fixture `absent`"):
        CONTRACT.test_probe_tells_of_a_device_that_is_not_there(None)


def test_a_probe_that_takes_a_lease():
    class Greedy(Board):
        def probe(self) -> str:
            try:
                with lease.hold(self.resources, timeout_s=0.1):
                    return ""
            except lease.StageError as error:
                return f"busy: {error}"

    with pytest.raises(AssertionError, match="answers differently while another session holds the device"):
        CONTRACT.test_probe_takes_no_lease(Greedy())


# --- plain values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": np.float64(1.5)}, "it['a'] is a float64"),
        ({"a": [1, Path("x")]}, "it['a'][1] is a "),
        ({"a": ("b",)}, "it['a'] is a tuple"),
        ({1: "b"}, "it has the key 1, expected text"),
        ({"a": float("nan")}, "it['a'] is nan, which JSON has not"),
    ],
)
def test_what_is_no_plain_value(value, message):
    assert any(line.startswith(message) for line in not_plain(value, "it"))


def test_what_is_plain():
    assert not_plain({"a": [1, 2.5, "x", None, True, {"b": []}]}, "it") == []


def test_facts_that_are_not_plain():
    with pytest.raises(AssertionError, match=r"facts\(\)\['where'\] is a "):
        CONTRACT.test_facts_are_plain_and_stay(broken(told={"where": Path("x")}))


def test_facts_that_change():
    class Counts(Board):
        calls: list[int] = []  # noqa: RUF012 - of this test alone

        def facts(self) -> Mapping[str, Any]:
            self.calls.append(1)
            return {"board": "m4", "calls": len(self.calls)}

    with pytest.raises(AssertionError, match=r"facts\(\) changes from call to call: \['calls'\]"):
        CONTRACT.test_facts_are_plain_and_stay(Counts())


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "a board's connection.* says how it is reached; it is empty"),
        ({"ports": ("a",)}, "is a tuple"),
        ({"transport": "mlbench_adapters.acme"}, r"is 'mlbench_adapters.acme', but what travels is \[\]; name it in"),
        ({"baud": "115200"}, r"gives \['baud'\] as text"),
    ],
)
def test_a_connection_that_no_agent_can_use(told, message):
    with pytest.raises(AssertionError, match=message):
        CONTRACT.test_connection_is_plain_and_names_what_travels(broken(told=told, frameworks=("firmware",)))


@pytest.mark.parametrize(("demanded", "outcome"), [("0", skipped), ("1", failed)])
def test_a_device_that_cannot_be_used_is_a_skip_or_where_all_is_demanded_a_failure(demanded, outcome, monkeypatch):
    class Away(Board):
        def connection(self) -> Mapping[str, Any]:
            raise Unavailable("the emulator is not installed: apt-get install it")

    monkeypatch.setenv("MLBENCH_REQUIRE_ALL", demanded)
    with pytest.raises(outcome, match="the emulator is not installed"):
        CONTRACT.test_connection_is_plain_and_names_what_travels(Away())
    with pytest.raises(outcome, match="device acme_m4 cannot be used now: it is away; fetch it"):
        CONTRACT.test_facts_are_plain_and_stay(broken(reason="it is away; fetch it"))


# --- what travels, and where to -----------------------------------------------------------------------------


@pytest.fixture
def shipping(tmp_path, monkeypatch):
    """Return a function that makes a device whose transport has a certain text."""

    def make(text: str, name: str = "acme_travels") -> Board:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return broken(shipped=(name,), told={"transport": f"mlbench_adapters.{name}"}, frameworks=("firmware",))

    monkeypatch.syspath_prepend(str(tmp_path))
    return make


GOOD_TRANSPORT = "from mlbench_agent.board import LineLost\nimport numpy\ndef open_transport(connection): ...\n"


def test_what_needs_nothing_installed_is_accepted(shipping):
    CONTRACT.test_what_travels_needs_nothing_installed(shipping(GOOD_TRANSPORT))
    CONTRACT.test_what_travels_needs_nothing_installed(GOOD)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import pytest_mlbench.errors\n", "cannot be imported on a target .* No module named 'pytest_mlbench"),
        ("import serial\n", "No module named 'serial'; import what may be missing inside the function"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("match x:\n    case 1: pass\n", "acme_travels, line 2: a target may have Python 3.9"),
    ],
)
def test_what_a_target_cannot_import(shipping, text, message):
    with pytest.raises(failed, match=message):
        CONTRACT.test_what_travels_needs_nothing_installed(shipping(text))


def test_a_transport_that_opens_nothing(shipping):
    with pytest.raises(AssertionError, match=r"mlbench_adapters.acme_travels has no open_transport\(\)"):
        CONTRACT.test_what_travels_needs_nothing_installed(shipping("import os\n"))


def test_two_modules_that_would_travel_as_one():
    with pytest.raises(AssertionError, match="two modules would both travel as one"):
        CONTRACT.test_what_travels_needs_nothing_installed(broken(shipped=("a.line", "b.line")))


def test_a_file_that_is_placed_wrongly(tmp_path):
    class Elsewhere(Board):
        def place(self, file: Path) -> str:
            (tmp_path / "other").write_bytes(b"other")
            return str(tmp_path / "other")

    with pytest.raises(AssertionError, match="other on the target has another content than the file that was placed"):
        CONTRACT.test_an_agent_starts_and_reads_what_was_placed(Elsewhere(), tmp_path)


def test_a_file_that_is_placed_anew_each_time(tmp_path):
    class Anew(Board):
        count: list[int] = []  # noqa: RUF012 - of this test alone

        def place(self, file: Path) -> str:
            self.count.append(1)
            return f"{file}{len(self.count)}"

    with pytest.raises(AssertionError, match="gives the same file another path when it is asked again"):
        CONTRACT.test_an_agent_starts_and_reads_what_was_placed(Anew(), tmp_path)


def test_a_contract_without_its_fixture_says_what_to_write(pytester):
    pytester.makepyfile(
        "from pytest_mlbench.testing import DeviceContract\n\n\nclass TestBoard(DeviceContract):\n    pass\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-k", "every_member")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*TestBoard has no fixture `device`: write one that returns the device*"])


def test_the_contracts_need_pytest_and_numpy_and_no_other_tool_of_tests():
    import subprocess
    import sys

    code = "import sys, pytest_mlbench.testing\n"
    code += "print(sorted({'xdist', 'hypothesis', 'psutil', 'serial', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# --- types --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Type:
    settings: Mapping[str, Setting] = field(default_factory=dict)
    verified: str = "own simulator"

    def make(self, entry: Any) -> Board:
        return Board(name=entry.name, resources=entry.resources)


@pytest.mark.parametrize(
    ("key", "setting", "message"),
    [
        ("Slot", Setting(int, "Where."), "setting 'Slot': use lower case"),
        ("tags", Setting(int, "Which."), "setting 'tags' is a key that every device has"),
        ("slot", Setting(int, "where it is"), "its help is a sentence with a full stop"),
        ("slot", Setting(int, "Where.", default="1"), "the default '1' is no int"),
        ("slot", Setting(int, "Where.", required=True, default=1), "is required and has a default"),
        ("slot", Setting(Path, "Where."), "has the type <class"),  # type: ignore[arg-type]
    ],
)
def test_a_setting_that_cannot_be_read_or_explained(key, setting, message):
    with pytest.raises(AssertionError, match=message):
        TYPE_CONTRACT.test_its_settings_can_be_read_and_explained(Type({key: setting}))


@pytest.mark.parametrize("kind", [str, list[str]])
def test_text_of_any_kind(kind):
    with pytest.raises(AssertionError, match="setting 'port' is text of any kind: give it a `pattern` or `choices`"):
        TYPE_CONTRACT.test_text_that_may_reach_a_command_line_is_held_to_a_pattern(
            Type({"port": Setting(kind, "Where.")})
        )
    held = Setting(kind, "Where.", pattern="[a-z]+")
    TYPE_CONTRACT.test_text_that_may_reach_a_command_line_is_held_to_a_pattern(Type({"port": held}))


def test_a_type_that_forgets_the_meter(tmp_path):
    class Forgets(Type):
        def make(self, entry: Any) -> Board:
            return Board(name=entry.name, resources=(entry.name,))

    with pytest.raises(AssertionError, match=r"resources begin with \('bench',\), expected those of the lab file"):
        TYPE_CONTRACT.test_it_makes_the_device_that_a_lab_file_describes(Forgets(), {}, tmp_path)


def test_a_type_that_names_its_device_itself(tmp_path):
    class Names(Type):
        def make(self, entry: Any) -> Board:
            return Board(name="mine", resources=entry.resources)

    with pytest.raises(AssertionError, match="the device is called 'mine', the lab file says 'bench'"):
        TYPE_CONTRACT.test_it_makes_the_device_that_a_lab_file_describes(Names(), {}, tmp_path)


def test_a_type_that_makes_another_device_each_time(tmp_path):
    class Anew(Type):
        def make(self, entry: Any) -> Board:
            return Board(name=entry.name, resources=entry.resources, told={"at": os.urandom(8)})

    with pytest.raises(AssertionError, match="the same entry makes another device"):
        TYPE_CONTRACT.test_it_makes_the_device_that_a_lab_file_describes(Anew(), {}, tmp_path)


def test_settings_of_every_kind_reach_the_type(tmp_path):
    kinds = {
        "slot": Setting(int, "Where."),
        "speed": Setting(float, "How fast."),
        "loud": Setting(bool, "Whether it is."),
        "flash": Setting(list[str], "Words.", pattern=".*"),
        "password": Setting(str, "Of its power strip.", secret=True),
    }
    values = {"slot": 1, "speed": 0.5, "loud": True, "flash": ["a", "b"], "password": {"env": "PDU_PASSWORD"}}
    TYPE_CONTRACT.test_it_makes_the_device_that_a_lab_file_describes(Type(kinds), values, tmp_path)
