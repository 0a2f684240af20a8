"""Sizes of layers and pools with windows, as runtimes compute them, where shape inference is wrong.

* A pool that rounds its size up leaves out a window that would begin in the padding behind the input. Shape inference
  knows that from opset 22 on only, although the operators are the same before. So in a copy of the graph, made for
  inference, such a pool is written with pads from which inference gets the right size.
* Where a window is larger than what it slides over, there is no output. Shape inference may find one.

Source: the specification of ONNX's operators AveragePool, Conv, LpPool and MaxPool, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

__all__ = ["has_room", "settle_ceiled", "settled_node"]

_POOLS = {"AveragePool", "LpPool", "MaxPool"}


@dataclass(frozen=True)
class _Window:
    """How a window slides over its input: a number for each spatial axis."""

    sizes: Sequence[int]
    strides: Sequence[int]
    heads: Sequence[int]
    tails: Sequence[int]


def settle_ceiled(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Give pads to the first pool whose inferred size is not the runtime's.

    Args:
        proto: a model, changed in place; its shapes are then right, its values are not.
        shapes: the inferred shapes of its values.

    Returns:
        Whether there was one. Shapes behind it must be inferred again.
    """
    return any(_settled(node, shapes) for node in proto.graph.node if node.op_type in _POOLS)


def settled_node(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.NodeProto | None:
    """A copy of a pool with pads from which inference gets the runtime's size; None if it gets that already."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy if node.op_type in _POOLS and _settled(copy, shapes) else None


def has_room(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether no window of a layer or pool is larger than what it slides over."""
    known = dict(shapes) | {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        window = _window(node, known) if node.op_type in _POOLS | {"Conv"} else None
        if window is None:
            continue
        room = zip(known[node.input[0]][2:], window.heads, window.tails, window.sizes, strict=False)
        if any(size + head + tail < window_size for size, head, tail, window_size in room):
            return False
    return True


def _settled(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    window, target = _window(node, shapes), shapes.get(node.output[0])
    if window is None or target is None or not _attributes(node).get("ceil_mode"):
        return False
    sizes, tails = list(target[2:]), list(window.tails)
    for at, size in enumerate(shapes[node.input[0]][2:]):
        if (sizes[at] - 1) * window.strides[at] >= size + window.heads[at]:
            sizes[at] -= 1
        reach = (sizes[at] - 1) * window.strides[at] + window.sizes[at]
        tails[at] = max(tails[at], reach - size - window.heads[at])
    if sizes == list(target[2:]):
        return False
    kept = [attribute for attribute in node.attribute if attribute.name not in {"ceil_mode", "pads", "auto_pad"}]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", [*window.heads, *tails])])
    return True


def _window(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> _Window | None:
    """How the window of a node slides; None if that is not known, or if pads follow from the size of the input."""
    given = _attributes(node)
    kernel = given.get("kernel_shape") or shapes.get(node.input[1] if len(node.input) > 1 else "", ())[2:]
    padding = given.get("auto_pad", b"NOTSET")
    source, axes = shapes.get(node.input[0]), len(kernel)
    if not axes or source is None or len(source) != axes + 2 or padding not in {b"NOTSET", b"VALID"}:
        return None
    strides, dilations = (given.get(name) or [1] * axes for name in ("strides", "dilations"))
    pads = (given.get("pads") if padding == b"NOTSET" else None) or [0] * 2 * axes
    if {len(strides), len(dilations), len(pads) - axes} != {axes}:
        return None
    sizes = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    return _Window(sizes, strides, pads[:axes], pads[axes:])


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
