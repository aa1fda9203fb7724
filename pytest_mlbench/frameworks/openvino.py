"""OpenVINO as suites name it."""

from __future__ import annotations

from .api import Framework, Option

FRAMEWORK = Framework(
    name="openvino",
    format="onnx",
    adapter="pytest_mlbench.agent.adapters.openvino_adapter",
    module="openvino",
    install="pip install 'pytest-mlbench[openvino]'",
    options={
        "threads": Option(int, "Threads of the CPU plugin (INFERENCE_NUM_THREADS).", minimum=1, default=1),
        "inference_precision": Option(
            str,
            "What floating-point layers are computed in. OpenVINO by itself takes bf16 where there is one.",
            choices=("f32", "f16", "bf16"),
            default="f32",
        ),
        "num_streams": Option(int, "Inferences that may run at the same time.", minimum=1, default=1),
        "performance_hint": Option(
            str, "What the plugin tunes itself for.", choices=("latency", "throughput"), default="latency"
        ),
    },
)
