"""Run an exported graph node by node and write down each operator that PyTorch dispatches, with its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..api import Node
from .binding import precision

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPUTE = {
    "convolution", "_convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "cudnn_convolution", "mkldnn_convolution", "linear", "addmm", "mm", "bmm", "baddbmm", "addbmm",
    "matmul", "mv", "addmv", "dot", "vdot", "inner", "outer", "einsum", "bilinear", "tensordot", "chain_matmul",
    "linalg_multi_dot", "lstm", "lstm_cell", "gru", "gru_cell", "rnn_tanh", "rnn_relu", "rnn_tanh_cell",
    "rnn_relu_cell", "scaled_dot_product_attention", "_addmm_activation", "_int_mm", "_scaled_mm", "_grouped_mm",
    "_scaled_grouped_mm", "_weight_int8pack_mm", "_weight_int4pack_mm", "_dyn_quant_matmul_4bit",
}  # fmt: skip


def trace(torch: Any, module: Any, leaves: Sequence[Any], device: Any) -> tuple[Node, ...]:
    """Return the operators of one run on the tensors `leaves`, in order, under the names of the graph's nodes.

    A node of the graph that dispatches several operators (a branch) gives one entry for each. A node is
    where its first tensor lies: "cpu", "cuda" for the session's own `device`, else that device's full name.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    nodes: list[Node] = []
    current: dict[str, Any] = {"name": "", "count": 0}

    class Watch(TorchDispatchMode):  # type: ignore[misc, unused-ignore]  # no types where mypy runs
        supports_higher_order_operators = True

        def __torch_dispatch__(
            self, function: Any, types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
        ) -> Any:
            if function is torch.ops.higher_order.cond:
                chosen, operands = given[1] if given[0] else given[2], given[3]
                with self:  # it is off while it is called
                    return chosen(*operands)
            result = function(*given, **(named or {}))
            tensors = _tensors(torch, (given, named)) or _tensors(torch, result)
            current["count"] += 1
            if tensors:
                count = current["count"]
                name = current["name"] if count == 1 else f"{current['name']}.{count}"
                nodes.append(_node(name, function, tensors, device))
            return result

    class Steps(torch.fx.Interpreter):  # type: ignore[misc, unused-ignore]
        def run_node(self, node: Any) -> Any:
            current.update(name=node.name, count=0)
            return super().run_node(node)

    # The mode of invoke(): outside of it PyTorch takes some operators apart before it dispatches them.
    with torch.inference_mode(), Watch():
        Steps(module).run(*leaves)
    return tuple(nodes)


def _tensors(torch: Any, values: Any) -> list[Any]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _node(name: str, function: Any, tensors: list[Any], device: Any) -> Node:
    place = tensors[0].device
    where = device.type if place == device else "cpu" if place.type == "cpu" else str(place)
    schema = getattr(function, "_schema", None)
    if schema is None:  # a loop or another operator that runs graphs of its own, which are not seen
        return Node(name, str(function), where, "unknown", True)
    space, _, op = schema.name.partition("::")
    return Node(name, f"{space}.{op}", where, _precision(op, tensors), op in _COMPUTE)


def _precision(op: str, tensors: list[Any]) -> str:
    """Name the type an operator computes in; "unknown" for arithmetic on factors of two types."""
    names = [str(tensor.dtype).rpartition(".")[2] for tensor in tensors]
    if op in _COMPUTE and len(names) > 1 and names[0] != names[1]:
        return "unknown"
    return precision(names[0])
