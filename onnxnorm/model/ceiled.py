"""Pools that round their size up, as runtimes compute them.

A window that would begin in the padding behind the input is left out. Shape inference knows that from opset 22 on only,
although the operators are the same before. So in a copy of the graph, made for inference, such a pool is written with
pads from which inference gets the right size.

Source: the specification of ONNX's operators AveragePool, LpPool and MaxPool, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

__all__ = ["settle_ceiled"]

_POOLS = {"AveragePool", "LpPool", "MaxPool"}


def settle_ceiled(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Give pads to the first pool whose inferred size is not the runtime's.

    Args:
        proto: a model, changed in place; its shapes are then right, its values are not.
        shapes: the inferred shapes of its values.

    Returns:
        Whether there was one. Shapes behind it must be inferred again.
    """
    return any(_settled(node, shapes) for node in proto.graph.node if node.op_type in _POOLS)


def _settled(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    given: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    source, target = shapes.get(node.input[0]), shapes.get(node.output[0])
    if not given.get("ceil_mode") or source is None or target is None:
        return False
    if given.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        return False
    kernel, axes = given["kernel_shape"], len(given["kernel_shape"])
    strides, dilations = (given.get(name) or [1] * axes for name in ("strides", "dilations"))
    pads = given.get("pads") if given.get("auto_pad", b"NOTSET") == b"NOTSET" else None
    pads = pads or [0] * 2 * axes
    heads, tails = pads[:axes], pads[axes:]
    sizes = list(target[2:])
    for at, size in enumerate(source[2:]):
        if (sizes[at] - 1) * strides[at] >= size + heads[at]:
            sizes[at] -= 1
        window = (kernel[at] - 1) * dilations[at] + 1
        tails[at] = max(tails[at], (sizes[at] - 1) * strides[at] + window - size - heads[at])
    if sizes == list(target[2:]):
        return False
    kept = [a for a in node.attribute if a.name not in {"ceil_mode", "pads", "auto_pad"}]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("pads", [*heads, *tails])])
    return True
