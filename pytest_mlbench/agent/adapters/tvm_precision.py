"""Find, in TVM's lowered code, which kernels multiply and accumulate, and in which precision.

Written for the IR of TVM 0.27; what another version spells otherwise comes out as unknown, not as a guess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .binding import precision

if TYPE_CHECKING:
    from collections.abc import Iterator

_REDUCE = 2  # tirx.IterVar.CommReduce
_WIDTHS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32}


def kernel_table(module: Any) -> dict[str, list[Any]]:
    """Describe each kernel of a lowered module: symbol -> [operator, precision, computes].

    A kernel computes if one of its blocks reduces over products of two tensors, as convolutions and matrix
    products do; a pooling reduces without a product, a norm over squares of one tensor. Its precision is then
    that of the product: the type of a float multiplication, or of the stored operands of an integer one.
    """
    table: dict[str, list[Any]] = {}
    for variable, function in module.functions_items():
        if type(function).__name__ != "PrimFunc":
            continue
        found = [(name, word) for name, body in _reductions(function.body) for word in _products(body)]
        symbol = str(variable.name_hint)
        if found:
            words = {word for _, word in found}
            table[symbol] = [found[0][0], words.pop() if len(words) == 1 else "unknown", True]
        else:
            types = [str(parameter.dtype) for parameter in function.params]
            table[symbol] = [symbol, precision(types[0]) if types else "unknown", False]
    return table


def _reductions(statement: Any) -> Iterator[tuple[str, Any]]:
    """Walk statements down to blocks with a reduced axis: (block name, body)."""
    kind = type(statement).__name__
    if kind == "SBlock":
        if any(int(axis.iter_type) == _REDUCE for axis in statement.iter_vars):
            yield str(statement.name_hint), statement.body
        yield from _reductions(statement.body)
    for field in ("block", "body", "then_case", "else_case"):
        child = getattr(statement, field, None) if kind != "SBlock" else None
        if child is not None:
            yield from _reductions(child)
    for child in getattr(statement, "seq", None) or ():
        yield from _reductions(child)


def _products(statement: Any) -> Iterator[str]:
    """Name the precision of each product of two different buffers that a block's stores accumulate."""
    for child in getattr(statement, "seq", None) or ():
        yield from _products(child)
    waiting = [statement.value] if type(statement).__name__ == "BufferStore" else []
    while waiting:
        expression = waiting.pop()
        if type(expression).__name__ == "Mul":
            left, right = _loads(expression.a), _loads(expression.b)
            if left and right and left.keys() != right.keys():
                yield _product_precision(str(expression.ty.dtype), [*left.values(), *right.values()])
                continue
        waiting += _operands(expression)


def _operands(expression: Any) -> list[Any]:
    # Not `indices` of a load: address arithmetic multiplies too.
    fields = ("a", "b", "value", "true_value", "false_value", "body")
    found = [getattr(expression, field) for field in fields if hasattr(expression, field)]
    return found + list(getattr(expression, "args", ()))


def _loads(expression: Any) -> dict[str, str]:
    """List the buffers that an expression reads: name -> stored type."""
    found: dict[str, str] = {}
    waiting = [expression]
    while waiting:
        current = waiting.pop()
        if type(current).__name__ == "TensorLoad":
            found[str(current.source.name)] = str(current.source.dtype)
        else:
            waiting += _operands(current)
    return found


def _product_precision(product: str, stored: list[str]) -> str:
    if product.startswith(("int", "uint")):
        return precision(max(stored, key=lambda dtype: _WIDTHS.get(dtype, 64)))
    return precision(product)
