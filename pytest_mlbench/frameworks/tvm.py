"""Apache TVM as suites name it."""

from __future__ import annotations

from .api import Framework, Option

FRAMEWORK = Framework(
    name="tvm",
    format="onnx",
    adapter="pytest_mlbench.agent.adapters.tvm_adapter",
    module="tvm",
    # The PyPI name "tvm" is an unrelated tool.
    distributions=("apache-tvm",),
    install="pip install 'pytest-mlbench[tvm]'",
    options={
        "threads": Option(int, "Threads of TVM's pool; untuned kernels use one.", minimum=1, default=1),
        "target": Option(
            str,
            "`native` (this CPU), `llvm` (any CPU of this kind) or a TVM target as a JSON object.",
            default="native",
        ),
        "opt_level": Option(int, "Level of TVM's pass context; 0 fuses nothing.", minimum=0, default=3),
    },
    compiles=True,
)
