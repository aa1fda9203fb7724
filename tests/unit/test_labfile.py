"""Lab files: what is accepted, and every way in which one can be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_mlbench import labfile
from pytest_mlbench.devices.api import Setting
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.lab import Lab, LabDevice, Secret, unknown_device
from pytest_mlbench.labfile import LabKnown, load_lab

SHELL = [";", "&", "|", "<", ">", "$", "`", '"', "'", "\\", "(", ")", "{", "}", "*", "?", "[", "]", "!", "#", "~", "%"]


@dataclass(frozen=True)
class Rack:
    """A type of device with a setting of each kind."""

    settings: dict = field(
        default_factory=lambda: {
            "host": Setting(str, "Where it is.", required=True, unique=True),
            "port": Setting(str, "Its serial port.", pattern=r"/[A-Za-z0-9_./-]+", unique=True),
            "baud": Setting(int, "Bits a second.", default=115200, minimum=300),
            "settle_s": Setting(float, "Seconds.", default=0.5, minimum=0.0),
            "reset": Setting(bool, "Whether.", default=True),
            "mode": Setting(str, "How.", default="performance", choices=("performance", "energy")),
            "flash": Setting(list[str], "The command.", default=()),
            "key": Setting(str, "To open it.", secret=True),
        }
    )
    verified: str = "own simulator"

    def make(self, entry):
        return Cpu(name=entry.name, resources=entry.resources)


KNOWN = LabKnown(
    types={"rack": Rack()},
    devices=("cpu", "qemu_m4"),
    boards=("raspberry_pi_5", "nucleo_l4r5zi"),
    broken={"acme": "device 'acme' (acme:TYPE) cannot be loaded: No module named 'sdk'"},
)


@pytest.fixture
def load(tmp_path):
    def of(text, known=KNOWN, schema=True):
        path = tmp_path / "lab.toml"
        path.write_text(("mlbench = 1\n" if schema else "") + text, encoding="utf-8")
        return load_lab(path, known)

    return of


def one(text):
    return f'[device.pi5]\ntype = "rack"\nhost = "pi5.lab"\n{text}\n'


def refused(load, text, **options):
    with pytest.raises(SuiteError) as caught:
        load(text, **options)
    return str(caught.value)


# --- what is read -------------------------------------------------------------------------------------------


def test_a_device_with_all_its_keys(load, tmp_path):
    found = load(
        one(
            'board = "raspberry_pi_5"\ntags = ["arm64", "bench.1"]\nmeter = "ppk2_a"\nport = "/dev/ttyACM0"\n'
            'baud = 9600\nsettle_s = 1\nreset = false\nmode = "energy"\nflash = ["pyocd", "flash", "-t", "{board}"]\n'
            'switch = { kind = "command", cycle = ["pdu", "cycle", "3"], resource = "pdu" }'
        )
    )
    assert found.file == tmp_path / "lab.toml"
    device = found.devices["pi5"]
    assert (device.name, device.type, device.board) == ("pi5", "rack", "raspberry_pi_5")
    assert device.tags == ("arm64", "bench.1")
    assert device.resources == ("pi5", "ppk2_a", "pdu")
    assert device.settings == {
        "host": "pi5.lab",
        "port": "/dev/ttyACM0",
        "baud": 9600,
        "settle_s": 1.0,
        "reset": False,
        "mode": "energy",
        "flash": ("pyocd", "flash", "-t", "{board}"),
        "key": None,
    }


def test_what_is_not_set_has_its_default(load):
    device = load(one("")).devices["pi5"]
    assert device.settings["baud"] == 115200
    assert device.settings["settle_s"] == 0.5
    assert device.settings["reset"] is True
    assert device.settings["flash"] == ()
    assert device.settings["port"] is None
    assert (device.board, device.tags, device.meter, device.switch) == ("", (), "", {})
    assert device.resources == ("pi5",)


def test_the_words_a_suite_may_use_are_names_and_tags_in_the_files_order(load):
    found = load(
        '[device.b]\ntype = "rack"\nhost = "b"\ntags = ["m4", "fast"]\n'
        '[device.a]\ntype = "rack"\nhost = "a"\ntags = ["m4"]\n'
    )
    assert list(found.words()) == ["b", "a", "any.m4", "any.fast"]
    assert found.tags() == {"m4": ("b", "a"), "fast": ("b",)}


def test_a_meter_may_serve_two_devices(load):
    found = load(one('meter = "ppk2"') + one('meter = "ppk2"').replace("pi5", "pi4"))
    assert [device.resources for device in found.devices.values()] == [("pi5", "ppk2"), ("pi4", "ppk2")]


# --- secrets ------------------------------------------------------------------------------------------------


def test_a_secret_is_the_name_of_a_variable_and_is_read_when_it_is_needed(load, monkeypatch, tmp_path):
    secret = load(one('key = { env = "RACK_KEY" }')).devices["pi5"].settings["key"]
    assert isinstance(secret, Secret)
    monkeypatch.setenv("RACK_KEY", "open sesame")
    assert secret.reveal() == "open sesame"
    assert "sesame" not in repr(secret)
    for value in (None, ""):
        monkeypatch.delenv("RACK_KEY") if value is None else monkeypatch.setenv("RACK_KEY", value)
        with pytest.raises(MlbenchError) as caught:
            secret.reveal()
        wanted = (
            f"{tmp_path / 'lab.toml'}: device.pi5.key: the environment variable RACK_KEY is not set; export it first"
        )
        assert str(caught.value) == wanted


def test_a_secret_in_plain_text_is_refused_and_not_shown(load):
    told = refused(load, one('key = "hunter2"'))
    assert "device.pi5.key: is a secret, which may not stand in a file" in told
    assert '{ env = "NAME" }' in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{}", 'the key "env" is missing'),
        ('{ env = "A B" }', 'device.pi5.key.env: expected the name of an environment variable, found "A B"'),
        ('{ env = "A", value = "hunter2" }', "device.pi5.key.value: unknown key; Keys here: env"),
        ("{ env = 3 }", "expected a string, found 3"),
    ],
)
def test_a_secret_that_names_no_variable(load, value, message):
    assert message in refused(load, one(f"key = {value}"))


@pytest.mark.parametrize("key", ["password", "api_key", "PDU_TOKEN", "passphrase"])
def test_a_key_that_looks_like_a_secret_says_so(load, key):
    told = refused(load, one(f'{key} = "hunter2"'))
    assert f"device.pi5.{key}: a lab file holds no secrets" in told
    assert "hunter2" not in told


# --- the file -----------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(SuiteError) as caught:
        load_lab(tmp_path / "none.toml", KNOWN)
    assert str(caught.value) == f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"


def test_malformed_toml_is_named_by_its_line(load):
    assert "malformed TOML: " in (told := refused(load, '[device.pi5]\ntype = "rack\n'))
    assert "line 3" in told


def test_a_name_given_twice_is_malformed(load):
    told = refused(load, one("") + one(""))
    assert "malformed TOML: " in told
    assert "(at line 6" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lab.toml: holds no device; write for example: [device.pi5]"),
        ("[devices.pi5]\n", 'devices: unknown key; did you mean "device"? Keys here: mlbench, device'),
        ("device = 3\n", "device: expected a table, found 3"),
        ("[device]\npi5 = 3\n", "device.pi5: expected a table, found 3"),
        ("[device.pi5]\n", 'device.pi5: the key "type" is missing; write for example: type = "ssh"'),
        ('[device.pi5]\ntype = "rak"\n', 'device.pi5.type: unknown type of device "rak"; did you mean "rack"?'),
        ('[device.pi5]\ntype = "acme"\n', "device.pi5.type: device 'acme' (acme:TYPE) cannot be loaded: No module"),
        (
            '[device.pi5]\ntype = "rack"\n',
            'device.pi5: the key "host" is missing; write for example: host = ... (Where',
        ),
        ('[device."pi 5"]\ntype = "rack"\n', 'device."pi 5": "pi 5" may hold only letters, digits, "_" and "."'),
        ('[device."../x"]\ntype = "rack"\n', '"../x" may hold only letters'),
        ('[device."-x"]\ntype = "rack"\n', '"-x" may hold only letters'),
        ("[device.cpu]\n", 'device.cpu: "cpu" is registered by an installed package; give this device another name'),
        ("[device.rack]\n", 'device.rack: "rack" is registered'),
        ('[device."rack.0"]\n', 'device."rack.0": "rack.0" is registered'),
        ('[device."any.m4"]\n', 'device."any.m4": a name may not begin with "any.", which selects by tag'),
        ("[device.any]\n", 'device.any: a name may not begin with "any."'),
        (one("") + one("").replace("pi5", "PI5"), 'device.PI5: differs from "pi5" by upper and lower case only'),
        (
            one("bord = 1"),
            'device.pi5.bord: unknown key; did you mean "board"? Keys of a device of type "rack": type, ',
        ),
        (
            one('board = "raspberry_pi5"'),
            'device.pi5.board: unknown board "raspberry_pi5"; did you mean "raspberry_pi_5"',
        ),
        (one('tags = "m4"'), 'device.pi5.tags: expected a list of tags, found "m4" (a string); write ["m4"]'),
        (one('tags = ["m4", "m 4"]'), 'device.pi5.tags[1]: "m 4" may hold only letters'),
        (one('tags = ["m4", "m4"]'), 'device.pi5.tags[1]: tag "m4" is given twice'),
        (one('meter = "a/b"'), 'device.pi5.meter: "a/b" may hold only letters'),
        (one('meter = "cpu"'), 'device.pi5.meter: "cpu" is a registered device, not a meter'),
        (one('meter = "pi5"'), 'device.pi5.meter: "pi5" is a device of this file; a meter has a name of its own'),
        (one("baud = 1.5"), "device.pi5.baud: expected a whole number, found 1.5"),
        (one("baud = 0"), "device.pi5.baud: must be at least 300, found 0"),
        (one("settle_s = -1"), "device.pi5.settle_s: must be at least 0, found -1"),
        (one("settle_s = nan"), "device.pi5.settle_s: expected a finite number"),
        (one("reset = 1"), "device.pi5.reset: expected true or false, found 1"),
        (one('mode = "fast"'), 'device.pi5.mode: unknown choice "fast". Known choices: performance, energy'),
        (one("flash = [1]"), "device.pi5.flash[0]: expected a string, found 1"),
        (one('flash = ["-x"]'), 'device.pi5.flash[0]: "-x" is an option; the first word is the program'),
        (one('flash = "pyocd flash"'), "device.pi5.flash: expected a list of strings"),
        (one(r'flash = ["a", "b\nc"]'), "device.pi5.flash[1]: holds a control character"),
        (one('flash = ["a", "--token=x"]'), "device.pi5.flash[1]: looks like a secret"),
    ],
)
def test_a_wrong_file_is_told_with_its_key(load, text, message):
    assert message in refused(load, text)


def test_the_schema_is_named_and_known(load):
    assert 'the key "mlbench" is missing; write for example: mlbench = 1' in refused(load, one(""), schema=False)
    told = refused(load, "mlbench = 2\n" + one(""), schema=False)
    assert "mlbench: schema 2 is not known, this version reads 1; update pytest-mlbench" in told


# --- what reaches a command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("character", SHELL)
@pytest.mark.parametrize("key", ["host", "port"])
def test_what_means_something_to_a_shell_is_refused(load, key, character):
    value = {"host": "a", "port": "/dev/a"}[key] + character
    text = one(f"port = {toml(value)}") if key == "port" else one("").replace('"pi5.lab"', toml(value))
    told = refused(load, text)
    assert f"device.pi5.{key}: {value!r} is not accepted, " in told
    assert f'"{character}" means something to a shell' in told
    assert "It must match " in told


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("-oProxyCommand=x", "a program would take it for an option"),
        ("a b", "it holds white space or a control character"),
        ("a\n", "it holds white space or a control character"),
        ("a\x00b", "it holds white space or a control character"),
        ("../a", "it holds a path separator where no path is expected"),
    ],
)
def test_options_white_space_and_paths_are_refused_where_they_are_not_meant(load, value, why):
    told = refused(load, one("").replace('"pi5.lab"', toml(value)))
    assert f"device.pi5.host: {value!r} is not accepted, {why}: Where it is. It must match {labfile.SAFE}" in told


def toml(text):
    return '"' + "".join(f"\\u{ord(character):04x}" for character in text) + '"'


# --- devices together -----------------------------------------------------------------------------------------


def two(first, second):
    return one(first) + one(second).replace("pi5", "pi4").replace('"pi4.lab"', '"other.lab"')


def test_one_port_of_two_devices_is_refused(load):
    told = refused(load, two('port = "/dev/ttyACM0"', 'port = "/dev/ttyACM0"'))
    assert 'device.pi4.port: is also that of device "pi5": /dev/ttyACM0; each is wired to its own' in told


def test_one_port_by_two_names_is_refused(load, tmp_path):
    (tmp_path / "ttyACM0").touch()
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyACM0")
    told = refused(load, two(f'port = "{tmp_path}/ttyACM0"', f'port = "{tmp_path}/by-id"'))
    assert 'device.pi4.port: is also that of device "pi5"' in told


def test_what_need_not_be_unique_may_be_the_same(load):
    assert len(load(two("baud = 9600", "baud = 9600")).devices) == 2


def test_one_hub_port_of_two_devices_is_refused(load):
    switch = 'switch = { kind = "uhubctl", hub = "1-1.4", port = 3 }'
    told = refused(load, two(switch, switch))
    assert 'device.pi4.switch: is also that of device "pi5": hub 1-1.4 port 3' in told
    assert load(two(switch, switch.replace("3", "4"))).devices["pi4"].switch["port"] == 4


def test_a_type_whose_setting_is_every_devices_is_its_vendors_fault(load):
    wrong = Rack(settings={"tags": Setting(str, "Wrong.")})
    with pytest.raises(MlbenchError) as caught:
        load('[device.a]\ntype = "rack"\n', known=LabKnown({"rack": wrong}, (), ()))
    assert "device type 'rack' has a setting 'tags', which every device has: tell its vendor" in str(caught.value)


# --- a name that is not known -----------------------------------------------------------------------------------

LAB = Lab(
    Path("lab.toml"),
    {"pi5": LabDevice("pi5", "rack", Path("lab.toml"), tags=("m4", "fast"))},
)


@pytest.mark.parametrize(
    ("name", "lab", "message"),
    [
        (
            "pi5",
            Lab(),
            'unknown device "pi5". Known devices: cpu; a site\'s own devices are known with its lab file: '
            "--mlbench-lab FILE, or MLBENCH_LAB",
        ),
        (
            "rack",
            Lab(),
            '"rack" is a type of device: describe one in a lab file ([device.NAME] with type = "rack") '
            "and give that with --mlbench-lab or MLBENCH_LAB",
        ),
        ("pi6", LAB, 'unknown device "pi6"; did you mean "pi5"? Known devices: cpu, pi5 (with the lab file lab.toml)'),
        ("any.m5", LAB, 'no device of lab.toml has the tag "m5"; tags there: m4, fast'),
    ],
)
def test_a_device_that_is_not_known(name, lab, message):
    known = ("cpu", *lab.devices)
    assert unknown_device(name, known, ("rack",), lab) == message


def test_an_error_of_a_device_names_file_and_key():
    entry = LabDevice("pi.5", "rack", Path("lab.toml"))
    assert str(entry.error("host", "is wrong")) == 'lab.toml: device."pi.5".host: is wrong'
