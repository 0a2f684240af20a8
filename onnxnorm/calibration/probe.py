"""The probe: a temporary copy of the model that measures inside the runtime and returns arrays `(N, C)`.

At every site, a mean and a maximum over positions become graph outputs; nodes that no measurement needs, such as the
classifier head, are dropped. `GlobalAveragePool` and `GlobalMaxPool` are used where possible, because the CPU runtime
runs them in the blocked layout of its convolutions, whereas ReduceMean would have to reorder each value first.

A float32 sum over 50,000 positions loses five digits. So a mean is computed in two steps: over windows of `WINDOW`
positions along every axis, with zero padding that is counted, and then over the windows. The factor by which the
padding increases the divisor is known from the shape, and is multiplied out in float64. (VGG-16 on photographs: the
relative error is 3e-5 in one step, and 1e-6 in two.)

Percentiles need all activations. If they are asked for, the measured values themselves are outputs too, in float32, and
are counted into histograms here, one value after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxnorm.calibration.surgeon import export_graph, import_graph
from onnxnorm.errors import DataError, ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.shapes import shorten_domain
from onnxnorm.scaling.filters import Layer, Site
from onnxnorm.statistics import Moments, Value, Weighting
from onnxnorm.statistics.histograms import Histogram
from onnxnorm.statistics.measures import MEANS, measured, operators_of

__all__ = ["Probe", "make_probe", "sites_of"]

WINDOW = 16


@dataclass(frozen=True)
class Tap:
    """A measured site, and the outputs of the probe that hold its mean, its largest magnitude, its shape and itself.

    There is a magnitude only for the mean by which a layer is measured, a shape only if it is not known before a run,
    and the value itself only for a histogram; the other names are empty.
    """

    site: Site
    mean: str
    largest: str
    windowed: bool
    shape: str = ""
    raw: str = ""

    def spread(self, shape: tuple[int, ...], batch: int) -> Positions:
        """Return the positions of a value of this shape, for a batch of `batch` samples."""
        positions = int(np.prod(shape, dtype=np.int64)) // (shape[self.site.axis] * batch)
        if not self.windowed:
            return Positions(positions, 1.0)
        spatial = np.asarray(shape[2:], np.float64)
        return Positions(positions, float(np.prod(np.ceil((spatial + WINDOW - 1) / WINDOW) * WINDOW / spatial)))


@dataclass(frozen=True)
class Positions:
    """Number of positions in one sample of a value, and the factor from the probe's mean to the mean over them."""

    positions: int
    factor: float


@dataclass(frozen=True)
class Probe:
    """The model that measures; its external data is in `folder`."""

    proto: onnx.ModelProto = field(repr=False)
    folder: Path | None
    taps: tuple[Tap, ...]

    def spreads(self, shapes: Mapping[str, tuple[int, ...]], batch: int) -> tuple[Positions | None, ...]:
        """Return the positions of each tap for values of these shapes; None if only a run tells the shape."""
        return tuple(None if tap.shape else tap.spread(shapes[tap.site.value], batch) for tap in self.taps)

    def moments(
        self,
        results: Mapping[str, NDArray[Any]],
        names: Sequence[str],
        batch: int,
        spreads: Sequence[Positions | None],
        weighting: Weighting = "position",
    ) -> dict[Value, Moments]:
        """Return the moments of the samples of a batch. Raises DataError if an activation is not finite.

        Values are concatenated along their channels and summed together, because there may be many small values.

        Args:
            results: the outputs of the probe by name.
            names: names of the samples to count, which are the first ones in the batch; the others only pad it.
            batch: number of samples in the batch.
            spreads: the positions of each tap, from `Probe.spreads`.
            weighting: the weight of a sample: its number of positions, or 1.
        """
        count = len(names)
        rows = [_rows(results[tap.mean], batch, tap.site.value)[:count] for tap in self.taps]
        known = [
            spread or tap.spread(tuple(results[tap.shape].tolist()), batch)
            for tap, spread in zip(self.taps, spreads, strict=True)
        ]
        widths = [array.shape[2] for array in rows]
        means = np.concatenate([array.mean(axis=1, dtype=np.float64) for array in rows], axis=1)
        means *= np.repeat([spread.factor for spread in known], widths)
        sums, squares = means.sum(axis=0), np.einsum("nc,nc->c", means, means)
        if not np.isfinite(sums).all():
            raise self._not_finite(means, widths, names)
        moments, end = {}, 0
        for tap, spread, width in zip(self.taps, known, widths, strict=True):
            here = slice(end, end := end + width)
            weight = float(spread.positions if weighting == "position" else 1)
            largest = _rows(results[tap.largest], batch, tap.site.value)[:count] if tap.largest else means[:, here]
            moments[Value(tap.site.value, tap.site.measure)] = Moments(
                images=count,
                weight=count * weight,
                weight_squares=count * weight**2,
                total=weight * sums[here],
                square_total=weight**2 * sums[here],
                squares=weight**2 * squares[here],
                largest=largest.reshape(-1, width).max(axis=0).astype(np.float64),
                histogram=_histogram(results[tap.raw], tap.site, count, batch) if tap.raw else None,
            )
        return moments

    def _not_finite(self, means: NDArray[np.float64], widths: Sequence[int], names: Sequence[str]) -> DataError:
        """Return the error that names the first sample with an activation that is not finite, and its first value."""
        sample, column = (int(indices[0]) for indices in np.nonzero(~np.isfinite(means)))
        value = self.taps[int(np.searchsorted(np.cumsum(widths), column, side="right"))].site.value
        return DataError(
            f"{names[sample]} makes activation {value!r} infinite or not a number; check this input and its "
            "preprocessing, or leave it out"
        )


