"""Checks of a whole ModelProto as it is opened, so that no later step meets what only a broken model can hold.

They cover what the libraries let pass and then fail at, or never come back from: names that are not UTF-8, nodes
without an attribute that their operator requires, functions that call themselves, and functions that call each other so
often that shape inference would not end. Attributes are checked in `attributes`, tensors in `tensors` and `external`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.attributes import check_attributes, check_handed_on, check_no_references
from onnxnorm.model.boundary import first_line
from onnxnorm.model.containers import Container, containers

__all__ = ["check_model"]

_OWN = ("", "ai.onnx")
_DEEPEST = 100  # levels of functions that call functions
_MOST = 1 << 16  # nodes, with each function counted wherever it is called; a runtime takes seconds to inline as many

_Call = tuple[str, str, str]
"""Domain, name and overload of a function."""


def check_model(proto: onnx.ModelProto, where: str) -> None:
    """Check names, attributes and functions.

    Args:
        proto: the model.
        where: how messages name it.

    Raises:
        ModelError: if a name is not UTF-8, if a required attribute is missing, of a wrong type or out of range, if
            two initializers or two values have one name, or if functions call themselves or expand to too many nodes.
    """
    _check_text((entry.key + entry.value for entry in proto.metadata_props), f"{where}: an entry of the metadata")
    _check_text((opset.domain for opset in proto.opset_import), f"{where}: the domain of an opset")
    _check_text((f.domain + f.name for f in proto.functions), f"{where}: the name of a function")
    _check_unique([tensor.name for tensor in proto.graph.initializer], "initializers", where)
    initialized = {tensor.name for tensor in proto.graph.initializer}
    fed = [value.name for value in proto.graph.input if value.name not in initialized]
    made = [name for node in proto.graph.node for name in node.output if name]
    _check_unique([*initialized, *fed, *made], "values", where)
    opset = _opset(proto.opset_import)
    roots: list[Container] = [proto.graph, *proto.functions]
    for root in roots:
        version = _opset(root.opset_import) if isinstance(root, onnx.FunctionProto) else opset
        for container in containers(root):
            _check_names(container, where)
            for node in container.node:
                check_attributes(node, version, where)
                if not isinstance(root, onnx.FunctionProto):
                    check_no_references(node, where)
    _check_functions(proto, where)
    check_handed_on(proto, where)


def _check_text(texts: Iterable[object], what: str) -> None:
    """Raise ModelError unless all these texts are UTF-8. Protobuf returns bytes for one that is not."""
    try:
        for text in texts:
            if not isinstance(text, str):
                raise ModelError(f"{what} is not UTF-8 ({text!r}); export the model again")
    except (TypeError, UnicodeDecodeError) as error:
        raise ModelError(f"{what} is not UTF-8 ({first_line(error)}); export the model again") from error


def _check_names(container: Container, where: str) -> None:
    for node in container.node:
        _check_text((node.name, node.op_type, node.domain, *node.input, *node.output), f"{where}: a name at a node")
        _check_text((attribute.name for attribute in node.attribute), f"{where}: the name of an attribute")
    if isinstance(container, onnx.FunctionProto):
        _check_text((*container.input, *container.output, *container.attribute), f"{where}: a name in a function")
        return
    for tensor in container.initializer:
        _check_text([tensor.name], f"{where}: the name of an initializer")
    for value in (*container.input, *container.output, *container.value_info):
        _check_text([value.name], f"{where}: the name of a value")
        _check_text((dim.dim_param for dim in value.type.tensor_type.shape.dim), f"{where}: the name of a dimension")


def _check_unique(names: Sequence[str], what: str, where: str) -> None:
    _check_text(names, f"{where}: the name of one of its {what}")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ModelError(f"{where} has two {what} called {twice[0]!r}; every name must be unique")


def _opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((entry.version for entry in imports if entry.domain in _OWN), 1)


def _check_functions(proto: onnx.ModelProto, where: str) -> None:
    """Count the nodes of the model with every function in the place of its calls, each function only once."""
    calls = {(_domain(f.domain), f.name, f.overload): _calls(f) for f in proto.functions}
    sizes: dict[_Call, int] = {}

    def size(key: _Call, above: tuple[_Call, ...]) -> int:
        if key in above:
            raise ModelError(f"{where}: function {key[1]!r} calls itself, which ONNX does not allow; export it again")
        if len(above) > _DEEPEST:
            raise ModelError(f"{where}: functions call each other over more than {_DEEPEST} levels; inline them")
        if key not in sizes:
            sizes[key] = expanded(calls[key], (*above, key))
        return sizes[key]

    def expanded(counts: Counter[_Call], above: tuple[_Call, ...]) -> int:
        total = counts.total() + sum(times * size(key, above) for key, times in counts.items() if key in calls)
        if total > _MOST:
            raise ModelError(f"{where}: its functions expand to more than {_MOST:,} nodes; export it without functions")
        return total

    if calls:
        for key in calls:
            size(key, ())
        expanded(_calls(proto.graph), ())


def _calls(root: Container) -> Counter[_Call]:
    """How often each operator is called in a graph or function, its subgraphs included."""
    return Counter(
        (_domain(node.domain), node.op_type, node.overload) for container in containers(root) for node in container.node
    )


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
