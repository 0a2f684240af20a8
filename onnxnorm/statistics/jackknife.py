"""The standard error of a forecast, estimated from forecasts without one part of the run each.

A forecast is based on a quantile over filters whose errors are correlated, so a method that assumes independent filters
cannot tell how uncertain it is. The run itself can: it is cut into blocks of consecutive images, and the forecast is
repeated without each block. The spread of these forecasts gives the standard error of the logarithm of the forecast.
If the order of the images matters, for example with one folder for each subject, blocks differ more and the standard
error is larger, as it should be.

A block is the difference of two cumulative sums, so the sums are recorded at some points of the run: `BLOCKS` to twice
as many. When there would be more, every other point is dropped.

Source: the delete-a-group jackknife for groups of unequal size; Busing, Meijer, van der Leeden, Statistics and
Computing 9, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.statistics.measures import MEANS
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.precision import SHARES, RelativeErrors
from onnxnorm.statistics.together import image_count, sums_of, without

__all__ = ["BLOCKS", "Jackknife"]

BLOCKS = 10
_LEAST = 5  # fewer blocks give no usable estimate
_STEP = 8


@dataclass
class Jackknife:
    """The sums of a run, recorded at points that are at least `step` images apart."""

    step: int = _STEP
    points: list[tuple[int, Totals]] = field(default_factory=list)

    def watch(self, totals: Totals) -> None:
        """Record the current sums if at least `step` images were measured since the last point."""
        images = image_count(totals)
        if images - (self.points[-1][0] if self.points else 0) < self.step:
            return
        self.points.append((images, sums_of(totals, MEANS)))
        if len(self.points) > 2 * BLOCKS:
            self.points, self.step = self.points[1::2], 2 * self.step

    def log_standard_errors(self, totals: Totals) -> dict[float, float]:
        """Return the standard error of the logarithm of a forecast from these sums, by share of filters.

        The result is empty if there are too few blocks.
        """
        images = image_count(totals)
        edges = [point for point in self.points if point[0] < images]
        if len(edges) + 1 < _LEAST:
            return {}
        whole, sizes, left = sums_of(totals, MEANS), [], []
        for (start, before), (stop, after) in zip([(0, {}), *edges], [*edges, (images, whole)], strict=True):
            sizes.append(stop - start)
            left.append(_variations(without(whole, before, after)))
        errors = _jackknife(_variations(whole), np.array(left), images / np.array(sizes, np.float64))
        return {share: float(error) for share, error in zip(SHARES, errors, strict=True) if np.isfinite(error)}


def _variations(totals: Totals) -> NDArray[np.float64]:
    """Return the logarithm of the number of images for an error of 1, shape `(shares,)`; forecasts are proportional."""
    errors = RelativeErrors.of(totals)
    if not errors.relative.size:
        return np.full(len(SHARES), np.nan)
    with np.errstate(divide="ignore"):
        return np.log(errors.images * np.quantile(errors.relative, SHARES) ** 2)


def _jackknife(whole: NDArray[np.float64], left: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standard errors `(k,)` of the estimates `whole` `(k,)`.

    Args:
        whole: the estimates from all images.
        left: the estimates without each block, shape `(blocks, k)`.
        h: number of all images over the images in each block, shape `(blocks,)`.
    """
    blocks, h = len(h), h[:, np.newaxis]
    with np.errstate(invalid="ignore"):
        pseudo = h * whole - (h - 1) * left
        joint = blocks * whole - ((1 - 1 / h) * left).sum(axis=0)
        return np.asarray(np.sqrt(((pseudo - joint) ** 2 / (h - 1)).mean(axis=0)))
