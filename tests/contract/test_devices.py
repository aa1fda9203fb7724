"""Our own devices, types of device and transports are held to the contracts that vendors' are."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_mlbench.devices import cpu, cuda, serial, ssh
from pytest_mlbench.lab import LabDevice
from pytest_mlbench.testing import DeviceContract, DeviceTypeContract, FakeBoard, TransportContract
from pytest_mlbench.testing.fake_nvml import FakeGpu, FakeNvml

needs_terminals = pytest.mark.skipif(not hasattr(os, "openpty"), reason="the fake board is a pseudo-terminal")


class TestCpu(DeviceContract):
    @pytest.fixture
    def device(self):
        return cpu.DEVICE


class TestCuda(DeviceContract):
    """A GPU that a fake library tells of: nothing computes here."""

    @pytest.fixture
    def device(self):
        return cuda.CudaDevice("cuda.0", 0, library=FakeNvml([FakeGpu()]))

    @pytest.fixture
    def absent(self):
        return cuda.CudaDevice("cuda.7", 7, library=FakeNvml([FakeGpu()]))


@needs_terminals
class TestSerial(DeviceContract):
    @pytest.fixture
    def device(self, require):
        require("serial")
        with FakeBoard() as board:
            yield serial_device(board.port)

    @pytest.fixture
    def absent(self, require):
        require("serial")
        return serial_device("/dev/no-such-port")


class TestSsh(DeviceContract):
    @pytest.fixture
    def device(self, ssh_server):
        found = ssh_server.device()
        yield found
        found.close()

    @pytest.fixture
    def absent(self, ssh_server):
        ssh_server.stop()
        return ssh_server.device("nobody")


class TestSerialType(DeviceTypeContract):
    @pytest.fixture
    def device_type(self):
        return serial.TYPE

    @pytest.fixture
    def settings(self):
        return {"port": "/dev/ttyACM0", "flash": ["st-flash", "write", "{image}"], "boot_timeout_s": 2.5}


class TestSshType(DeviceTypeContract):
    @pytest.fixture
    def device_type(self):
        return ssh.TYPE

    @pytest.fixture
    def settings(self):
        return {"host": "pi@pi5", "port": 2222}


class TestCudaType(DeviceTypeContract):
    @pytest.fixture
    def device_type(self):
        return cuda.TYPE

    @pytest.fixture
    def settings(self):
        return {"index": 1}


@needs_terminals
class TestSerialTransport(TransportContract):
    @pytest.fixture
    def board(self, require):
        require("serial")
        with FakeBoard(infer=lambda data: [float(sum(data)), -1.5]) as board:
            yield board

    @pytest.fixture
    def switch(self, board):
        """The words of a program that takes the fake board's power and gives it back, and one that flashes it."""
        write = "import sys; open(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))"
        return [sys.executable, "-I", "-S", "-c", write, board.control]

    @pytest.fixture
    def make_transport(self, board, switch):
        from pytest_mlbench.agent.serial_transport import open_transport

        power = {"kind": "command", "cycle": [*switch, "power_cycle"]}
        exists = "import sys; open(sys.argv[-1]).close(); open(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))"
        flash = [*switch[:4], exists, board.control, "flash", "{image}"]
        wired = {"port": board.port, "soft_reset": "reset", "switch": power, "flash": flash}
        return lambda: open_transport(wired)

    @pytest.fixture
    def flash_image(self, tmp_path):
        file = tmp_path / "an image.bin"
        file.write_bytes(b"image")
        return str(file)

    @pytest.fixture
    def lose_line(self, board):
        return lambda transport: board.unplug()


def serial_device(port):
    defaults = {key: setting.default for key, setting in serial.TYPE.settings.items()}
    entry = LabDevice("acme_m4", "serial", "lab.toml", settings={**defaults, "port": port})
    return serial.TYPE.make(entry)
