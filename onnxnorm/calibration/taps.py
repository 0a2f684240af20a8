"""Taps: the operators behind one value that measure it inside the graph.

Where they can be, means are computed by operators that keep the blocked layout of ONNX Runtime (`layout`). A map of
many positions is averaged in two steps, windows first, which is more precise than one long sum in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxnorm.calibration.layout import BLOCK
from onnxnorm.model.graph import Graph
from onnxnorm.scaling.filters import Site
from onnxnorm.statistics.measures import operators_of

__all__ = [
    "Positions",
    "Tap",
    "add_raw",
    "add_tap",
    "append",
    "batch_first",
    "pooled",
    "reduced",
    "splits",
    "way_of",
]

WINDOW, FILTER = 16, 8  # positions along each axis of a window
SMALL = 1024  # positions that one sum in float32 has room for: as precise as windows are, and faster

Way: TypeAlias = Literal["windows", "filter", "pool", "reduce"]

_WINDOWS: dict[Way, int] = {"windows": WINDOW, "filter": FILTER}


@dataclass(frozen=True)
class Tap:
    """A measured site, and the outputs of the probe that hold its mean, its largest magnitude, its shape and itself.

    There is a magnitude only for the mean by which a layer is measured, a shape only if it is not known before a run,
    and the value itself only for a histogram; the other names are empty. `order` brings the axes of a value whose batch
    axis is another one into the order that is measured, the batch first; it is empty for all others.

    `way` says what averages: a pool over windows and then one over these, a depthwise convolution with such windows and
    then a pool, one pool, or a reduction of one axis after the other. If there is `signed`, it is the mean of the value
    itself, and `mean` that of its positive part `p`: the mean of `|x| = 2 p - x` follows, without an Abs, which would
    have the value reordered. `channels` is their number, if the way needs it.
    """

    site: Site
    mean: str
    largest: str
    way: Way
    shape: str = ""
    raw: str = ""
    order: tuple[int, ...] = ()
    signed: str = ""
    channels: int = 0

    def spread(self, shape: tuple[int, ...], batch: int) -> Positions:
        """Return the positions of a value of this shape, with the batch first, for a batch of `batch` samples."""
        positions = int(np.prod(shape, dtype=np.int64)) // (shape[self.site.axis] * batch)
        window = _WINDOWS.get(self.way)
        if window is None:
            return Positions(positions, 1.0)
        spatial = np.asarray(shape[2:], np.float64)
        return Positions(positions, float(np.prod(np.ceil((spatial + window - 1) / window) * window / spatial)))


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


def way_of(graph: Graph, site: Site, blocked: frozenset[str] | None, *, one_size: bool) -> Way:
    """How a site is averaged: by pooling if channels are on axis 1, positions behind it, and the type is supported.

    Where it is known that a value is not `blocked`, its rows are summed, unless one pool is enough. `one_size` says
    that all samples are as large as the one that the graph was read with.
    """
    rank, dtype = _form(graph, site)
    if site.axis != 1 or rank < 3 or dtype == onnx.TensorProto.DOUBLE:
        return "reduce"
    shape = graph.shapes.get(site.value) if site.value not in graph.claimed else None
    small = shape is not None and one_size and math.prod(shape[2:]) <= SMALL
    if blocked is not None and shape is not None and not site.batch:
        if site.value in blocked and shape[1] % BLOCK and not (small and max(shape[2:]) <= FILTER):
            return "filter"
        if site.value not in blocked and not small and rank > 3 and max(shape[2:]) <= SMALL:
            return "reduce"
    return "pool" if small else "windows"


def splits(site: Site, blocked: frozenset[str] | None, *, maxima: bool) -> bool:
    """Whether the mean magnitude of a value is computed of two means; a maximum needs the magnitudes themselves."""
    return blocked is not None and site.value in blocked and site.measure == "mean_abs" and not (site.batch or maxima)


def add_raw(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, site: Site, name: str) -> str:
    """Make a value an output in float32, and return the output's name: its own name if it is float32 already."""
    if _form(graph, site)[1] != onnx.TensorProto.FLOAT:
        value = append(surgeon, "Cast", value, name, {"to": onnx.TensorProto.FLOAT})
    if all(output is not value for output in surgeon.outputs):
        value.dtype, value.shape = np.dtype(np.float32), None
        surgeon.outputs.append(value)
    return str(value.name)


