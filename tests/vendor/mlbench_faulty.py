"""The host half of a vendor's framework whose faults are injected on purpose; see mlbench_faulty_adapter.py.

This folder is laid out as pip would install the vendor's package. With it on PYTHONPATH the frameworks below
are found through the entry-point group `mlbench.frameworks`, with nothing of mlbench changed for them.
"""

from __future__ import annotations

from pytest_mlbench.frameworks.api import Framework, Option

_OPTIONS = {
    "fault": Option(
        str,
        "What goes wrong.",
        choices=(
            "none",
            "raise",
            "hang_python",
            "hang_gil",
            "stop",
            "segfault",
            "exit",
            "sys_exit",
            "kill",
            "nan",
            "close_pipes",
            "no_module",
            "hold",
        ),
        default="none",
    ),
    "stage": Option(
        str,
        "When it goes wrong.",
        choices=("prepare", "load", "first", "warm-up", "measure", "accuracy", "placement"),
        default="load",
    ),
    "spare": Option(int, "How many processes that load the model are spared first.", minimum=0, default=0),
    "call_ms": Option(int, "How long a call sleeps.", minimum=0, default=0),
    "spin_us": Option(int, "How long a call computes.", minimum=0, default=0),
    "reports": Option(str, "The precision it says it ran in.", choices=("fp32", "unknown"), default="fp32"),
}

FRAMEWORK = Framework(
    name="faulty",
    format="faulty",
    adapter="mlbench_faulty_adapter",
    module="json",  # part of Python: always there
    distributions=("mlbench-faulty",),
    install="pip install mlbench-faulty",
    options=_OPTIONS,
)

COMPILED = Framework(
    name="faulty_compiled",
    format="faulty",
    adapter="mlbench_faulty_adapter",
    module="json",
    distributions=("mlbench-faulty",),
    install="pip install 'mlbench-faulty[compiler]'",
    options=_OPTIONS,
    compiles=True,
)

ABSENT = Framework(
    name="faulty_absent",
    format="faulty",
    adapter="mlbench_faulty_adapter",
    module="mlbench_faulty_engine.core",  # a module inside a package, neither of which is installed
    install="pip install 'mlbench-faulty[engine]'",
)
