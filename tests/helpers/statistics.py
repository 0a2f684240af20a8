"""Statistics made up from random moments, and files of them that were tampered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save_file

from onnxnorm.statistics import Moments, Statistics, Value

Floats = NDArray[np.float64]
CHANNELS = 5


def observed(images: int, seed: int = 0, equal: bool = False) -> tuple[Floats, Floats, Floats]:
    """Per-image means and maxima, and positions as weights."""
    rng = np.random.default_rng(seed)
    means = rng.exponential(size=(images, CHANNELS)) * np.logspace(-3, 3, CHANNELS)
    weights = np.full(images, 49.0) if equal else rng.integers(1, 5000, images).astype(np.float64)
    return means, means + rng.exponential(size=means.shape), weights


def moments_of(images: int = 40, seed: int = 0, equal: bool = False) -> Moments:
    return Moments.of(*observed(images, seed, equal))


def statistics(seed: int = 0, source: str = "a", **changes: Any) -> Statistics:
    values = {Value("relu", "mean"): moments_of(40, seed), Value("sum", "mean_abs"): moments_of(40, seed + 1)}
    made = Statistics(
        model="ab" * 32,
        version="1",
        filters="conv",
        shapes={"x": (1, 3, 8, 8)},
        inputs={
            "data": "40 image(s)",
            "sources": [{"files": 40, "bytes": 1, "digest": f"sha256:{source}"}],
            "preprocessing": {"preset": "unit"},
        },
        skipped=(("bad.jpg", "it is not an image"),),
        values=values,
    )
    return replace(made, **changes)


def rewritten(
    change: Callable[[dict[str, Any], dict[str, Any]], None], of: Statistics | None = None
) -> Callable[[Path], None]:
    """A file whose header and arrays were changed."""

    def write(path: Path) -> None:
        content = (of or statistics()).to_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["onnxnorm"])
        arrays = load(content)
        change(header, arrays)
        save_file(arrays, path, {"onnxnorm": json.dumps(header)})

    return write
