"""Power switches: real programs that play a power strip and uhubctl, and every way in which they fail."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest

from pytest_mlbench.agent.board import BoardError
from pytest_mlbench.agent.power_switch import make

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")

# Prints what uhubctl 2.5 prints; its state is a file. With STUCK set, the hub takes the request and does nothing.
UHUBCTL = """#!/bin/sh
echo "$@" >> "$LOG"
state() {
  [ "$(cat "$STATE")" = off ] && echo "  Port 3: 0000 off" || echo "  Port 3: 0503 power highspeed enable connect"
}
[ "$2" = 9-9 ] && { echo "No compatible devices detected at location 9-9!" >&2; exit 1; }
echo "Current status for hub $2 [1d6b:0002]"; state
[ "$STUCK" = "$6" ] || echo "$6" > "$STATE"
echo "Sent power $6 request"
echo "New status for hub $2 [1d6b:0002]"; state
"""
PDU = '#!/bin/sh\necho "$@" >> "$LOG"\n'


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put an executable script on the path."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STATE", str(tmp_path / "state"))

    def write(name, text):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return write


def log(tmp_path):
    return (tmp_path / "log").read_text(encoding="utf-8").splitlines()


def command(*words, **more):
    return make({"kind": "command", "cycle": list(words), **more})


def failure(switch):
    with pytest.raises(BoardError) as caught:
        switch.cycle()
    return str(caught.value)


# --- programs of the site -------------------------------------------------------------------------------------


def test_two_programs_get_their_words_as_they_are_and_no_shell(program, tmp_path):
    program("pdu", PDU)
    make({"kind": "command", "on": ["pdu", "7", "$(id); on"], "off": ["pdu", "7", "*"], "off_s": 0.0}).cycle()
    assert log(tmp_path) == ["7 *", "7 $(id); on"]


def test_a_program_for_all_of_it_goes_before_two(program, tmp_path):
    program("pdu", PDU)
    make({"kind": "command", "cycle": ["pdu", "cycle"], "on": ["pdu", "on"], "off": ["pdu", "off"]}).cycle()
    assert log(tmp_path) == ["cycle"]


def test_the_power_is_away_for_a_while(program, tmp_path):
    program("pdu", '#!/bin/sh\ndate +%s%N >> "$LOG"\n')
    make({"kind": "command", "on": ["pdu"], "off": ["pdu"], "off_s": 0.2}).cycle()
    off, on = map(int, log(tmp_path))
    assert on - off >= 0.2e9


def test_the_power_is_not_given_back_when_it_could_not_be_taken(program, tmp_path):
    program("pdu", '#!/bin/sh\necho "$@" >> "$LOG"\nexit 1\n')
    told = failure(make({"kind": "command", "on": ["pdu", "on"], "off": ["pdu", "off"], "off_s": 0.0}))
    assert told == "power switch: `pdu off` failed with exit status 1; it printed nothing"
    assert log(tmp_path) == ["off"]


def test_a_program_that_fails_is_told_with_its_last_words(program):
    program("pdu", "#!/bin/sh\nseq 9\necho 'outlet 7 is locked' >&2\nexit 3\n")
    told = failure(command("pdu", "7"))
    assert told == "power switch: `pdu 7` failed with exit status 3: 6 / 7 / 8 / 9 / outlet 7 is locked"


def test_a_program_that_hangs_is_ended_at_its_deadline_with_what_it_started(program, tmp_path):
    program("pdu", '#!/bin/sh\nsleep 300 &\necho $! > "$LOG"\nwait\n')
    begin = time.monotonic()
    told = failure(command("pdu", deadline_s=0.5))
    assert time.monotonic() - begin < 60
    assert told == "power switch: `pdu` did not end within 0.5 s (deadline_s) and was ended"
    (child,) = log(tmp_path)
    end = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path("/proc/self").exists() or not Path(f"/proc/{child}").exists()


def test_a_program_that_is_not_there():
    told = failure(command("no-such-pdu", "7"))
    assert told == (
        "power switch: no-such-pdu cannot be run: No such file or directory; install it, or correct the device's "
        "`switch`"
    )


def test_a_program_that_asks_gets_no_answer(program):
    program("pdu", "#!/bin/sh\nread answer || { echo 'password?'; exit 4; }\n")
    assert failure(command("pdu")) == "power switch: `pdu` failed with exit status 4: password?"


def test_a_program_inherits_the_environment(program, tmp_path, monkeypatch):
    program("pdu", '#!/bin/sh\necho "$PDU_PASSWORD" >> "$LOG"\n')
    monkeypatch.setenv("PDU_PASSWORD", "hunter2")
    command("pdu").cycle()
    assert log(tmp_path) == ["hunter2"]


# --- a USB hub ------------------------------------------------------------------------------------------------


def hub(**more):
    return make({"kind": "uhubctl", "hub": "1-1.4", "port": 3, "off_s": 0.0, **more})


def test_a_port_of_a_hub_is_switched(program, tmp_path):
    program("uhubctl", UHUBCTL)
    hub().cycle()
    assert log(tmp_path) == ["-l 1-1.4 -p 3 -a off", "-l 1-1.4 -p 3 -a on"]
    assert (tmp_path / "state").read_text(encoding="utf-8").strip() == "on"


def test_a_port_is_without_power_for_a_while(program, tmp_path):
    program("uhubctl", '#!/bin/sh\ndate +%s%N >> "$LOG"\necho "  Port 3: 0000 $6"\n')
    hub(off_s=0.2).cycle()
    off, on = map(int, log(tmp_path))
    assert on - off >= 0.2e9


@pytest.mark.parametrize(("stuck", "state"), [("off", "on"), ("on", "off")])
def test_a_hub_that_takes_the_request_and_does_nothing_is_found_out(program, monkeypatch, stuck, state):
    program("uhubctl", UHUBCTL)
    monkeypatch.setenv("STUCK", stuck)
    assert failure(hub()) == (
        f"power switch: port 3 of hub 1-1.4 was switched {stuck} and is {state}; does this hub switch power per port? "
        "`uhubctl` lists those that do"
    )


def test_a_hub_without_such_a_port_is_found_out(program):
    program("uhubctl", UHUBCTL)
    assert "port 4 of hub 1-1.4 was switched off and is unknown" in failure(hub(port=4))


def test_a_hub_that_is_not_there(program):
    program("uhubctl", UHUBCTL)
    told = failure(hub(hub="9-9"))
    assert "`uhubctl -l 9-9 -p 3 -a off` failed with exit status 1: No compatible devices detected" in told


def test_a_missing_uhubctl_is_told_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure(hub()).endswith(
        "uhubctl cannot be run: No such file or directory; install it, apt-get install uhubctl"
    )
