"""One comparison of two networks: both run on the same inputs, and the original also without graph optimizations."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.tensors import is_float, unit_in_last_place
from onnxnorm.runtime import Runtime
from onnxnorm.verification.compare import Comparison, compare, default_tolerance
from onnxnorm.verification.verdict import OutputVerdict
from onnxnorm.verification.widen import is_half

__all__ = ["Feeds", "Pair", "Scales", "SideBySide"]

Feeds = Mapping[str, NDArray[Any]]
Scales = Mapping[str, NDArray[np.float64]]
_TIMED = 6  # runs of both, the first of which does not count
Pair = tuple[Model | onnx.ModelProto, Model | onnx.ModelProto]


class SideBySide:
    """One comparison in one element type: the original, itself without optimizations, and the rewritten model."""

    def __init__(
        self,
        runtime: Runtime,
        dtype: np.dtype[Any],
        models: Pair,
        scales: Scales,
        rounding: float = 0.0,
    ) -> None:
        """`rounding` is how far outputs may differ because constants were rounded in a way that no record explains."""
        self.kind, self._dtype, self._scales, self._rounding = dtype.name, dtype, scales, rounding
        self._plain, self._other = (runtime.session(model) for model in models)
        self._unoptimized = runtime.session(models[0], optimize=False)
        _check_same_names("inputs", self._plain.inputs, self._other.inputs)
        _check_same_names("outputs", self._plain.outputs, self._other.outputs)
        self._pairs: dict[str, Comparison] = {}
        self._noises: dict[str, Comparison] = {}
        self._seconds: list[tuple[float, float]] = []

    def add(self, feed: Feeds) -> None:
        """Compare on a batch."""
        feed = self._as_computed(feed)
        expected, got = self._timed(feed)
        noisy = self._unoptimized.run(feed)
        for name, array in expected.items():
            restored = _restored(got[name], self._scales.get(name))
            _add(self._pairs, name, compare(array, restored))
            _add(self._noises, name, compare(array, noisy[name]))

    def time(self, feed: Feeds) -> None:
        """Run both once more where few batches were timed, so that there is a ratio."""
        while len(self._seconds) < _TIMED:
            self._timed(self._as_computed(feed))

    def _as_computed(self, feed: Feeds) -> Feeds:
        return {name: _widened(array) for name, array in feed.items()} if self._dtype == np.float32 else feed

    def _timed(self, feed: Feeds) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """The outputs of the original and of the rewritten model; how long both took is noted."""
        start = perf_counter()
        expected = self._plain.run(feed)
        between = perf_counter()
        got = self._other.run(feed)
        self._seconds.append((between - start, perf_counter() - between))
        return expected, got

    @property
    def time_ratio(self) -> float | None:
        """How long the rewritten model takes, compared with the original: the median over all batches but the first."""
        ratios = [other / plain for plain, other in self._seconds[1:] if plain > 0]
        return float(np.median(ratios)) if ratios else None

    def verdicts(self, tolerance: float | None) -> dict[str, OutputVerdict]:
        """The verdict on each output."""
        verdicts = {}
        for name, pair in self._pairs.items():
            noise = self._noises[name].max_relative_error
            verdicts[name] = _verdict(pair, noise, self._dtype, tolerance, self._rounding)
        return verdicts


def _verdict(
    pair: Comparison, noise: float, computed_in: np.dtype[Any], tolerance: float | None, rounding: float
) -> OutputVerdict:
    heard = noise if np.isfinite(noise) else 0.0  # no noise excuses every error
    # What is computed in a narrow type and returned in a wide one is no more precise for that.
    is_exact = not is_float(pair.dtype)
    dtype = pair.dtype if is_exact else max(pair.dtype, computed_in, key=unit_in_last_place)
    limit = max(default_tolerance(dtype, heard), 0.0 if is_exact else rounding) if tolerance is None else tolerance
    axis, channel, channel_error = pair.worst_channel
    return OutputVerdict(
        same=pair.within(limit, heard, unit_in_last_place(dtype)),
        max_relative_error=pair.max_relative_error,
        relative_rms_error=pair.relative_rms_error,
        bit_identical=pair.bit_identical,
        worst_axis=axis,
        worst_channel=channel,
        worst_channel_error=channel_error,
        noise=noise,
        tolerance=limit,
    )


def _check_same_names(what: str, original: tuple[str, ...], rewritten: tuple[str, ...]) -> None:
    if original != rewritten:
        raise ModelError(
            f"the {what} of the two models have other names: {', '.join(original)} in the original, "
            f"{', '.join(rewritten)} in the other; give a model and its own rewritten version"
        )


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if is_half(array.dtype) else array


def _restored(array: NDArray[Any], scale: NDArray[np.float64] | None) -> NDArray[Any]:
    """An output with its scales taken out again, in its own dtype."""
    if scale is None:
        return array
    try:
        return (array.astype(np.float64) / scale).astype(array.dtype)
    except ValueError:
        raise ModelError(
            f"the recorded scales of an output have shape {scale.shape}, the output {array.shape}; rewrite again"
        ) from None


def _add(comparisons: dict[str, Comparison], name: str, more: Comparison) -> None:
    comparisons[name] = comparisons[name] + more if name in comparisons else more
