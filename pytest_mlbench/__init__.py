"""pytest_mlbench: benchmark machine-learning models as pytest tests.

A suite becomes cases, a case leases a device, a scenario yields samples, samples become a record,
records are compared, a verdict is reported. Each arrow is one module; importing this package does nothing.
"""

__version__ = "0.1.0"
