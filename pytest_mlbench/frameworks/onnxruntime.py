"""ONNX Runtime as suites name it."""

from __future__ import annotations

from .api import Framework, Option

_OPTIONS = {
    "threads": Option(int, "Threads inside one operator (and between operators, if parallel).", minimum=1, default=1),
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
}

FRAMEWORK = Framework(
    name="onnxruntime",
    format="onnx",
    adapter="pytest_mlbench.agent.adapters.onnxruntime_adapter",
    module="onnxruntime",
    install="pip install 'pytest-mlbench[onnxruntime]'",
    options=_OPTIONS,
)

GPU = Framework(
    name="onnxruntime_gpu",
    format="onnx",
    adapter="pytest_mlbench.agent.adapters.onnxruntime_adapter",
    module="onnxruntime",
    distributions=("onnxruntime-gpu",),
    install="pip install 'pytest-mlbench[onnxruntime-gpu]' in an environment of its own (it has onnxruntime's module)",
    options={
        **_OPTIONS,
        "provider": Option(
            str,
            "What runs the model on a CUDA device; what TensorRT does not take, CUDA does.",
            choices=("cuda", "tensorrt"),
            default="cuda",
        ),
    },
)
