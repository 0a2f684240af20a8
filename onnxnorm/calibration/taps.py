"""Taps: the operators behind one value that measure it inside the graph.

Where they can be, means are computed by pooling operators, which keep the blocked layout of ONNX Runtime. A map of many
positions is averaged in two steps, windows first, which is more precise than one long sum in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxnorm.model.graph import Graph
from onnxnorm.scaling.filters import Site
from onnxnorm.statistics.measures import operators_of

__all__ = ["Positions", "Tap", "add_raw", "add_tap", "append", "batch_first", "never_negative", "reduced", "way_of"]

WINDOW = 16
SMALL = 1024  # positions that one sum in float32 has room for: as precise as windows are, and faster

Way: TypeAlias = Literal["windows", "pool", "reduce"]


@dataclass(frozen=True)
class Tap:
    """A measured site, and the outputs of the probe that hold its mean, its largest magnitude, its shape and itself.

    There is a magnitude only for the mean by which a layer is measured, a shape only if it is not known before a run,
    and the value itself only for a histogram; the other names are empty. `order` brings the axes of a value whose batch
    axis is another one into the order that is measured, the batch first; it is empty for all others. `way` says what
    averages: windows and then a pool over them, one pool, or a reduction of one axis after the other.
    """

    site: Site
    mean: str
    largest: str
    way: Way
    shape: str = ""
    raw: str = ""
    order: tuple[int, ...] = ()

    def spread(self, shape: tuple[int, ...], batch: int) -> Positions:
        """Return the positions of a value of this shape, with the batch first, for a batch of `batch` samples."""
        positions = int(np.prod(shape, dtype=np.int64)) // (shape[self.site.axis] * batch)
        if self.way != "windows":
            return Positions(positions, 1.0)
        spatial = np.asarray(shape[2:], np.float64)
        return Positions(positions, float(np.prod(np.ceil((spatial + WINDOW - 1) / WINDOW) * WINDOW / spatial)))


@dataclass(frozen=True)
class Positions:
    """Number of positions in one sample of a value, and the factor from the probe's mean to the mean over them."""

    positions: int
    factor: float


def batch_first(
    surgeon: gs.Graph, value: gs.Tensor, graph: Graph, site: Site, name: str
) -> tuple[gs.Tensor, Site, tuple[int, ...]]:
    """Transpose a value whose batch axis is not the first; returns what is measured, its site, the order of axes."""
    if not site.batch:
        return value, site, ()
    rank = _form(graph, site)[0]
    order = (site.batch, *(axis for axis in range(rank) if axis != site.batch))
    moved = append(surgeon, "Transpose", value, name, {"perm": list(order)})
    return moved, replace(site, axis=order.index(site.axis), batch=0), order


def way_of(graph: Graph, site: Site, *, one_size: bool) -> Way:
    """How a site is averaged: by pooling if channels are on axis 1, positions behind it, and the type is supported.

    `one_size` says that all samples are as large as the one that the graph was read with.
    """
    rank, dtype = _form(graph, site)
    if site.axis != 1 or rank < 3 or dtype == onnx.TensorProto.DOUBLE:
        return "reduce"
    shape = graph.shapes.get(site.value) if one_size and site.value not in graph.claimed else None
    return "pool" if shape is not None and math.prod(shape[2:]) <= SMALL else "windows"


def add_raw(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, site: Site, name: str) -> str:
    """Make a value an output in float32, and return the output's name: its own name if it is float32 already."""
    if _form(graph, site)[1] != onnx.TensorProto.FLOAT:
        value = append(surgeon, "Cast", value, name, {"to": onnx.TensorProto.FLOAT})
    if all(output is not value for output in surgeon.outputs):
        value.dtype, value.shape = np.dtype(np.float32), None
        surgeon.outputs.append(value)
    return str(value.name)