def add_tap(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: Tap, *, positive: bool) -> None:
    """Append the operators that measure a site, and make what they measure outputs of the graph.

    `positive` says that the value cannot be negative, so that its largest number is its largest magnitude.
    """
    rank, dtype = _form(graph, tap.site)
    if tap.shape:
        shape = append(surgeon, "Shape", value, tap.shape, {})
        shape.dtype = np.dtype(np.int64)
        surgeon.outputs.append(shape)
    if dtype not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        value = append(surgeon, "Cast", value, f"{tap.mean}_float", {"to": onnx.TensorProto.FLOAT})
    if tap.signed:
        positive = append(surgeon, "Relu", value, f"{tap.mean}_relu", {})
        means = [_averaged(surgeon, positive, tap.mean, tap, rank), _averaged(surgeon, value, tap.signed, tap, rank)]
    else:
        for operator in operators_of(tap.site.measure):
            positive |= operator == "Abs"
            twice = [value] if operator == "Mul" else []
            value = append(surgeon, operator, value, f"{tap.mean}_{operator.lower()}", {}, *twice)
        means = [_averaged(surgeon, value, tap.mean, tap, rank)]
    for output in (*means, *([_largest(surgeon, value, tap, rank, positive=positive)] if tap.largest else [])):
        output.dtype = np.dtype(np.float64 if dtype == onnx.TensorProto.DOUBLE else np.float32)
        surgeon.outputs.append(output)


def _averaged(surgeon: gs.Graph, value: gs.Tensor, name: str, tap: Tap, rank: int) -> gs.Variable:
    """Append the mean over all axes but those of samples and channels, `(rows, channels)`."""
    if tap.way == "reduce":
        return _mean(surgeon, value, name, _positions(tap, rank))
    if tap.way == "windows":
        value = append(
            surgeon, "AveragePool", value, f"{name}_windows", _windows(rank - 2, WINDOW, count_include_pad=1)
        )
    elif tap.way == "filter":
        shape = (tap.channels, 1, *[FILTER] * (rank - 2))
        weight = gs.Constant(f"{name}_filter", np.full(shape, 1 / math.prod(shape[2:]), np.float32))
        attributes = _windows(rank - 2, FILTER, group=tap.channels)
        value = append(surgeon, "Conv", value, f"{name}_windows", attributes, weight)
    return pooled(surgeon, "GlobalAveragePool", value, name)


def _largest(surgeon: gs.Graph, value: gs.Tensor, tap: Tap, rank: int, *, positive: bool) -> gs.Variable:
    """Append the largest magnitude over all axes but those of samples and channels."""
    if not positive:
        value = append(surgeon, "Abs", value, f"{tap.largest}_abs", {})
    if tap.way == "reduce":
        return reduced(surgeon, "ReduceMax", value, tap.largest, _positions(tap, rank))
    return pooled(surgeon, "GlobalMaxPool", value, tap.largest)


def _positions(tap: Tap, rank: int) -> list[int]:
    return [axis for axis in range(1, rank) if axis != tap.site.axis]


def _form(graph: Graph, site: Site) -> tuple[int, int]:
    """Return rank and element type of a value; behind an unknown operator, those of the weight of its layer."""
    if site.value in graph.shapes:
        return len(graph.shapes[site.value]), graph.types[site.value]
    layer = next(node for node in graph.nodes if site.value in node.outputs)
    weight = graph.constants[layer.inputs[1]]
    return len(weight.shape), onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)


def _windows(axes: int, side: int, **more: int) -> dict[str, Any]:
    """Return attributes with equal pads on all sides: ONNX Runtime before 1.25 confuses unequal ones (opset 19 on)."""
    return {"kernel_shape": [side] * axes, "strides": [side] * axes, "pads": [side - 1] * (2 * axes), **more}


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


def pooled(surgeon: gs.Graph, op: str, value: gs.Tensor, name: str) -> gs.Variable:
    """Append a global pool, and a node that stays where it is in the file whatever the runtime makes of the pool."""
    return append(surgeon, "Flatten", append(surgeon, op, value, f"{name}_pool", {}), name, {"axis": 1})


def append(
    surgeon: gs.Graph, op: str, value: gs.Tensor, name: str, attributes: dict[str, Any], *more: gs.Tensor
) -> gs.Variable:
    """Append a node that reads a value, and return what it writes, of the same name as the node."""
    output = gs.Variable(name)
    surgeon.nodes.append(gs.Node(op, name, attributes, [value, *more], [output]))
    return output
