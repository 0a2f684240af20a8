"""Run the original and the rewritten network on the same inputs, and judge the difference.

The tolerance follows from the output's dtype and from the network's own noise floor: the original against itself with
graph optimizations on and off. Some networks amplify rounding to per cents; there the verdict can be no sharper, and
says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import DataError, ModelError, OptionError
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime
from onnxnorm.verification.compare import Comparison, compare, default_tolerance
from onnxnorm.verification.fp16 import Fp16
from onnxnorm.verification.graphs import same_graph

__all__ = ["OutputVerdict", "Verification", "verify_models"]

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class OutputVerdict:
    """The verdict on one graph output: errors over all samples, the runtime's own noise, and the tolerance used."""

    same: bool
    max_relative_error: float
    relative_rms_error: float
    bit_identical: bool
    worst_axis: int
    worst_channel: int
    worst_channel_error: float
    noise: float
    tolerance: float


@dataclass(frozen=True)
class Verification:
    """The verdict on a rewritten model; the errors are those of its worst output.

    `fp16` is the headroom in float16, where that was asked for.
    """

    same: bool
    max_relative_error: float
    relative_rms_error: float
    bit_identical: bool
    outputs: dict[str, OutputVerdict]
    samples: int
    graph_identical: bool
    fp16: Fp16 | None = field(default=None, repr=False)

    @property
    def noise(self) -> float:
        """The runtime's own noise: the original against itself with graph optimizations on and off."""
        return max(verdict.noise for verdict in self.outputs.values())

    def __str__(self) -> str:
        name, worst = max(self.outputs.items(), key=lambda item: (not item[1].same, item[1].max_relative_error))
        if self.bit_identical:
            return f"the same function: outputs are bit-identical on {self.samples} samples"
        errors = f"{worst.max_relative_error:.1e} of the largest magnitude (tolerance {worst.tolerance:.1e}, "
        errors += f"the runtime's own noise {worst.noise:.1e})"
        if self.same:
            return f"the same function: outputs differ by at most {errors} on {self.samples} samples"
        channel = (
            f"; channel {worst.worst_channel} (of axis {worst.worst_axis}) is off by " if worst.worst_axis > 0 else ""
        )
        channel += f"{worst.worst_channel_error:.1e} of its own magnitude" if channel else ""
        return f"not the same function: output {name!r} differs by {errors}{channel}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `verify --json` prints it."""
        return {
            "same": self.same,
            "max_relative_error": self.max_relative_error,
            "relative_rms_error": self.relative_rms_error,
            "bit_identical": self.bit_identical,
            "outputs": {name: vars(verdict) for name, verdict in self.outputs.items()},
            "samples": self.samples,
            "graph_identical": self.graph_identical,
            **({"fp16": self.fp16.to_json()} if self.fp16 else {}),
        }


def verify_models(
    original: Model,
    rewritten: Model,
    feeds: Iterable[Feeds],
    *,
    scales: Mapping[str, NDArray[np.float64]] | None = None,
    tolerance: float | None = None,
    runtime: Runtime | None = None,
) -> Verification:
    """Compare the two on all feeds. `scales` are those of graph outputs that were not kept.

    Raises DataError without feeds, ModelError if a model does not run or has other inputs or outputs than the other.
    """
    if tolerance is not None and not tolerance >= 0:
        raise OptionError(f"the tolerance must not be negative, as {tolerance:g} is")
    runtime = runtime or Runtime()
    plain, other = runtime.session(original), runtime.session(rewritten)
    unoptimized = runtime.session(original, optimize=False)
    _check_same_names("inputs", plain.inputs, other.inputs)
    _check_same_names("outputs", plain.outputs, other.outputs)
    pairs: dict[str, Comparison] = {}
    noises: dict[str, Comparison] = {}
    samples = 0
    for feed in feeds:
        samples += _batch(feed)
        expected, got, noisy = plain.run(feed), other.run(feed), unoptimized.run(feed)
        for name, array in expected.items():
            restored = _restored(got[name], (scales or {}).get(name))
            _add(pairs, name, compare(array, restored))
            _add(noises, name, compare(array, noisy[name]))
    if not samples:
        raise DataError("there is nothing to verify on: the data holds no samples")
    verdicts = {name: _verdict(pairs[name], noises[name].max_relative_error, tolerance) for name in pairs}
    return Verification(
        same=all(verdict.same for verdict in verdicts.values()),
        max_relative_error=max(verdict.max_relative_error for verdict in verdicts.values()),
        relative_rms_error=max(verdict.relative_rms_error for verdict in verdicts.values()),
        bit_identical=all(verdict.bit_identical for verdict in verdicts.values()),
        outputs=verdicts,
        samples=samples,
        graph_identical=same_graph(original, rewritten),
    )


def _check_same_names(what: str, original: tuple[str, ...], rewritten: tuple[str, ...]) -> None:
    if original != rewritten:
        raise ModelError(
            f"the {what} of the two models have other names: {', '.join(original)} in the original, "
            f"{', '.join(rewritten)} in the other; give a model and its own rewritten version"
        )


def _batch(feed: Feeds) -> int:
    return max((len(array) for array in feed.values() if array.ndim), default=1)


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


def _add(found: dict[str, Comparison], name: str, more: Comparison) -> None:
    found[name] = found[name] + more if name in found else more


def _verdict(pair: Comparison, noise: float, tolerance: float | None) -> OutputVerdict:
    heard = noise if np.isfinite(noise) else 0.0  # no noise excuses every error
    limit = max(default_tolerance(pair.dtype), 3 * heard) if tolerance is None else tolerance
    axis, channel, channel_error = pair.worst_channel
    return OutputVerdict(
        same=pair.within(limit, heard),
        max_relative_error=pair.max_relative_error,
        relative_rms_error=pair.relative_rms_error,
        bit_identical=pair.bit_identical,
        worst_axis=axis,
        worst_channel=channel,
        worst_channel_error=channel_error,
        noise=noise,
        tolerance=limit,
    )
