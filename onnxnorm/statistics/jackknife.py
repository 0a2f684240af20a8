"""How sure a forecast is: what it would have been without this or that part of the run.

A forecast is about a quantile over filters that err together, so nothing that takes them for independent says how sure
it is. The run itself does. It is cut into blocks of consecutive images; the forecast is made again without each of
them; and from how much these differ follows the standard error of its logarithm (the delete-a-group jackknife, for
groups of different size: Busing, Meijer, van der Leeden, Statistics and Computing 9, 1999). Images whose order matters,
a folder a subject, make blocks differ more, and forecasts less sure, as they are.

Blocks are differences of sums, so what is kept is what the sums were at some moments of the run: `BLOCKS` to twice as
many, every other one of which is forgotten when there are more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxnorm.statistics.measures import MEANS
from onnxnorm.statistics.moments import Totals
from onnxnorm.statistics.precision import SHARES, RelativeErrors, image_count

__all__ = ["BLOCKS", "Jackknife"]

BLOCKS = 10
_LEAST = 5  # blocks that tell something
_STEP = 8


@dataclass
class Jackknife:
    """The sums of a run at some moments, at least `step` images apart."""

    step: int = _STEP
    points: list[tuple[int, Totals]] = field(default_factory=list)

    def watch(self, totals: Totals) -> None:
        """Take note of the sums by now, if it is time."""
        images = image_count(totals)
        if images - (self.points[-1][0] if self.points else 0) < self.step:
            return
        self.points.append((images, _sums(totals)))
        if len(self.points) > 2 * BLOCKS:
            self.points, self.step = self.points[1::2], 2 * self.step

    def log_standard_errors(self, totals: Totals) -> dict[float, float]:
        """By share: the standard error of the logarithm of a forecast from these sums; none from too few blocks."""
        images = image_count(totals)
        edges = [point for point in self.points if point[0] < images]
        if len(edges) + 1 < _LEAST:
            return {}
        sizes, without = [], []
        for (start, before), (stop, after) in zip([(0, {}), *edges], [*edges, (images, _sums(totals))], strict=True):
            sizes.append(stop - start)
            without.append(_variations(_without(totals, before, after)))
        found = _jackknife(_variations(totals), np.array(without), images / np.array(sizes, np.float64))
        return {share: float(error) for share, error in zip(SHARES, found, strict=True) if np.isfinite(error)}


def _sums(totals: Totals) -> Totals:
    """What errors rest on, without the histograms, each of which is larger than all the rest."""
    return {value: replace(moments, histogram=None) for value, moments in totals.items() if value.measure in MEANS}


def _without(totals: Totals, before: Totals, after: Totals) -> Totals:
    """The sums without the images that came between two moments."""
    return {value: totals[value].without(before.get(value), moments) for value, moments in after.items()}


def _variations(totals: Totals) -> NDArray[np.float64]:
    """By share: the logarithm of the images that an error of 1 takes, which is all that a forecast rests on."""
    errors = RelativeErrors.of(totals)
    if not errors.relative.size:
        return np.full(len(SHARES), np.nan)
    with np.errstate(divide="ignore"):
        return np.log(errors.images * np.quantile(errors.relative, SHARES) ** 2)


def _jackknife(whole: NDArray[np.float64], without: NDArray[np.float64], h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard errors `(k,)` of estimates `(k,)`, from those without each block `(blocks, k)`; h = n / block size."""
    blocks, h = len(h), h[:, np.newaxis]
    with np.errstate(invalid="ignore"):
        pseudo = h * whole - (h - 1) * without
        joint = blocks * whole - ((1 - 1 / h) * without).sum(axis=0)
        return np.asarray(np.sqrt(((pseudo - joint) ** 2 / (h - 1)).mean(axis=0)))
