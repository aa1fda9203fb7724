"""PyTorch as suites name it: archives of torch.export."""

from __future__ import annotations

from .api import Framework, Option

FRAMEWORK = Framework(
    name="torch",
    format="torch",
    adapter="pytest_mlbench.agent.adapters.torch_adapter",
    module="torch",
    # Its default build is several GB of CUDA, so it is no part of `all`.
    install="pip install 'pytest-mlbench[torch]', best in an environment of its own",
    options={
        "threads": Option(int, "Threads inside one operator (torch.set_num_threads).", minimum=1, default=1),
        "deterministic": Option(
            bool,
            "Whether only algorithms run that give the same result each time; an operator without one fails.",
            default=False,
        ),
    },
    converts=("fp16", "bf16"),
)
