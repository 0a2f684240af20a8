"""The probe of a model, and what its outputs say: the moments of the samples that were run through it.

Percentiles need all activations. If they are asked for, the measured values themselves are outputs too, in float32, and
are counted into histograms here, one value after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.calibration.averages import Averages, Spreads, averages_of
from onnxnorm.calibration.extremes import PeakTap, layout_of, peak_moments
from onnxnorm.calibration.joint import Joint, Outputs
from onnxnorm.calibration.taps import Tap
from onnxnorm.errors import DataError
from onnxnorm.scaling.filters import Site
from onnxnorm.statistics import Moments, Value, Weighting
from onnxnorm.statistics.histograms import Histogram
from onnxnorm.statistics.measures import MEANS, PEAK
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.together import Block, Layout, Together

__all__ = ["Probe"]


@dataclass(frozen=True)
class Probe:
    """The model that measures; its external data is in `folder`."""

    proto: onnx.ModelProto = field(repr=False)
    folder: Path | None
    taps: tuple[Tap, ...]
    peaks: tuple[PeakTap, ...] = ()
    joint: Joint = field(default_factory=Joint)

    @cached_property
    def joins(self) -> bool:
        """Whether the outputs of several runs can be put together: each has rows of samples, and none is large."""
        return all(peak.by_sample for peak in self.peaks) and not any(tap.shape or tap.raw for tap in self.taps)

    def spreads(self, shapes: Mapping[str, tuple[int, ...]], batch: int) -> Spreads:
        """Return the positions of each tap for values of these shapes."""
        each = [None if tap.shape else tap.spread(_measured_shape(tap, shapes), batch) for tap in self.taps]
        return Spreads.of(self.taps, each, self.joint)

    def moments(
        self,
        results: Mapping[str, NDArray[Any]],
        names: Sequence[str],
        batch: int,
        spreads: Spreads,
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
        count, outputs, blocks = len(names), Outputs(results, self.joint), list[Block]()
        if self.peaks:
            blocks.append(Block(self._layout, peak_moments(self.peaks, outputs, count, batch)))
        found = averages_of(self.taps, outputs, spreads, count, batch)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is an error below
            sums, squares = found.means.sum(axis=0), np.einsum("nc,nc->c", found.means, found.means)
        if not np.isfinite(sums).all():
            raise self._not_finite(found, names)
        end = 0
        for group in found.groups:
            here = slice(end, end := end + group.width)
            images = count if group.rows else 0
            weight = float(group.spread.positions if weighting == "position" else 1) if images else 0.0
            totals = (weight * sums[here], weight**2 * sums[here], weight**2 * squares[here])
            values = (self._values[place] for place in group.places)
            moments = Moments(images, images * weight, images * weight**2, *totals, group.largest)
            blocks.append(Block(tuple(zip(values, group.widths, strict=True)), moments))
        together = Together({}, tuple(blocks), self._order, self._largest)
        return self._counted(together, results, count, batch) if any(tap.raw for tap in self.taps) else together

    def _counted(self, totals: Totals, results: Mapping[str, NDArray[Any]], count: int, batch: int) -> Totals:
        """The moments, with histograms of the values that leave the runtime."""
        counted = dict(totals)
        for tap, value in zip(self.taps, self._values, strict=True):
            if tap.raw:
                counted[value] = replace(totals[value], histogram=_histogram(results[tap.raw], tap.site, count, batch))
        return counted

    @cached_property
    def _values(self) -> tuple[Value, ...]:
        return tuple(Value(tap.site.value, tap.site.measure) for tap in self.taps)

    @cached_property
    def _order(self) -> tuple[Value, ...]:
        return (*self._values, *(value for value, _ in self._layout))

    @cached_property
    def _layout(self) -> Layout:
        return layout_of(self.peaks)

    @cached_property
    def _largest(self) -> dict[Value, Value]:
        """The averaged values whose peaks are measured as well."""
        peaks = {tap.value: Value(tap.value, PEAK) for tap in self.peaks}
        return {value: peaks[value.name] for value in self._values if value.measure in MEANS and value.name in peaks}

    def _not_finite(self, found: Averages, names: Sequence[str]) -> DataError:
        """Return the error that names the first sample with an activation that is not finite, and its first value.

        Only their sum may be not finite: that of numbers near the end of float64.
        """
        wrong = np.empty((len(self.taps), len(names)), np.bool_)
        for place, means in found.each():
            wrong[place] = ~np.isfinite(means).all(axis=1)
        if not wrong.any():
            return DataError("activations are so large that their sum is beyond float64; scale the inputs down")
        sample, place = (int(indices[0]) for indices in np.nonzero(wrong.T))
        return DataError(
            f"{names[sample]} makes activation {self.taps[place].site.value!r} infinite or not a number; check this "
            "input and its preprocessing, or leave it out"
        )


def _measured_shape(tap: Tap, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of what a tap measures, the batch first."""
    shape = shapes[tap.site.value]
    return tuple(shape[axis] for axis in tap.order) if tap.order else shape


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
