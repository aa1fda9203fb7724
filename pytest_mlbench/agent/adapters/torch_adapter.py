"""The adapter of PyTorch: an archive of torch.export, run operator by operator on the processor or a CUDA device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..api import Placement, TensorSpec
from .binding import check_inputs
from .cuda_device import select
from .torch_archive import Argument, Result, arguments, cast, refuse_training, results
from .torch_trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAME = "torch"

_PRECISIONS = {"fp16": "float16", "bf16": "bfloat16"}


def versions() -> dict[str, str]:
    """Name the installed PyTorch and, where it was built for CUDA, that CUDA."""
    import torch

    found = {"torch": str(torch.__version__)}
    return {**found, "cuda": str(torch.version.cuda)} if torch.version.cuda else found


def load(path: str, options: Mapping[str, Any]) -> TorchSession:
    """Load an archive of torch.export; `options` are those of pytest_mlbench.frameworks.torch.

    Besides: `device` ("cpu", the default, or "cuda:0") and `convert` ("fp16" or "bf16"): cast every parameter,
    buffer, constant and input of floating point to it. Raises ImportError for a CUDA device that this build of
    PyTorch cannot drive, ValueError for an archive that was exported in training mode or takes no tensors.
    """
    return TorchSession(path, dict(options))


class TorchSession:
    """One exported program in PyTorch; see agent/api.py.

    PyTorch returns outputs and keeps none, so invoke() is one frame of ours that holds on to them; on a CUDA
    device it also waits until the device is done. numpy has no bfloat16: inputs and outputs of that type are
    float32 here, converted in bind() and fetch().
    """

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        import torch
        import torch.export

        self._torch: Any = torch
        self._device: Any = _device(torch, select(options))
        _settle(torch, options, self._device)
        program = torch.export.load(path)
        refuse_training(program)
        if self._device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, self._device)
        self._arguments: list[Argument] = arguments(torch, program)
        self._results: list[Result] = results(torch, program)
        self._tree: Any = program.call_spec.in_spec
        self._module: Any = program.module()
        convert = options.get("convert")
        self._convert: Any = getattr(torch, _PRECISIONS[convert]) if convert else None
        if self._convert is not None:
            cast(torch, self._module, self._convert)
        self.inputs = [self._spec(one.name, one.dtype, one.shape) for one in self._arguments]
        self.outputs = [self._spec(one.name, one.dtype, one.shape) for one in self._results]
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._bound: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._returned: Any = None
        on_cpu = self._device.type == "cpu"
        self.invoke: Callable[[], None] = self._compute if on_cpu else self._compute_and_wait

    def _spec(self, name: str, dtype: Any, shape: tuple[int, ...]) -> TensorSpec:
        return TensorSpec(name, _numpy_name(self._torch, self._stored(dtype)), shape)

    def _stored(self, dtype: Any) -> Any:
        """Return the type a tensor of the archive has here."""
        return self._convert if self._convert is not None and dtype.is_floating_point else dtype

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Make tensors of the arrays on the device; on the processor, without a conversion, nothing is copied."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            check_inputs(self.inputs, inputs)
            for argument in self._arguments:
                argument.check(inputs[argument.name].shape)
            self._shapes = shapes
        tensors = [self._tensor(argument, inputs[argument.name]) for argument in self._arguments]
        if self._device.type != "cpu":
            self._torch.cuda.synchronize(self._device)  # the copies end before the clock of `invoke` starts
        self._bound = self._torch.utils._pytree.tree_unflatten(tensors, self._tree)

    def _tensor(self, argument: Argument, array: np.ndarray[Any, Any]) -> Any:
        # PyTorch has no read-only tensors and warns of one.
        tensor = self._torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.to(device=self._device, dtype=self._stored(argument.dtype))

    def _compute(self) -> None:
        arguments, keywords = self._bound or ((), {})
        with self._torch.inference_mode():
            self._returned = self._module(*arguments, **keywords)

    def _compute_and_wait(self) -> None:
        """Launch, then wait for the device: without that only the launching is timed."""
        self._compute()
        self._torch.cuda.synchronize(self._device)

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copy the outputs of the last call to numpy, bfloat16 as float32."""
        leaves = self._torch.utils._pytree.tree_leaves(self._returned)
        found = {}
        for result in self._results:
            tensor = leaves[result.position].detach().cpu()
            if tensor.dtype is self._torch.bfloat16:
                tensor = tensor.float()
            found[result.name] = tensor.numpy().copy()
        return found

    def placement(self) -> Placement:
        """Run the exported graph once more, node by node, and read the tensors of each operator it dispatches."""
        source = "torch dispatch of the exported graph"
        if self._bound is None:
            return Placement(source, reason="no input was bound, so there was nothing to trace")
        leaves = self._torch.utils._pytree.tree_leaves(self._bound)
        nodes = trace(self._torch, self._module, leaves, self._device)
        convert = _precision_word(self._convert)
        notes = {"device": str(self._device), **({"converted": f"fp32 to {convert}"} if convert else {})}
        return Placement(source, nodes, "" if nodes else "the graph dispatches no operator", notes)

    def device_memory(self) -> dict[str, Any]:
        """Return the most bytes that tensors held on the device; {} on the processor."""
        if self._device.type == "cpu":
            return {}
        peak = int(self._torch.cuda.max_memory_allocated(self._device))
        return {"peak_bytes": peak, "source": "torch.cuda.max_memory_allocated"}

    def close(self) -> None:
        """Free the program; a call after it fails."""
        self.invoke = _closed
        self._bound = self._returned = self._module = None


def _closed() -> None:
    raise RuntimeError("this PyTorch session is closed")


def _device(torch: Any, word: str) -> Any:
    device = torch.device(word)
    if device.type != "cpu" and not torch.version.cuda:
        raise ImportError(f"torch {torch.__version__} was built without CUDA and cannot use {word}")
    if device.type != "cpu" and not torch.cuda.is_available():
        raise ImportError(f"torch {torch.__version__} finds no CUDA driver or device to use as {word}")
    if device.type != "cpu" and device.index >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ImportError(f"torch {torch.__version__} sees {found} CUDA devices, so there is no {word}")
    return device


def _settle(torch: Any, options: Mapping[str, Any], device: Any) -> None:
    """Set what PyTorch keeps for the whole process. The agent's process has one session, so nothing is put back."""
    torch.set_num_threads(int(options.get("threads", 1)))
    # By default cuDNN computes fp32 convolutions in TF32, of 10 bits of mantissa: that is not fp32. (The newer
    # settings, `fp32_precision`, leave PyTorch 2.13 unable to export or to read these.)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    deterministic = bool(options.get("deterministic", False))
    if deterministic and device.type != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(deterministic)


def _numpy_name(torch: Any, dtype: Any) -> str:
    return "float32" if dtype is torch.bfloat16 else str(dtype).rpartition(".")[2]


def _precision_word(dtype: Any) -> str:
    name = str(dtype).rpartition(".")[2]
    return next((word for word, each in _PRECISIONS.items() if each == name), "")
