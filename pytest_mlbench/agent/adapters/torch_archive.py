"""Read what an archive of torch.export takes and gives, and cast it to another floating-point type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .binding import show_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

# Operators that do something else in training -> the position and the name of the argument that says so.
_TRAINING = {
    "aten::dropout": (2, "train"),
    "aten::feature_dropout": (2, "train"),
    "aten::alpha_dropout": (2, "train"),
    "aten::native_dropout": (2, "train"),
    "aten::batch_norm": (5, "training"),
}


@dataclass(frozen=True)
class Argument:
    """One tensor that the program takes. `limits` has, by dimension, the least and largest size (None: no bound)."""

    name: str
    dtype: Any
    shape: tuple[int, ...]  # -1 for a free dimension
    limits: dict[int, tuple[int, int | None]]

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError for a size that the archive's own constraints leave out."""
        for place, (least, most) in self.limits.items():
            size = shape[place]
            if size < least or (most is not None and size > most):
                bounds = f"at least {least}" if most is None else f"{least} to {most}"
                raise ValueError(
                    f"model input {self.name!r} has shape {show_shape(self.shape)}, where dimension {place} is {bounds}"
                    f" by the archive, and cannot take an array of shape {show_shape(shape)}: export it with "
                    f"another range, such as torch.export.Dim('N', min=1)"
                )


@dataclass(frozen=True)
class Result:
    """One tensor that the program gives: `position` is its place among the leaves of what is returned."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    position: int


def arguments(torch: Any, program: Any) -> list[Argument]:
    """Return the program's inputs in call order; ValueError for one that is no tensor."""
    found = []
    for name, value in _user_inputs(torch, program):
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"the archive's input {name!r} is no tensor ({value!r}): export a wrapper that takes tensors alone"
            )
        found.append(Argument(name, value.dtype, _sizes(value), dict(_limits(program, value))))
    return found


def _user_inputs(torch: Any, program: Any) -> Iterator[tuple[str, Any]]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    for spec in program.graph_signature.input_specs:
        if spec.kind is torch.export.graph_signature.InputKind.USER_INPUT:
            yield spec.arg.name, values.get(spec.arg.name, getattr(spec.arg, "value", None))


def results(torch: Any, program: Any) -> list[Result]:
    """Return the tensors the program gives, named by their keys where it returns a dict; ValueError without any."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    kind = torch.export.graph_signature.OutputKind.USER_OUTPUT
    returned = [spec.arg for spec in program.graph_signature.output_specs if spec.kind is kind]
    tree = torch.utils._pytree.tree_unflatten(list(range(len(returned))), program.call_spec.out_spec)
    found = []
    for position, name in sorted(_leaf_names(tree)):
        value = values.get(getattr(returned[position], "name", ""))
        if isinstance(value, torch.Tensor):
            found.append(Result(name or "output", value.dtype, _sizes(value), position))
    if not found:
        raise ValueError("the archive returns no tensor, so there is nothing to compare")
    return found


def _leaf_names(tree: Any, path: str = "") -> Iterator[tuple[int, str]]:
    """Name each leaf by its keys and indexes: {"boxes": [0, 1]} gives boxes.0 and boxes.1."""
    if isinstance(tree, int):
        yield tree, path
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaf_names(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from _leaf_names(value, f"{path}.{index}" if path else f"output_{index}")
    else:
        raise ValueError(f"the archive returns a {type(tree).__name__}: return a tensor, or a dict, list or tuple")


def _sizes(value: Any) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in value.shape)


def _limits(program: Any, value: Any) -> Iterator[tuple[int, tuple[int, int | None]]]:
    """Yield what the archive says of each free dimension that is a variable of its own."""
    for place, size in enumerate(value.shape):
        bounds = None if isinstance(size, int) else program.range_constraints.get(size.node.expr)
        if bounds is not None:
            most = int(bounds.upper) if getattr(bounds.upper, "is_Integer", False) else None
            yield place, (max(int(bounds.lower), 0), most)


def refuse_training(program: Any) -> None:
    """Raise ValueError when an operator was exported as it is in training."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or schema.name not in _TRAINING:
            continue
        place, name = _TRAINING[schema.name]
        given = node.args[place] if len(node.args) > place else node.kwargs.get(name, False)
        if given:
            raise ValueError(
                f"node {node.name} ({schema.name}) was exported in training mode: call model.eval() before "
                "torch.export.export"
            )


def cast(torch: Any, module: Any, dtype: Any) -> None:
    """Cast every parameter, buffer and constant of floating point in a program's module to `dtype`.

    Casts that the graph itself makes stay as they are; what they lead to shows in the placement.
    """
    module.to(dtype)
    for part in module.modules():
        if isinstance(part, torch.fx.GraphModule):
            _cast_graph(torch, part, dtype)


def _cast_graph(torch: Any, part: Any, dtype: Any) -> None:
    for node in list(part.graph.nodes):
        # A constant made in the model's code is a plain attribute, which module.to() does not see.
        if node.op == "get_attr" and "." not in node.target:
            value = getattr(part, node.target, None)
            if isinstance(value, torch.Tensor) and value.dtype.is_floating_point and value.dtype is not dtype:
                setattr(part, node.target, value.to(dtype))
        elif node.target is torch.ops.aten._assert_tensor_metadata.default:
            part.graph.erase_node(node)  # holds the types of the file to be those of the run
    part.recompile()
