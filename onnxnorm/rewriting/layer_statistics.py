"""Which statistic: a number per filter, measured on images, read from the weights, or implied by BatchNormalization.

============  =========================================================================================  ==========
`mean`        mean activation, as the paper normalizes it                                                images
`rms`         root of the mean square                                                                    images
`max`         largest magnitude seen: data-based threshold normalization for spiking networks            images
`p99.9`       magnitude that 99.9 % of the activations do not exceed: the same, robust against outliers  images
`weights`     imbalance between the weights that write a channel and those that read it                  nothing
`bn`          mean activation that the parameters of a BatchNormalization imply                          nothing
============  =========================================================================================  ==========

`max` is Diehl et al., Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing
(IJCNN 2015), and Rueckauer et al., Conversion of continuous-valued deep networks to efficient event-driven networks for
image classification (Frontiers in Neuroscience 11:682, 2017); `p99.9` is the latter's "robust" normalization.

A filter is dead if its statistic does not stand out from the rounding noise of its layer (`eps` times the largest
channel's). Where nothing is known of a filter, its statistic is NaN. Both keep scale 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.rewriting.batch_norm_means import implied_means
from onnxnorm.rewriting.equalization import imbalances
from onnxnorm.scaling import Layer, Trace
from onnxnorm.statistics import Moments, Statistics, Value

__all__ = ["STATISTICS", "WITHOUT_IMAGES", "LayerStatistic", "Statistic", "measure", "needs_images"]

Floats = NDArray[np.float64]
Statistic = Literal["mean", "rms", "max", "p99.9", "weights", "bn"]
STATISTICS: tuple[str, ...] = get_args(Statistic)
WITHOUT_IMAGES = frozenset({"weights", "bn"})

_NOISE = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)


_NOTHING = {
    "weights": "no channel that may be scaled lies between two layers with weights",
    "bn": "no BatchNormalization stands before a non-linearity",
}


@dataclass(frozen=True)
class LayerStatistic:
    """The statistic of one layer's filters; arrays have shape `(channels,)`. NaN where nothing is known."""

    statistic: Floats = field(repr=False)
    standard_error: Floats = field(repr=False)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Which filters have a statistic that is too small to divide by."""
        size = np.nan_to_num(np.abs(self.statistic))
        small = size <= max(_NOISE * size.max(initial=0.0), _TINY)
        return np.asarray(small & ~np.isnan(self.statistic))


def needs_images(statistic: str) -> bool:
    """Whether a statistic is measured. Raises OptionError if there is none of this name."""
    if statistic not in STATISTICS:
        raise OptionError(f"there is no statistic {statistic!r}; choose one of {', '.join(STATISTICS)}")
    return statistic not in WITHOUT_IMAGES


def measure(
    statistic: str, model: Model, trace: Trace, layers: Sequence[Layer], statistics: Statistics | None
) -> list[LayerStatistic]:
    """The statistic of every layer. Raises StatisticsError if it has to be measured and was not."""
    if not needs_images(statistic):
        arrays = imbalances(model, trace, layers) if statistic == "weights" else implied_means(trace, layers)
        if all(np.isnan(array).all() for array in arrays):
            raise StatisticsError(f"the statistic {statistic!r} is not known of any filter: {_NOTHING[statistic]}")
        return [LayerStatistic(array, np.full(len(array), np.nan)) for array in arrays]
    if statistics is None:
        raise StatisticsError(
            f"the statistic {statistic!r} is measured on images: give --stats, which onnxnorm calibrate makes, "
            f"or choose {' or '.join(sorted(WITHOUT_IMAGES))}"
        )
    return [_READ[statistic](layer, statistics) for layer in layers]


def _mean(layer: Layer, statistics: Statistics) -> LayerStatistic:
    found = _moments(layer, layer.site.measure, statistics)
    return LayerStatistic(found.mean, found.standard_error)


def _largest(layer: Layer, statistics: Statistics) -> LayerStatistic:
    found = _moments(layer, layer.site.measure, statistics)
    return LayerStatistic(found.largest, np.full(found.channels, np.nan))


def _root_mean_square(layer: Layer, statistics: Statistics) -> LayerStatistic:
    """`rms = sqrt(m)`, so by the delta method its standard error is that of m over `2 * rms`."""
    found = _moments(layer, "mean_square", statistics)
    rms = np.sqrt(np.maximum(found.mean, 0.0))
    error = np.divide(found.standard_error, 2 * rms, out=np.full(found.channels, np.nan), where=rms > 0)
    return LayerStatistic(rms, error)


def _percentile(layer: Layer, statistics: Statistics) -> LayerStatistic:
    found = _moments(layer, layer.site.measure, statistics)
    if found.histogram is None:
        raise StatisticsError("the statistics hold no percentiles; calibrate this model again, with --measure p99.9")
    return LayerStatistic(found.percentile("99.9"), np.full(found.channels, np.nan))


_READ: dict[str, Callable[[Layer, Statistics], LayerStatistic]] = {
    "mean": _mean,
    "rms": _root_mean_square,
    "max": _largest,
    "p99.9": _percentile,
}


def _moments(layer: Layer, measure_name: str, statistics: Statistics) -> Moments:
    found = statistics.values.get(Value(layer.site.value, measure_name))
    if found is None and measure_name == "mean_square":
        raise StatisticsError("the statistics hold no mean squares; calibrate this model again, with --measure rms")
    if found is None:
        raise StatisticsError(
            f"the statistics lack value {layer.site.value!r} ({measure_name}), which {layer.op} {layer.node!r} "
            "needs; calibrate this model again, with the same --filters"
        )
    if found.channels != layer.channels:
        raise StatisticsError(
            f"the statistics of {layer.site.value!r} have {found.channels} channels, {layer.op} {layer.node!r} has "
            f"{layer.channels}; calibrate this model again"
        )
    return found
