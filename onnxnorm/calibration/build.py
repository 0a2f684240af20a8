"""Builds the probe: a temporary copy of the model that measures inside the runtime and returns arrays `(N, C)`.

At every site, a mean over positions becomes a graph output, and a maximum if it is asked for; nodes that no measurement
needs, such as the classifier head, are dropped. Which operators measure (`taps`) and where they stand in the file
(`layout`) is what a measurement costs: a value should be read while it is in the cache, and in the layout that it has.
In the end most outputs are joined to one (`joint`).

A float32 sum over 50,000 positions loses five digits. So a mean over more than `SMALL` positions is computed in two
steps: over windows of `WINDOW` positions along every axis, with zero padding that is counted, and then over the
windows. The factor by which the padding increases the divisor is known from the shape, and is multiplied out in
float64. (VGG-16 on photographs: the relative error is 3e-5 in one step, and 1e-6 in two.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import onnx

from onnxnorm.calibration.extremes import PeakTap
from onnxnorm.calibration.joint import has_one_row, join
from onnxnorm.calibration.layout import measure_early
from onnxnorm.calibration.links import Link
from onnxnorm.calibration.peaks import add_peaks
from onnxnorm.calibration.probe import Probe
from onnxnorm.calibration.signs import never_negative_values
from onnxnorm.calibration.surgeon import export_graph, import_graph
from onnxnorm.calibration.taps import Tap, add_raw, add_tap, batch_first, splits, way_of
from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, all_names
from onnxnorm.model.inference import shorten_domain
from onnxnorm.scaling.filters import FilterKind, Layer, Site, why_no_layers
from onnxnorm.statistics.measures import MEANS, measured

__all__ = ["make_probe", "sites_of"]


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
    taps, positive = [], never_negative_values(graph)
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
        add_tap(surgeon, value, graph, tap, positive=wanted.value in positive)
        taps.append(tap)
    ranges = add_peaks(surgeon, graph, peaks, links, blocked, positive, [tap.site.value for tap in taps], prefix)
    surgeon.cleanup(recurse_subgraphs=False, remove_unused_graph_inputs=True).toposort()
    probe = export_graph(surgeon)
    measure_early(probe.graph, f"{prefix}_")
    joint = join(probe.graph, _rows(graph, taps, ranges), f"{prefix}_rows")
    del probe.graph.value_info[:]  # the runtime would believe what the file claims, and fold shapes by it
    probe.ir_version = max(4, model.proto.ir_version)
    return Probe(probe, folder, tuple(taps), ranges, joint)


def _unused_prefix(proto: onnx.ModelProto) -> str:
    """Return a prefix that no value and no node of a model begins with."""
    names = all_names(proto.graph) | {node.name for node in proto.graph.node}
    prefix = "onnxnorm"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix


def _rows(graph: Graph, taps: Sequence[Tap], peaks: Sequence[PeakTap]) -> dict[str, int]:
    """The outputs that have one row for each sample, with their widths, so that what is alike stands together.

    Empty where another output has rows of samples, or is not known to have none.
    """
    own = [peak for peak in peaks if peak.link is None and (peak.by_sample or peak.value not in graph.shapes)]
    values = [*(tap.site.value for tap in taps), *(peak.value for peak in own)]
    if any(tap.shape or tap.raw or tap.order for tap in taps) or not all(_is_row(graph, value) for value in values):
        return {}
    return dict((*_rows_of_taps(graph, taps), *(row for peak in own for row in peak.outputs)))


def _is_row(graph: Graph, value: str) -> bool:
    return has_one_row(graph, value) and graph.types[value] != onnx.TensorProto.DOUBLE


def _rows_of_taps(graph: Graph, taps: Sequence[Tap]) -> Iterator[tuple[str, int]]:
    """Means of values of one size stand together, the magnitudes of which are split (`signed`) behind the others."""
    alike = sorted(taps, key=lambda tap: (bool(tap.signed), graph.shapes[tap.site.value][2:], tap.way))
    widths = [graph.shapes[tap.site.value][tap.site.axis] for tap in alike]
    for name in ("mean", "signed", "largest"):
        yield from ((getattr(tap, name), width) for tap, width in zip(alike, widths, strict=True) if getattr(tap, name))
