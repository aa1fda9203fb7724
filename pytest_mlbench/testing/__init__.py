"""What a vendor's tests need: fakes that speak real protocols, and contracts for what a package adds.

Nothing here is imported by a measurement. The contracts need pytest and numpy, and no other tool of tests.
"""

from pytest_mlbench.testing.device_types import DeviceTypeContract
from pytest_mlbench.testing.devices import DeviceContract
from pytest_mlbench.testing.fake_board import FakeBoard, Fault
from pytest_mlbench.testing.frameworks import FrameworkContract, Subject
from pytest_mlbench.testing.transports import TransportContract

__all__ = [
    "DeviceContract",
    "DeviceTypeContract",
    "FakeBoard",
    "Fault",
    "FrameworkContract",
    "Subject",
    "TransportContract",
]
