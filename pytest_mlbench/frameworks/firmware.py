"""The kernels built into a board's firmware, as suites name them.

A model's `firmware` file is the image that holds it. Beside the image stands its sidecar, which says what goes in
and comes out: `IMAGE.json`, that is `digits.elf.json` for `digits.elf`, or `digits.json`:

    {"model": "dig01",
     "inputs": [{"name": "image", "dtype": "int8", "shape": [1, 1, 8, 8], "scale": 0.0039, "zero_point": -128}],
     "outputs": [{"name": "scores", "dtype": "int8", "shape": [1, 10], "scale": 0.1, "zero_point": 3}],
     "nodes": [{"name": "conv1", "op": "Conv2D", "precision": "int8"}, {"name": "softmax", "op": "Softmax", ...}]}

`model` is what the board answers to `profile%`. There is one input; its bytes, in C order, are what is loaded. An
output with a scale holds quantised values: the board prints real numbers of 3 decimals, which are snapped to it.
`nodes` is what the image's maker says of its kernels, the only word there is on what precision runs; without it the
executed precision is unknown.
"""

from __future__ import annotations

from .api import Framework, Option

FRAMEWORK = Framework(
    name="firmware",
    format="firmware",
    adapter="pytest_mlbench.agent.adapters.firmware_adapter",
    module="numpy",  # the serial line needs pyserial, another transport may not: the adapter says so
    distributions=("pytest-mlbench",),
    install="pip install 'pytest-mlbench[serial]'",
    options={
        "model_id": Option(
            str,
            "What the board must answer to `profile`; empty: what the sidecar says, or any model known.",
            default="",
        ),
    },
    on_board=True,
)
