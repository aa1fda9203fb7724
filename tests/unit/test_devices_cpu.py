"""The local processor as a device: how its agents are started."""

from __future__ import annotations

import sys

import execnet
import pytest

from pytest_mlbench.devices.cpu import Cpu


@pytest.mark.skipif(sys.platform == "win32", reason="makes a link")
def test_an_interpreter_whose_path_has_spaces_and_quotes_starts(tmp_path):
    python = tmp_path / "it's a folder" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    group = execnet.Group()
    try:
        gateway = group.makegateway(Cpu().gateway(python))
        assert gateway.remote_exec("import sys; channel.send(sys.version)").receive(30) == sys.version
    finally:
        group.terminate(timeout=1.0)


def test_without_a_choice_it_is_this_interpreter():
    assert Cpu().gateway(None).startswith("popen//python=")
    assert sys.executable in Cpu().gateway(None)