def sites_of(layers: Iterable[Layer], measure: Iterable[str] = ()) -> tuple[Site, ...]:
    """Return the distinct sites of layers, in order, then those of the averages that the statistics `measure` need."""
    sites = dict.fromkeys(layer.site for layer in layers)
    averages = [average for name in measure if (average := measured()[name].average) is not None]
    return (*sites, *(replace(site, measure=average) for average in averages for site in sites))


@model_errors("the graph")
def make_probe(model: Model, graph: Graph, sites: Sequence[Site], *, histograms: bool = False) -> Probe:
    """Build the probe for these sites; with `histograms`, values are outputs too. Raises ModelError without sites."""
    if not sites:
        raise ModelError("the model has no convolutions to normalize; with --filters all, dense layers count too")
    proto, folder = model.in_place() or (model.to_proto(), None)
    shorten_domain(proto)
    surgeon = import_graph(proto)
    tensors = surgeon.tensors()
    surgeon.outputs = []
    taps = []
    for index, site in enumerate(sites):
        shape = "" if site.value in graph.shapes else f"onnxnorm_shape_{index}"
        largest = f"onnxnorm_max_{index}" if site.measure in MEANS else ""
        raw = _add_raw(surgeon, tensors[site.value], graph, site, index) if histograms and largest else ""
        tap = Tap(site, f"onnxnorm_mean_{index}", largest, _pools(graph, site), shape, raw)
        _add_tap(surgeon, tensors[site.value], graph, tap)
        taps.append(tap)
    surgeon.cleanup(recurse_subgraphs=False, remove_unused_graph_inputs=True).toposort()
    probe = export_graph(surgeon)
    probe.ir_version = max(4, model.proto.ir_version)
    return Probe(probe, folder, tuple(taps))


def _pools(graph: Graph, site: Site) -> bool:
    """Whether pooling operators can be used: channels on axis 1, positions behind it, and a supported element type."""
    rank, dtype = _form(graph, site)
    return site.axis == 1 and rank >= 3 and dtype != onnx.TensorProto.DOUBLE


def _form(graph: Graph, site: Site) -> tuple[int, int]:
    """Return rank and element type of a value; behind an unknown operator, those of the weight of its layer."""
    if site.value in graph.shapes:
        return len(graph.shapes[site.value]), graph.types[site.value]
    layer = next(node for node in graph.nodes if site.value in node.outputs)
    weight = graph.constants[layer.inputs[1]]
    return len(weight.shape), onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)


def _add_raw(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, site: Site, index: int) -> str:
    """Make a value an output in float32, and return the output's name: its own name if it is float32 already."""
    if _form(graph, site)[1] != onnx.TensorProto.FLOAT:
        value = _append(surgeon, "Cast", value, f"onnxnorm_raw_{index}", {"to": onnx.TensorProto.FLOAT})
    if all(output is not value for output in surgeon.outputs):
        value.dtype, value.shape = np.dtype(np.float32), None
        surgeon.outputs.append(value)
    return str(value.name)


