"""Mean activations that the parameters of BatchNormalizations imply, without a single image.

The output of a BatchNormalization has, per channel, mean B and standard deviation |scale| over the training set. If it
is assumed to be normally distributed, the mean after a non-linearity follows. For X ~ N(m, s^2), a = (l - m) / s and
b = (h - m) / s::

    E[clip(X, l, h)]   = l P(a) + h (1 - P(b)) + m (P(b) - P(a)) + s (p(a) - p(b))
    E[clip(X, l, h)^2] = l^2 P(a) + h^2 (1 - P(b)) + (m^2 + s^2) (P(b) - P(a)) + s ((m + l) p(a) - (m + h) p(b))

with P and p the distribution function and the density of the standard normal distribution. Relu is the case l = 0,
h = infinity: `m P(m/s) + s p(m/s)`. An Add of branches adds means and variances, as if the branches were independent.
Where no BatchNormalization comes before a filter's non-linearity, nothing is implied: NaN.

Source: Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization Through Weight Equalization and Bias Correction
(ICCV 2019), appendix C, which uses the same model of a clipped normal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.graph import Graph, Node
from onnxnorm.scaling import Layer, Trace

__all__ = ["clipped", "implied_means"]

Floats = NDArray[np.float64]
Normal = tuple[Floats, Floats]  # mean and variance, each of shape (channels,)

_PASSED = {"Identity", "Dropout", "Cast"}


def implied_means(trace: Trace, layers: Sequence[Layer]) -> list[Floats]:
    """The mean activation that BatchNormalizations imply for the filters of every layer.

    Returns:
        Per layer, what its site measures (mean or mean absolute value), shape `(channels,)`; NaN where nothing is
        implied.
    """
    implied = _Implied(trace.graph)
    means = []
    for layer in layers:
        normal = implied.of(layer.site.value) if layer.site.axis == 1 else None
        if normal is None or len(normal[0]) != layer.channels:
            means.append(np.full(layer.channels, np.nan))
        elif layer.site.measure == "mean_abs":
            upper, lower = clipped(*normal, 0.0, np.inf)[0], clipped(*normal, -np.inf, 0.0)[0]
            means.append(upper - lower)
        else:
            means.append(normal[0])
    return means


def clipped(mean: Floats, variance: Floats, low: float, high: float) -> Normal:
    """Mean and variance of normal variables clipped to `[low, high]`; arrays have shape `(channels,)`."""
    from scipy.special import ndtr  # loaded only where there are no photographs

    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.sqrt(variance)
        a, b = (np.where(s > 0, (bound - mean) / s, np.sign(bound - mean) * np.inf) for bound in (low, high))
    a, b = np.where(np.isnan(a), -np.inf, a), np.where(np.isnan(b), -np.inf, b)  # mean at a bound, variance 0
    below, above, within = ndtr(a), ndtr(-b), ndtr(b) - ndtr(a)
    l, h = (0.0 if np.isinf(bound) else bound for bound in (low, high))  # noqa: E741 - as in the formula
    first = l * below + h * above + mean * within + s * (_density(a) - _density(b))
    second = l * l * below + h * h * above + (mean**2 + variance) * within
    second += s * ((mean + l) * _density(a) - (mean + h) * _density(b))
    return first, np.maximum(second - first**2, 0.0)


def _density(x: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), np.float64)


class _Implied:
    """The mean and variance that are implied for every value, looked up by name."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[str, Normal | None] = {}
        for node in graph.nodes:  # in order, so that the inputs of a node are known already
            if node.outputs:
                self.known[node.outputs[0]] = self._behind(node)

    def of(self, value: str) -> Normal | None:
        return self.known.get(value)

    def _behind(self, node: Node) -> Normal | None:
        if node.op == "BatchNormalization":
            return self._normalized(node)
        if node.op in {"Add", "Sum"}:
            return self._added(node)
        before = self.known.get(node.inputs[0]) if node.inputs else None
        if before is None:
            return None
        if node.op in _PASSED:
            return before
        if node.op == "Relu":
            return clipped(*before, 0.0, np.inf)
        if node.op == "LeakyRelu":
            return _leaky(before, node.attribute("alpha", 0.01))
        if node.op == "Clip":
            return self._clip(node, before)
        return None

    def _normalized(self, node: Node) -> Normal | None:
        constants = [self.graph.constants.get(name) for name in node.inputs[1:3]]
        if any(constant is None for constant in constants):
            return None
        scale, shift = (c.values().astype(np.float64).reshape(-1) for c in constants if c is not None)
        return shift, scale**2

    def _added(self, node: Node) -> Normal | None:
        parts = [self.known.get(name) for name in node.inputs]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or len({len(mean) for mean, _ in known}) != 1:
            return None
        if len(set(node.inputs)) < len(node.inputs):
            return None  # x + x is not a sum of independent values
        return sum(mean for mean, _ in known), sum(variance for _, variance in known)  # type: ignore[return-value]

    def _clip(self, node: Node, before: Normal) -> Normal | None:
        bounds = [node.attribute("min", -np.inf), node.attribute("max", np.inf)]
        for position, name in enumerate(node.inputs[1:3]):
            constant = self.graph.constants.get(name) if name else None
            if name and (constant is None or constant.size != 1):
                return None
            if constant is not None:
                bounds[position] = float(constant.values().reshape(-1)[0])
        return clipped(*before, *bounds)


def _leaky(before: Normal, alpha: float) -> Normal:
    """Moments of `X+ - alpha * (-X)+`. One of the two parts is always 0, so their mean squares add up."""
    up, down = clipped(*before, 0.0, np.inf), clipped(-before[0], before[1], 0.0, np.inf)
    mean = up[0] - alpha * down[0]
    second = up[1] + up[0] ** 2 + alpha**2 * (down[1] + down[0] ** 2)
    return mean, np.maximum(second - mean**2, 0.0)
