"""Which CUDA device an adapter is given, and what the whole process must be set to before CUDA starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def select(options: Mapping[str, Any]) -> str:
    """Return the device in the options: "cpu", or for example "cuda:0", which is made the only one CUDA sees.

    Call it before anything starts CUDA in this process. `options["visible"]` is the UUID of the GPU: places alone
    would not do, since CUDA and NVML count GPUs in different orders.
    """
    device = str(options.get("device") or "cpu")
    if device != "cpu":
        if options.get("visible"):
            os.environ["CUDA_VISIBLE_DEVICES"] = str(options["visible"])
        # cuDNN, cuBLAS and TensorRT would compute fp32 in TF32, of 10 bits of mantissa, where they may.
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    return device
