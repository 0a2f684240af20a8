"""The statistic of every layer's filters: measured on images, read from the weights, or implied by BatchNormalization.

============  =========================================================================================  ==========
`mean`        mean activation, as the paper normalizes it                                                images
`rms`         root of the mean square                                                                    images
`max`         largest magnitude seen: data-based threshold normalization for spiking networks            images
`p99.9`       magnitude that 99.9 % of the activations do not exceed: the same, robust against outliers  images
`pQ`          the same for any share Q; `pQ:nonzero` leaves activations of 0 out                         images
`weights`     imbalance between the weights that write a channel and those that read it                  nothing
`bn`          mean activation that the parameters of a BatchNormalization imply                          nothing
============  =========================================================================================  ==========

`max` is Diehl et al., Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing
(IJCNN 2015), and Rueckauer et al., Conversion of continuous-valued deep networks to efficient event-driven networks for
image classification (Frontiers in Neuroscience 11:682, 2017); `p99.9` is the latter's "robust" normalization.

Statistics that are measured on images are entries of `onnxnorm.statistics.measures`; those that need no images are
entries of `WITHOUT_IMAGES` here.

With one scale per layer the statistic is that of the layer, as if all its filters were one with more positions: the
mean of the means, the largest maximum, the percentile of all activations. Its standard error is not known, since images
move the means of filters together.

A filter is dead if its statistic does not stand out from the rounding noise of its layer (`stand_out`). If the
statistic of a filter is not known, it is NaN. In both cases the filter keeps scale 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.rewriting.batch_norm_means import implied_means
from onnxnorm.rewriting.equalization import imbalances
from onnxnorm.rewriting.opened import Per
from onnxnorm.scaling import Layer, Trace
from onnxnorm.scaling.filters import has_rows_of_samples
from onnxnorm.statistics import Moments, Statistics, Value
from onnxnorm.statistics.measures import PERCENTILES, MeasuredStatistic, measured, statistic_of
from onnxnorm.statistics.moments import stand_out

__all__ = [
    "WITHOUT_IMAGES",
    "ImpliedStatistic",
    "LayerStatistic",
    "measure",
    "needs_images",
    "statistic_names",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ImpliedStatistic:
    """A statistic that needs no images.

    Attributes:
        help: a description for users.
        read: returns the statistic of the filters of each layer, shape `(channels,)`; NaN where it is not known.
        nothing: why it may be known of no filter.
    """

    help: str
    read: Callable[[Model, Trace, Sequence[Layer]], list[Floats]]
    nothing: str


WITHOUT_IMAGES = {
    "weights": ImpliedStatistic(
        "balance of the weights before and behind",
        imbalances,
        "no channel that may be scaled lies between two layers with weights",
    ),
    "bn": ImpliedStatistic(
        "means that BatchNormalizations imply",
        lambda _, trace, layers: implied_means(trace, layers),
        "no BatchNormalization stands before a non-linearity",
    ),
}


@dataclass(frozen=True)
class LayerStatistic:
    """The statistic of one layer's filters and its standard error, shape `(channels,)`; NaN where not known."""

    statistic: Floats = field(repr=False)
    standard_error: Floats = field(repr=False)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Which filters have a statistic that is too small to divide by, shape `(channels,)`."""
        return np.asarray(~stand_out(self.statistic) & ~np.isnan(self.statistic))


def statistic_names() -> tuple[str, ...]:
    """Names of all statistics, those that are measured on images first; of percentiles, only p99.9."""
    return (*measured(), *WITHOUT_IMAGES)


def needs_images(statistic: str) -> bool:
    """Whether a statistic is measured on images. Raises OptionError if there is no statistic of this name."""
    if statistic in WITHOUT_IMAGES:
        return False
    if statistic_of(statistic) is None:
        allowed = ", ".join([*statistic_names(), PERCENTILES])
        raise OptionError(f"--statistic {statistic!r} is unknown; choose one of {allowed}")
    return True


def measure(
    statistic: str,
    model: Model,
    trace: Trace,
    layers: Sequence[Layer],
    statistics: Statistics | None,
    per: Per = "channel",
) -> list[LayerStatistic]:
    """The statistic of the filters of every layer, in the order of `layers`.

    Args:
        statistic: its name.
        model: the model, since some statistics are computed from its weights.
        trace: a walk over the model.
        layers: the layers of filters.
        statistics: what was measured on images; None for a statistic that needs none.
        per: "layer" for the statistic of the layer as a whole, which all its filters have then: of all activations of
            all filters, or the mean of what is known of the filters if no images are needed.

    Raises:
        OptionError: if there is no statistic of this name.
        StatisticsError: if it must be measured on images and was not, or if it is not known of any filter.
    """
    if not needs_images(statistic):
        implied = WITHOUT_IMAGES[statistic]
        arrays = implied.read(model, trace, layers)
        if all(np.isnan(array).all() for array in arrays):
            raise StatisticsError(f"the statistic {statistic!r} is not known of any filter: {implied.nothing}")
        if per == "layer":
            arrays = [_mean_of_known(array) for array in arrays]
        return [LayerStatistic(array, np.full(len(array), np.nan)) for array in arrays]
    if statistics is None:
        raise StatisticsError(
            f"the statistic {statistic!r} is measured on images: give --stats, which onnxnorm calibrate makes, "
            f"or choose {' or '.join(sorted(WITHOUT_IMAGES))}"
        )
    entry = statistic_of(statistic)
    assert entry is not None
    return [
        LayerStatistic(*(np.full(layer.channels, np.nan),) * 2)
        if _is_missing(trace, layer, statistics)
        else _read(entry, _moments(layer, entry, statistics), per)
        for layer in layers
    ]


def _read(entry: MeasuredStatistic, moments: Moments, per: Per) -> LayerStatistic:
    """The statistic of the filters of one layer."""
    if per == "channel" or not moments.channels:
        return LayerStatistic(*entry.read(moments))
    return LayerStatistic(*(np.repeat(array, moments.channels) for array in entry.read(moments.pooled())))


def _mean_of_known(array: Floats) -> Floats:
    """The mean of the numbers that are not NaN, for every filter of a layer; NaN if there are none."""
    known = array[~np.isnan(array)]
    return np.full(len(array), known.mean() if known.size else np.nan)


def _is_missing(trace: Trace, layer: Layer, statistics: Statistics) -> bool:
    """Whether a layer was not measured, because that cannot be or, with all its filters pinned, need not be."""
    measured_at_all = any(value.name == layer.site.value for value in statistics.values)
    idle = bool(trace.groups.is_pinned(layer.slots).all()) or not has_rows_of_samples(trace.graph, layer.site)
    return not measured_at_all and idle


def _moments(layer: Layer, entry: MeasuredStatistic, statistics: Statistics) -> Moments:
    """The moments from which the statistic of a layer is computed."""
    average = entry.average or layer.site.measure
    moments = statistics.values.get(Value(layer.site.value, average))
    if entry.optional and not entry.known(moments):
        raise StatisticsError(
            f"the statistics hold no {entry.missing}; calibrate this model again, with --measure {entry.name}"
        )
    if moments is None:
        raise StatisticsError(
            f"the statistics lack value {layer.site.value!r} ({average}), which {layer.op} {layer.node!r} "
            "needs; calibrate this model again, with the same --filters"
        )
    if moments.channels != layer.channels:
        raise StatisticsError(
            f"the statistics of {layer.site.value!r} have {moments.channels} channels, {layer.op} {layer.node!r} has "
            f"{layer.channels}; calibrate this model again"
        )
    return moments
