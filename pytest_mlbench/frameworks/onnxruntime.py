"""ONNX Runtime as suites name it."""

from __future__ import annotations

from .api import Framework, Option

FRAMEWORK = Framework(
    name="onnxruntime",
    format="onnx",
    adapter="pytest_mlbench.agent.adapters.onnxruntime_adapter",
    module="onnxruntime",
    install="pip install 'pytest-mlbench[onnxruntime]'",
    options={
        "threads": Option(
            int, "Threads inside one operator (and between operators, if parallel).", minimum=1, default=1
        ),
        "graph_level": Option(
            str,
            "Graph optimisation level; QDQ models run in int8 from `extended` up.",
            choices=("disable", "basic", "extended", "layout", "all"),
            default="all",
        ),
        "execution_mode": Option(
            str,
            "Whether independent operators may run at the same time.",
            choices=("sequential", "parallel"),
            default="sequential",
        ),
        "spinning": Option(bool, "Whether idle threads spin while they wait for work.", default=True),
    },
)
