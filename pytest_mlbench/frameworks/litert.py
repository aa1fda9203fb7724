"""LiteRT (formerly TensorFlow Lite), and tflite-runtime, the package it had before."""

from __future__ import annotations

from .api import Framework, Option

_OPTIONS = {
    "threads": Option(int, "Threads of the interpreter and of its delegate.", minimum=1, default=1),
    "delegate": Option(
        str,
        "Whether XNNPACK takes the operators it can, or the built-in kernels run them all.",
        choices=("xnnpack", "none"),
        default="xnnpack",
    ),
}

FRAMEWORK = Framework(
    name="litert",
    format="tflite",
    adapter="pytest_mlbench.agent.adapters.litert_adapter",
    module="ai_edge_litert",
    distributions=("ai-edge-litert",),
    install="pip install 'pytest-mlbench[litert]'",
    options=_OPTIONS,
)

TFLITE_RUNTIME = Framework(
    name="tflite_runtime",
    format="tflite",
    adapter="pytest_mlbench.agent.adapters.tflite_runtime_adapter",
    module="tflite_runtime",
    distributions=("tflite-runtime",),
    install="pip install 'pytest-mlbench[tflite]' in an environment of its own (it needs numpy < 2)",
    options=_OPTIONS,
)
