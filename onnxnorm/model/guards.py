"""Guards for ONNX's shape inference, which ends the process, or never comes back, at some nodes of wrong models.

Its C++ code trusts some numbers, and nothing in Python can catch what follows. So a copy of the model, made for
inference, is changed where such a node stands (which these are was found by giving random inputs to every version of
every operator of ONNX; see `docs/reliability.md`):

* `Slice` and `GatherND` must not read a negative size, which a pad by negative numbers, or a window larger than its
  input, has. They read their value through others that have a shape only if the size is not negative:

      z = Slice(y, starts, ends, axes=[2])

  becomes, since TopK refuses an axis with fewer elements than K, and a maximum over all axes has the size 1 on each,

      m = ReduceMax(TopK(y, K=0, axis=2))
      z = Slice(Sum(y, m), starts, ends, axes=[2])

  Where it is not sure which axes a Slice reads, its numbers are hidden, and inference finds the number of axes alone.
* `EyeLike` and `RegexFullMatch` must not read a value without a type. They are written as a Cast, whose output has the
  same type and shape.
* `DictVectorizer`, `LabelEncoder` and `TreeEnsemble`, of ONNX's operators for classical learning, are hidden: inference
  then tells nothing of what they compute. No layer whose filters are scaled stands behind them.

What only attributes can bring about is refused as a model is opened; see `attributes`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import COMPLAINTS
from onnxnorm.model.containers import Container, containers
from onnxnorm.model.tensors import MOST_AXES

__all__ = ["Guards", "NegativeSizeError", "guard"]

_STANDARD = {"", "ai.onnx"}
_READ = {"Slice": 0, "GatherND": 1}
"""Which input must not have a negative size."""
_CASTS = {"EyeLike", "RegexFullMatch"}
_LEARNING = "ai.onnx.ml"
_HIDDEN = {"DictVectorizer", "LabelEncoder", "TreeEnsemble"}
_GUARDED = _READ.keys() | _CASTS | _HIDDEN

_Found = TypeVar("_Found")


class NegativeSizeError(ModelError):
    """A value that a node reads has a negative size."""


@dataclass(frozen=True)
class Guards:
    """The guards in a model.

    Attributes:
        prefix: of the names of all values that the guards added; it differs each time, so no model can use it.
        reads: the values that must not have a negative size, each with how a message names the node that reads it.
        nested: whether any of them is in a subgraph.
    """

    prefix: str
    reads: tuple[tuple[str, str], ...]
    nested: bool

    def check(self, graph: onnx.GraphProto) -> None:
        """Raise NegativeSizeError if a guarded node reads a value of a negative size.

        Args:
            graph: what inference found for the guarded model.
        """
        if not self.reads:
            return
        read = {name for name, _ in self.reads}
        sizes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for container in (containers(graph) if self.nested else [graph])
            if isinstance(container, onnx.GraphProto)
            for value in (*container.input, *container.value_info, *container.output)
            if value.name in read and any(dim.dim_value < 0 for dim in value.type.tensor_type.shape.dim)
        }
        for name, reader in self.reads:
            if name in sizes:
                raise NegativeSizeError(
                    f"{reader} reads the value {name!r}, which would have the impossible shape {sizes[name]}; a pad "
                    "takes away more than there is, or a window is larger than its input: give larger inputs, or "
                    "correct the model and export it again"
                )

    def without_own(self, found: dict[str, _Found]) -> dict[str, _Found]:
        """What was found for the values of the model, without those that the guards added."""
        return {name: what for name, what in found.items() if not name.startswith(self.prefix)} if self.reads else found


def guard(proto: onnx.ModelProto) -> Guards:
    """Guard the nodes of a model and of its functions, in place."""
    prefix = f"guard {uuid.uuid4().hex}"
    reads: list[tuple[str, str]] = []
    nested = False
    roots: list[Container] = [proto.graph, *proto.functions]
    guarded = [
        (root, container)
        for root in roots
        for container in containers(root)
        if any(node.op_type in _GUARDED for node in container.node)
    ]
    for number, (root, container) in enumerate(guarded):
        found = _Guarding(container, f"{prefix} {number} ").guard()
        if root is proto.graph:
            reads += found
            nested = nested or (container is not root and bool(found))
    return Guards(prefix, tuple(reads), nested)


class _Guarding:
    """Guards the nodes of one container."""

    def __init__(self, container: Container, prefix: str) -> None:
        self._container = container
        self._prefix = prefix
        self._guarded: dict[tuple[str, tuple[int, ...]], str] = {}
        self._added: list[tuple[int, onnx.NodeProto]] = []
        self._at = 0

    def guard(self) -> list[tuple[str, str]]:
        """The values that the guarded nodes read, each with how a message names the node."""
        if isinstance(self._container, onnx.GraphProto):
            _forget_negative(self._container)
        nodes = [node for node in self._container.node if node.op_type == "Slice" and node.domain in _STANDARD]
        constants = _constants(self._container, {name for node in nodes for name in node.input[1:]})
        reads = []
        for index, node in enumerate(self._container.node):
            self._at = index
            if node.op_type in _HIDDEN and node.domain == _LEARNING:
                node.op_type = f"{self._prefix}{node.op_type}"  # which nothing is known about
            if node.op_type in _CASTS and node.domain in _STANDARD:
                _cast(node)
            if node.op_type not in _READ or node.domain not in _STANDARD:
                continue
            at = _READ[node.op_type]
            axes = _sliced(node, constants) if node.op_type == "Slice" else (-1,)
            if axes is None:
                node.input[1] = f"{self._prefix}unknown"
            elif axes and len(node.input) > at and node.input[at]:
                reads.append((node.input[at], f"{node.op_type} node {node.name or node.output[0]!r}"))
                if node.op_type == "Slice":
                    self._state_axes(node, axes)
                node.input[at] = self._checked(node.input[at], axes, node.domain)
        for shift, (at, node) in enumerate(self._added):
            self._container.node.insert(at + shift, node)
        return reads

    def _state_axes(self, node: onnx.NodeProto, axes: tuple[int, ...]) -> None:
        """Write out the axes, since inference takes the first ones where the type of those given is not known."""
        while len(node.input) < 4:
            node.input.append("")
        node.input[3] = self._constant(axes, node.domain)

    def _checked(self, name: str, axes: tuple[int, ...], domain: str) -> str:
        """A value of the type and the shape of this one, without a shape if its size on one of the axes is negative."""
        if (name, axes) not in self._guarded:
            none, checks = self._constant((0,), domain), []
            for axis in axes:
                top = self._node("TopK", [name, none], domain, axis=axis)
                checks.append(self._node("ReduceMax", [top], domain))
            self._guarded[name, axes] = self._node("Sum", [name, *checks], domain)
        return self._guarded[name, axes]

    def _constant(self, numbers: tuple[int, ...], domain: str) -> str:
        key = ("", numbers)
        if key not in self._guarded:
            values = numpy_helper.from_array(np.array(numbers, np.int64))
            self._guarded[key] = self._node("Constant", [], domain, value=values)
        return self._guarded[key]

    def _node(self, op: str, inputs: Sequence[str], domain: str, **attributes: Any) -> str:
        """The name of the output of a new node, which stands before the guarded node."""
        name = f"{self._prefix}{len(self._added)}"
        outputs = [name, f"{name} of it"] if op == "TopK" else [name]
        self._added.append((self._at, onnx.helper.make_node(op, inputs, outputs, domain=domain, **attributes)))
        return name


def _forget_negative(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for a dimension that they do not know."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.Clear()


def _cast(node: onnx.NodeProto) -> None:
    """Make a node one that passes a shape on, with the type of its own output."""
    types = [attribute for attribute in node.attribute if attribute.name == "dtype"]
    if node.op_type == "RegexFullMatch":
        types = [onnx.helper.make_attribute("dtype", TensorProto.BOOL)]
    node.op_type = "Cast" if types else "Identity"
    del node.attribute[:]
    node.attribute.extend(types[:1])  # may refer to an attribute of a function
    for attribute in node.attribute:
        attribute.name = "to"


def _sliced(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """The axes that a Slice reads; none if inference does not read its numbers, None if that is not sure."""
    if len(node.input) < 3:  # that of the first opsets, or not legal: there, inference does not compare numbers
        return ()
    given = node.input[3] if len(node.input) > 3 else ""
    starts = constants.get(node.input[1])
    return constants.get(given) if given else None if starts is None else tuple(range(len(starts)))


def _constants(container: Container, names: set[str]) -> dict[str, tuple[int, ...]]:
    """The numbers of these constants of a graph or function, where they are few, and sure."""
    tensors: list[tuple[str, TensorProto | None]] = []
    if isinstance(container, onnx.GraphProto):
        tensors += [(tensor.name, tensor) for tensor in container.initializer if tensor.name in names]
    for node in container.node:
        if node.op_type == "Constant" and names.intersection(node.output):
            value = node.attribute[0] if len(node.attribute) == 1 and not node.attribute[0].ref_attr_name else None
            tensors += [(name, _tensor(value)) for name in node.output]
    return {name: numbers for name, tensor in _once(tensors) if (numbers := _numbers(tensor)) is not None}


def _once(tensors: Iterable[tuple[str, TensorProto | None]]) -> Iterable[tuple[str, TensorProto | None]]:
    found: dict[str, TensorProto | None] = {}
    for name, tensor in tensors:
        found[name] = None if name in found else tensor
    return found.items()


def _tensor(value: onnx.AttributeProto | None) -> TensorProto | None:
    if value is None:
        return None
    if value.name == "value" and value.HasField("t"):
        return value.t
    if value.name in {"value_int", "value_ints"}:
        return numpy_helper.from_array(np.array(value.ints if value.name == "value_ints" else [value.i], np.int64))
    return None


def _numbers(tensor: TensorProto | None) -> tuple[int, ...] | None:
    if tensor is None or tensor.data_type not in {TensorProto.INT32, TensorProto.INT64}:
        return None
    if tensor.data_location == TensorProto.EXTERNAL or len(tensor.dims) > 1 or any(d > MOST_AXES for d in tensor.dims):
        return None
    try:
        return tuple(int(number) for number in numpy_helper.to_array(tensor).ravel())
    except COMPLAINTS:
        return None
