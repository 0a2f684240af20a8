"""The probe: a temporary copy of the model that measures inside the runtime and returns arrays `(N, C)`.

At every site, a mean over positions becomes a graph output, and a maximum if it is asked for; nodes that no measurement
needs, such as the classifier head, are dropped. Which operators measure (`taps`) and where they stand in the file
(`layout`) is what a measurement costs: a value should be read while it is in the cache, and in the layout that it has.

A float32 sum over 50,000 positions loses five digits. So a mean over more than `SMALL` positions is computed in two
steps: over windows of `WINDOW` positions along every axis, with zero padding that is counted, and then over the
windows. The factor by which the padding increases the divisor is known from the shape, and is multiplied out in
float64. (VGG-16 on photographs: the relative error is 3e-5 in one step, and 1e-6 in two.)

Percentiles need all activations. If they are asked for, the measured values themselves are outputs too, in float32, and
are counted into histograms here, one value after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.calibration.averages import Averages, averages_of, rows_of
from onnxnorm.calibration.extremes import PeakTap, layout_of, peak_moments
from onnxnorm.calibration.layout import measure_early
from onnxnorm.calibration.links import Link
from onnxnorm.calibration.peaks import add_peaks
from onnxnorm.calibration.surgeon import export_graph, import_graph
from onnxnorm.calibration.taps import Positions, Tap, add_raw, add_tap, batch_first, splits, way_of
from onnxnorm.errors import DataError, ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, all_names
from onnxnorm.model.inference import shorten_domain
from onnxnorm.scaling.filters import FilterKind, Layer, Site, why_no_layers
from onnxnorm.statistics import Moments, Value, Weighting
from onnxnorm.statistics.histograms import Histogram
from onnxnorm.statistics.measures import MEANS, PEAK, measured
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.together import Block, Layout, Together

__all__ = ["Probe", "make_probe", "sites_of"]


@dataclass(frozen=True)
class Probe:
    """The model that measures; its external data is in `folder`."""

    proto: onnx.ModelProto = field(repr=False)
    folder: Path | None
    taps: tuple[Tap, ...]
    peaks: tuple[PeakTap, ...] = ()

    @cached_property
    def _layout(self) -> Layout:
        return layout_of(self.peaks)

    @property
    def joins(self) -> bool:
        """Whether the outputs of several runs can be put together: each has rows of samples, and none is large."""
        return all(peak.by_sample for peak in self.peaks) and not any(tap.shape or tap.raw for tap in self.taps)

    def spreads(self, shapes: Mapping[str, tuple[int, ...]], batch: int) -> tuple[Positions | None, ...]:
        """Return the positions of each tap for values of these shapes; None if only a run tells the shape."""
        return tuple(None if tap.shape else tap.spread(_measured_shape(tap, shapes), batch) for tap in self.taps)

    def moments(
        self,
        results: Mapping[str, NDArray[Any]],
        names: Sequence[str],
        batch: int,
        spreads: Sequence[Positions | None],
        weighting: Weighting = "position",
    ) -> Totals:
        """Return the moments of the samples of a batch. Raises DataError if an activation is not finite.

        Values are summed together, because there may be many small ones. A value without rows (no detections, say) is
        measured on no images here.

        Args:
            results: the outputs of the probe by name.
            names: names of the samples to count, which are the first ones in the batch; the others only pad it.
            batch: number of samples in the batch.
            spreads: the positions of each tap, from `Probe.spreads`.
            weighting: the weight of a sample: its number of positions, or 1.
        """
        count = len(names)
        peaks: Totals = {}
        if self.peaks:
            block = Block(self._layout, peak_moments(self.peaks, results, count, batch))
            peaks = Together({}, (block,), tuple(value for value, _ in self._layout))
        if not self.taps:
            return peaks
        groups = averages_of(self.taps, results, spreads, count, batch)
        means = np.concatenate([group.means for group in groups], axis=1)
        sums, squares = means.sum(axis=0), np.einsum("nc,nc->c", means, means)
        if not np.isfinite(sums).all():
            raise self._not_finite(groups, names)
        blocks, end = [], 0
        for group in groups:
            here = slice(end, end := end + group.means.shape[1])
            images = count if group.rows else 0
            weight = float(group.spread.positions if weighting == "position" else 1) if images else 0.0
            totals = (weight * sums[here], weight**2 * sums[here], weight**2 * squares[here])
            moments = Moments(images, images * weight, images * weight**2, *totals)
            values = (self._values[place] for place in group.places)
            blocks.append(Block(tuple(zip(values, group.widths, strict=True)), moments))
        together = Together({}, tuple(blocks), self._values)
        if not self._extremes:
            return together
        own = {
            value: replace(
                moments := together[value],
                largest=_largest(tap, results, count, batch, moments.channels, peaks.get(Value(tap.site.value, PEAK))),
                histogram=_histogram(results[tap.raw], tap.site, count, batch) if tap.raw else None,
            )
            for tap, value in zip(self.taps, self._values, strict=True)
        }
        return Together(own, peaks.blocks, (*own, *peaks.order)) if isinstance(peaks, Together) else own

    @cached_property
    def _values(self) -> tuple[Value, ...]:
        return tuple(Value(tap.site.value, tap.site.measure) for tap in self.taps)

    @cached_property
    def _extremes(self) -> bool:
        """Whether there is more to say of a value than its averages."""
        return bool(self.peaks) or any(tap.largest or tap.raw for tap in self.taps)

    def _not_finite(self, groups: Sequence[Averages], names: Sequence[str]) -> DataError:
        """Return the error that names the first sample with an activation that is not finite, and its first value."""
        wrong = np.empty((len(self.taps), len(names)), np.bool_)
        for group in groups:
            for place, means in group.each():
                wrong[place] = ~np.isfinite(means).all(axis=1)
        sample, place = (int(indices[0]) for indices in np.nonzero(wrong.T))
        return DataError(
            f"{names[sample]} makes activation {self.taps[place].site.value!r} infinite or not a number; check this "
            "input and its preprocessing, or leave it out"
        )


def sites_of(layers: Iterable[Layer], measure: Iterable[str] = ()) -> tuple[Site, ...]:
    """Return the distinct sites of layers, in order, then those of the averages that the statistics `measure` need."""
    sites = dict.fromkeys(layer.site for layer in layers)
    averages = [entry.average for name, entry in measured().items() if name in measure and entry.average is not None]
    return (*sites, *(replace(site, measure=average) for average in averages for site in sites))


@model_errors("the graph")
def make_probe(
    model: Model,
    graph: Graph,
    sites: Sequence[Site],
    *,
    kind: FilterKind = "conv",
    maxima: bool = False,
    histograms: bool = False,
    one_size: bool = False,
    blocked: frozenset[str] | None = None,
    peaks: Mapping[str, Sequence[int]] = MappingProxyType({}),
    links: Mapping[str, Link] = MappingProxyType({}),
) -> Probe:
    """Build the probe for these sites.

    Args:
        model: the model.
        graph: the same model, read for the shapes of a sample.
        sites: what to measure.
        kind: which filters were looked for, for the message if there are none.
        maxima: whether the largest magnitudes are measured.
        histograms: whether values are outputs too, to be counted.
        one_size: whether all samples are as large as the one that the graph was read with.
        blocked: the values that the kernels keep in a blocked layout; None if that is not known.
        peaks: the channel axes of the values whose range is measured.
        links: how the ranges of some of them follow from those of others.

    Raises:
        ModelError: if there is nothing to measure.
    """
    if not sites and not peaks:
        raise ModelError(why_no_layers(model.proto, kind))
    proto, folder = model.in_place() or (model.to_proto(), None)
    shorten_domain(proto)
    surgeon = import_graph(proto)
    tensors = surgeon.tensors()
    surgeon.outputs = []
    taps = []
    prefix = _unused_prefix(proto)
    for index, wanted in enumerate(sites):
        value, site, order = batch_first(surgeon, tensors[wanted.value], graph, wanted, f"{prefix}_batch_first_{index}")
        mean = wanted.measure in MEANS
        raw = add_raw(surgeon, value, graph, site, f"{prefix}_raw_{index}") if histograms and mean else ""
        known = wanted.value in graph.shapes and wanted.value not in graph.claimed  # a claim may be of another size
        tap = Tap(
            site=site,
            mean=f"{prefix}_mean_{index}",
            largest=f"{prefix}_max_{index}" if maxima and mean else "",
            way=(way := way_of(graph, site, blocked, one_size=one_size)),
            shape="" if known else f"{prefix}_shape_{index}",
            raw=raw,
            order=order,
            signed=f"{prefix}_signed_{index}" if splits(wanted, blocked, maxima=maxima) and way != "reduce" else "",
            channels=graph.shapes[wanted.value][site.axis] if way == "filter" else 0,
        )
        add_tap(surgeon, value, graph, tap)
        taps.append(tap)
    ranges = add_peaks(surgeon, graph, peaks, links, blocked, [tap.site.value for tap in taps], prefix)
    surgeon.cleanup(recurse_subgraphs=False, remove_unused_graph_inputs=True).toposort()
    probe = export_graph(surgeon)
    measure_early(probe.graph, f"{prefix}_")
    del probe.graph.value_info[:]  # the runtime would believe what the file claims, and fold shapes by it
    probe.ir_version = max(4, model.proto.ir_version)
    return Probe(probe, folder, tuple(taps), ranges)


def _unused_prefix(proto: onnx.ModelProto) -> str:
    """Return a prefix that no value and no node of a model begins with."""
    names = all_names(proto.graph) | {node.name for node in proto.graph.node}
    prefix = "onnxnorm"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix


def _measured_shape(tap: Tap, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of what a tap measures, the batch first."""
    shape = shapes[tap.site.value]
    return tuple(shape[axis] for axis in tap.order) if tap.order else shape


def _largest(
    tap: Tap, results: Mapping[str, NDArray[Any]], count: int, batch: int, width: int, peak: Moments | None
) -> NDArray[np.float64] | None:
    """The largest magnitude of each channel; also if the range of the value was measured, channel by channel."""
    if tap.largest:
        rows = rows_of(results[tap.largest], batch, tap.site.value)[:count]
        return np.asarray(rows.reshape(-1, width).max(axis=0, initial=0.0), np.float64)
    if peak is None or tap.site.measure not in MEANS or peak.channels != width:
        return None
    return peak.largest


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
