"""A board at an address of its own: a network namespace on the other end of a virtual cable, which can be pulled."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's")

_S = 20.0


@dataclass(frozen=True)
class Cable:
    """A pair of virtual network cards: one here, one in a namespace of its own."""

    namespace: str
    card: str  # the board's, in the namespace
    address: str  # the board's

    def pull(self) -> None:
        """Let nothing through any more. Our own card stays up, else the route would lead elsewhere."""
        ip("-n", self.namespace, "link", "set", self.card, "down")


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_S, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    mark = uuid.uuid4().hex[:6]
    number = int(mark[:4], 16)
    here, there = (f"10.213.{number >> 8}.{(number & 0x7F) << 1 | last}" for last in (0, 1))  # one /31 a test
    found, card = Cable(f"mlb-{mark}", f"mlb{mark}b", there), f"mlb{mark}a"
    ip("netns", "add", found.namespace)
    try:
        ip("link", "add", card, "type", "veth", "peer", "name", found.card)
        ip("link", "set", found.card, "netns", found.namespace)
        ip("addr", "add", f"{here}/31", "dev", card)
        ip("link", "set", card, "up")
        ip("-n", found.namespace, "addr", "add", f"{there}/31", "dev", found.card)
        ip("-n", found.namespace, "link", "set", found.card, "up")
        ip("-n", found.namespace, "link", "set", "lo", "up")
        yield found
    finally:
        with contextlib.suppress(OSError):  # else it stays until the last connection over it has ended
            ip("link", "del", card)
        ip("netns", "del", found.namespace)


@pytest.fixture
def remote(ssh_server, bed):
    """The bed, the board's sshd in a namespace, and the cable to it."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        may_not_skip("a network namespace needs root and `ip` (apt-get install iproute2)")
    with contextlib.ExitStack() as stack:
        try:
            line = stack.enter_context(cable())
        except OSError as error:
            may_not_skip(f"a network namespace cannot be made: {error}")
        ssh_server.stop()
        ssh_server.address, ssh_server.prefix = line.address, ("ip", "netns", "exec", line.namespace)
        passed = ("MLBENCH_TEST_TAG", "MLBENCH_FAULTY_LOG", "MLBENCH_FAULTY_HOLD")
        ssh_server.env = {name: bed.env[name] for name in passed}
        ssh_server.know(ssh_server.folder / "host_key.pub")
        ssh_server.write_client()
        ssh_server.start()
        bed.env["MLBENCH_LAB"] = str(ssh_server.lab(heartbeat_s=3.0))
        yield bed, ssh_server, line
        ssh_server.stop()


def may_not_skip(reason):
    if os.environ.get("MLBENCH_REQUIRE_ALL") == "1" and os.geteuid() == 0:
        pytest.fail(f"{reason}; MLBENCH_REQUIRE_ALL=1 demands it of root", pytrace=False)
    pytest.skip(reason)


def test_a_board_at_an_address_of_its_own(remote):
    bed, _, line = remote
    assert line.address not in ip("addr"), "it is not this machine's"
    bed.suite(benchmark='device = ["pi5"]')
    result = bed.run()
    assert result.code == 0, result.out
    assert result.records["faulty"].outcome == "pass"


def test_a_network_that_falls_silent_is_noticed_on_both_sides(remote):
    bed, server, line = remote
    bed.held.touch()
    bed.suite('{ name = "faulty", options = { fault = "hold", stage = "measure" } }', benchmark='device = ["pi5"]')
    running = bed.start()
    bed.wait_for_event("hold")
    agent = next(event["pid"] for event in bed.events() if event["event"] == "hold")
    line.pull()
    # Here ssh notices, there the keeper: its sshd knows of nothing yet.
    running._process.wait(30)
    text = " ".join(running._output.read_text().split())
    assert "device 'pi5': the connection fell silent (Timeout, server" in text
    assert "a longer silence is allowed by `heartbeat_s` in the lab file" in text
    end = time.monotonic() + 15
    while Path(f"/proc/{agent}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{agent}").exists(), "the agent outlived the silence"
    assert server.process.poll() is None, "it was not sshd that ended it"


def test_a_board_whose_cable_is_out(remote):
    bed, server, line = remote
    line.pull()
    bed.env["MLBENCH_LAB"] = str(server.lab(connect_timeout_s=1))
    bed.suite(benchmark='device = ["pi5"]')
    result = bed.start().wait(60)
    (record,) = result.run.records
    assert (record.outcome, record.stage) == ("error", "start")
    assert "device 'pi5': the board does not answer" in record.reason