def add_tap(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: Tap) -> None:
    """Append the operators that measure a site, and make what they measure outputs of the graph."""
    rank, dtype = _form(graph, tap.site)
    if tap.shape:
        shape = append(surgeon, "Shape", value, tap.shape, {})
        shape.dtype = np.dtype(np.int64)
        surgeon.outputs.append(shape)
    if dtype not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        value = append(surgeon, "Cast", value, f"{tap.mean}_float", {"to": onnx.TensorProto.FLOAT})
    for operator in operators_of(tap.site.measure):
        twice = [value] if operator == "Mul" else []
        value = append(surgeon, operator, value, f"{tap.mean}_{operator.lower()}", {}, *twice)
    size = value
    if tap.largest and not never_negative(value, graph):
        size = append(surgeon, "Abs", value, f"{tap.largest}_abs", {})
    outputs = []
    if tap.way != "reduce":
        if tap.way == "windows":
            value = append(surgeon, "AveragePool", value, f"{tap.mean}_windows", _windows(rank - 2))
        outputs.append(append(surgeon, "GlobalAveragePool", value, tap.mean, {}))
        if tap.largest:
            outputs.append(append(surgeon, "GlobalMaxPool", size, tap.largest, {}))
    else:
        axes = [axis for axis in range(1, rank) if axis != tap.site.axis]
        outputs.append(_mean(surgeon, value, tap.mean, axes))
        if tap.largest:
            outputs.append(reduced(surgeon, "ReduceMax", size, tap.largest, axes))
    for output in outputs:
        output.dtype = np.dtype(np.float64 if dtype == onnx.TensorProto.DOUBLE else np.float32)
        surgeon.outputs.append(output)


def _form(graph: Graph, site: Site) -> tuple[int, int]:
    """Return rank and element type of a value; behind an unknown operator, those of the weight of its layer."""
    if site.value in graph.shapes:
        return len(graph.shapes[site.value]), graph.types[site.value]
    layer = next(node for node in graph.nodes if site.value in node.outputs)
    weight = graph.constants[layer.inputs[1]]
    return len(weight.shape), onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)


def never_negative(value: gs.Tensor, graph: Graph) -> bool:
    """Whether a value cannot be negative, because of the operator that makes it; other values need an Abs."""
    if not value.inputs:
        return False
    node = value.inputs[0]
    if node.op in {"Cast", "Transpose"}:
        return never_negative(node.inputs[0], graph)
    if node.op == "Clip":
        low = graph.constants.get(node.inputs[1].name) if len(node.inputs) > 1 else None
        return bool((np.asarray(low.values(), np.float64) >= 0).all() if low else node.attrs.get("min", -1.0) >= 0)
    return node.op in {"Abs", "Relu", "Sigmoid", "Softplus", "HardSigmoid"}


def _windows(axes: int) -> dict[str, Any]:
    """Return attributes with equal pads on all sides: ONNX Runtime before 1.25 confuses unequal ones (opset 19 on)."""
    return {
        "kernel_shape": [WINDOW] * axes,
        "strides": [WINDOW] * axes,
        "pads": [WINDOW - 1] * (2 * axes),
        "count_include_pad": 1,
    }


def _mean(surgeon: gs.Graph, value: gs.Tensor, name: str, axes: list[int]) -> gs.Variable:
    """Append means over one axis after the other, which is more precise, as the windows are."""
    for axis in reversed(axes[1:]):
        value = reduced(surgeon, "ReduceMean", value, f"{name}_{axis}", [axis])
    return reduced(surgeon, "ReduceMean", value, name, axes[:1])


def reduced(
    surgeon: gs.Graph, op: str, value: gs.Tensor, name: str, axes: list[int], *, whole: bool = False
) -> gs.Variable:
    """Append a reduction over some axes, or over the `whole` value, and return its result without these axes."""
    if whole:
        return append(surgeon, op, value, name, {"keepdims": 0})
    if not axes:
        return append(surgeon, "Identity", value, name, {})
    if surgeon.opset < 18:
        return append(surgeon, op, value, name, {"axes": axes, "keepdims": 0})
    constant = gs.Constant(f"{name}_axes", np.asarray(axes, np.int64))
    output = gs.Variable(name)
    surgeon.nodes.append(gs.Node(op, name, {"keepdims": 0}, [value, constant], [output]))
    return output


def append(
    surgeon: gs.Graph, op: str, value: gs.Tensor, name: str, attributes: dict[str, Any], *more: gs.Tensor
) -> gs.Variable:
    """Append a node that reads a value, and return what it writes, of the same name as the node."""
    output = gs.Variable(name)
    surgeon.nodes.append(gs.Node(op, name, attributes, [value, *more], [output]))
    return output
