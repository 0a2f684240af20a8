"""Inputs to verify on when there are no photographs: seeded random ones, some of them like the calibration data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import MemoryShortageError, ModelError
from onnxnorm.model.inputs import InputSpec

__all__ = ["random_feeds"]

Feeds = dict[str, NDArray[Any]]


def random_feeds(
    specs: Sequence[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    ranges: Mapping[str, Mapping[str, float]] | None = None,
    *,
    samples: int = 8,
    seed: int = 0,
) -> list[Feeds]:
    """Feeds for at least `samples` samples of these shapes (one sample each, or the model's fixed batch).

    Every second one follows `ranges` where given (mean, std, low, high of the calibration data per input): coarse
    patches of that mean and spread. The others are standard normal noise. Inputs of one value for all samples have it.
    """
    generator = np.random.default_rng(seed)
    feeds: list[Feeds] = []
    done = 0
    unknown = [spec.name for spec in specs if len(shapes.get(spec.name, ())) != len(spec.shape)]
    if unknown:
        raise ModelError(f"the shape of input {unknown[0]!r} is not known; calibrate this model again")
    usable = {spec.name: _usable((ranges or {}).get(spec.name), spec) for spec in specs}
    while done < samples:
        like = usable if len(feeds) % 2 == 0 else {}
        feeds.append({spec.name: _feed(generator, spec, shapes[spec.name], like.get(spec.name)) for spec in specs})
        counts = [shapes[s.name][s.batch] for s in specs if s.batch is not None and s.value is None]
        done += max(counts, default=1) if specs else samples
    return feeds


def _usable(like: Mapping[str, float] | None, spec: InputSpec) -> Mapping[str, float] | None:
    """The range, or None if random numbers cannot follow it: it is infinite, or beyond the input's integers."""
    if like is None or not all(math.isfinite(number) for number in like.values()) or like["low"] > like["high"]:
        return None
    if spec.dtype.kind in "iu":
        limits: Any = np.iinfo(str(spec.dtype))
        return like if limits.min <= like["low"] and like["high"] <= limits.max else None
    return like


def _feed(
    generator: np.random.Generator, spec: InputSpec, shape: tuple[int, ...], like: Mapping[str, float] | None
) -> NDArray[Any]:
    if spec.value is not None:
        return np.array(np.broadcast_to(spec.value, shape))
    try:
        return np.asarray(_random(generator, spec, shape, like)).astype(spec.dtype, copy=False)
    except (MemoryError, ValueError) as error:  # NumPy's, for a size beyond what can be addressed
        message = f"there is not enough memory for an input {spec.name!r} of shape {shape}; use a larger machine"
        raise MemoryShortageError(message) from error


def _random(
    generator: np.random.Generator, spec: InputSpec, shape: tuple[int, ...], like: Mapping[str, float] | None
) -> NDArray[Any]:
    if spec.dtype.kind == "b":
        return generator.random(shape) < 0.5
    if spec.dtype.kind in "iu":
        low, high = (int(like["low"]), int(like["high"])) if like else (0, 255 if spec.dtype == np.uint8 else 1)
        return generator.integers(low, high, shape, endpoint=True).astype(spec.dtype)
    if like is None:
        return generator.standard_normal(shape).astype(spec.dtype)
    patches = generator.standard_normal(tuple(-(-size // 8) if axis else size for axis, size in enumerate(shape)))
    for axis, size in enumerate(shape):
        if axis:
            patches = patches.repeat(8, axis=axis).take(range(size), axis=axis)
    return np.clip(like["mean"] + like["std"] * patches, like["low"], like["high"]).astype(spec.dtype)