def _add_tap(surgeon: gs.Graph, value: gs.Tensor, graph: Graph, tap: Tap) -> None:
    rank, dtype = _form(graph, tap.site)
    if tap.shape:
        shape = _append(surgeon, "Shape", value, tap.shape, {})
        shape.dtype = np.dtype(np.int64)
        surgeon.outputs.append(shape)
    if dtype not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        value = _append(surgeon, "Cast", value, f"{tap.mean}_float", {"to": onnx.TensorProto.FLOAT})
    for operator in operators_of(tap.site.measure):
        twice = [value] if operator == "Mul" else []
        value = _append(surgeon, operator, value, f"{tap.mean}_{operator.lower()}", {}, *twice)
    size = value
    if tap.largest and not _never_negative(value, graph):
        size = _append(surgeon, "Abs", value, f"{tap.largest}_abs", {})
    outputs = []
    if tap.windowed:
        windows = _append(surgeon, "AveragePool", value, f"{tap.mean}_windows", _windows(rank - 2))
        outputs.append(_append(surgeon, "GlobalAveragePool", windows, tap.mean, {}))
        if tap.largest:
            outputs.append(_append(surgeon, "GlobalMaxPool", size, tap.largest, {}))
    else:
        axes = [axis for axis in range(1, rank) if axis != tap.site.axis]
        outputs.append(_mean(surgeon, value, tap.mean, axes))
        if tap.largest:
            outputs.append(_reduce(surgeon, "ReduceMax", size, tap.largest, axes))
    for output in outputs:
        output.dtype = np.dtype(np.float64 if dtype == onnx.TensorProto.DOUBLE else np.float32)
        surgeon.outputs.append(output)


def _never_negative(value: gs.Tensor, graph: Graph) -> bool:
    """Whether a value cannot be negative, because of the operator that makes it; other values need an Abs."""
    if not value.inputs:
        return False
    node = value.inputs[0]
    if node.op == "Cast":
        return _never_negative(node.inputs[0], graph)
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
        value = _reduce(surgeon, "ReduceMean", value, f"{name}_{axis}", [axis])
    return _reduce(surgeon, "ReduceMean", value, name, axes[:1])


def _reduce(surgeon: gs.Graph, op: str, value: gs.Tensor, name: str, axes: list[int]) -> gs.Variable:
    if not axes:
        return _append(surgeon, "Identity", value, name, {})
    if surgeon.opset < 18:
        return _append(surgeon, op, value, name, {"axes": axes, "keepdims": 0})
    constant = gs.Constant(f"{name}_axes", np.asarray(axes, np.int64))
    output = gs.Variable(name)
    surgeon.nodes.append(gs.Node(op, name, {"keepdims": 0}, [value, constant], [output]))
    return output


def _append(
    surgeon: gs.Graph, op: str, value: gs.Tensor, name: str, attributes: dict[str, Any], *more: gs.Tensor
) -> gs.Variable:
    output = gs.Variable(name)
    surgeon.nodes.append(gs.Node(op, name, attributes, [value, *more], [output]))
    return output


def _rows(result: NDArray[Any], batch: int, value: str) -> NDArray[Any]:
    """Return an output as `(batch, k, channels)`: k rows for each sample. Raises ModelError if that does not fit."""
    channels = result.size // result.shape[0]
    if result.shape[0] % batch:
        raise ModelError(
            f"value {value!r} has {result.shape[0]} rows for {batch} samples: its first axis is not the batch"
        )
    return result.reshape(batch, -1, channels)


def _histogram(raw: NDArray[np.float32], site: Site, count: int, batch: int) -> Histogram:
    """Count the first `count` samples of a value; they are copied only if channels are not on axis 1."""
    used = raw[: len(raw) // batch * count]
    try:
        values = np.ascontiguousarray(np.moveaxis(used, site.axis, 1))
        return Histogram.of(values.reshape(*values.shape[:2], -1))
    except OverflowError as error:
        raise DataError(
            f"activation {site.value!r} has numbers beyond the range of float32, in which percentiles are measured"
        ) from error
