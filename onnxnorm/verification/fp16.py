"""FP16 headroom: how near a network's values and constants come to the ends of float16, original beside rewritten.

float16 holds magnitudes up to 65504. Normal numbers, with 11 significant bits, end at 2^-14 = 6.1e-5; below that one
bit is lost with every halving, and at 2^-25 nothing is left. So what is counted is

* activations: the largest magnitude of every value on the inputs given, and whether it is beyond 65504 (it overflows)
  or below 6.1e-5 (all of it is subnormal);
* constants: the largest and the smallest nonzero magnitude of each, and how many of its elements are beyond 65504,
  subnormal, or lost;
* nodes: how many a mixed-precision converter leaves in float32, because they meet more than 512 (`fp16_nodes`);
* outputs: the error of the network rounded to float16 (`half.rounding`) against itself in float32.

Activations are measured on the inputs given, or read from what a calibration stored (`rewriting.ranges`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.constants import stored_constants
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.tensors import is_float
from onnxnorm.rewriting.ranges import StoredRanges, stored_ranges
from onnxnorm.statistics import Statistics
from onnxnorm.verification.fp16_nodes import DATA_MAX, NodeCounts, count_nodes

__all__ = [
    "LARGEST",
    "SMALLEST_NORMAL",
    "ConstantRange",
    "Fp16",
    "HalfError",
    "ModelRange",
    "Side",
    "ranges_json",
]

LARGEST = float(np.finfo(np.float16).max)
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
_LOST = 2.0**-25  # half of the smallest float16: rounds to zero

_BLOCK = 1 << 20  # elements of a constant looked at in one go

Side = Literal["original", "rewritten"]


@dataclass(frozen=True)
class ConstantRange:
    """Magnitudes of a constant: the extremes, and how many of its `elements` are where."""

    largest: float
    smallest: float
    elements: int
    overflowing: int
    subnormal: int
    lost: int
    above_512: int = 0

    @classmethod
    def of(cls, values: NDArray[Any]) -> ConstantRange:
        """Look at the values, block by block; `smallest` is that of nonzero elements, 0 without any."""
        flat = values.reshape(-1)
        largest, smallest, counts = 0.0, np.inf, np.zeros(4, np.int64)
        for start in range(0, flat.size, _BLOCK):
            block = np.abs(flat[start : start + _BLOCK].astype(np.float64))
            block = block[block > 0]
            largest = max(largest, float(block.max(initial=0.0)))
            smallest = min(smallest, float(block.min(initial=np.inf)))
            parts = (block > LARGEST, block < SMALLEST_NORMAL, block <= _LOST, block > DATA_MAX)
            counts += [part.sum() for part in parts]
        return cls(largest, smallest if np.isfinite(smallest) else 0.0, flat.size, *counts.tolist())

    @property
    def subnormal_share(self) -> float:
        """Share of the elements that lose bits."""
        return self.subnormal / self.elements if self.elements else 0.0


@dataclass(frozen=True)
class HalfError:
    """The error of one output in float16 against float32; `not_finite` is the share of its elements."""

    max_relative_error: float
    relative_rms_error: float
    not_finite: float


@dataclass(frozen=True)
class ModelRange:
    """One model: the largest magnitude of every value, its constants, and its outputs in float16.

    `not_run` says why there are no outputs, `nodes` which nodes a converter leaves in float32. Values in `at_most` are
    only known to be at most that large.
    """

    values: dict[str, float] = field(repr=False)
    constants: dict[str, ConstantRange] = field(repr=False)
    outputs: dict[str, HalfError]
    not_run: str | None
    nodes: NodeCounts = field(default_factory=NodeCounts)
    at_most: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, model: Model, graph: Graph | None, values: dict[str, float], at_most: frozenset[str] = frozenset()
    ) -> ModelRange:
        """What is known without running the network in float16: its values, constants and nodes."""
        constants = {
            name: ConstantRange.of(constant.values())
            for name, constant in stored_constants(model).items()
            if is_float(constant.dtype)
        }
        weights = {name: constant.largest for name, constant in constants.items()}
        nodes = count_nodes(graph, values, weights) if graph else NodeCounts()
        return cls(values, constants, {}, None, nodes, at_most)

    @classmethod
    def stored(cls, model: Model, ranges: StoredRanges) -> ModelRange:
        """What follows for a model from the ranges that a calibration stored."""
        return cls.of(model, ranges.graph, ranges.values, ranges.at_most)

    @property
    def largest(self) -> float:
        """The largest activation."""
        return max(self.values.values(), default=0.0)

    @property
    def overflowing(self) -> tuple[str, ...]:
        """Values beyond 65504, the largest first."""
        return tuple(sorted((v for v, x in self.values.items() if x > LARGEST), key=lambda v: -self.values[v]))

    @property
    def above_512(self) -> tuple[str, ...]:
        """Values beyond 512, the largest first."""
        return tuple(sorted((v for v, x in self.values.items() if x > DATA_MAX), key=lambda v: -self.values[v]))

    @property
    def subnormal(self) -> tuple[str, ...]:
        """Values that are subnormal in all their elements, though not all zero."""
        return tuple(name for name, largest in self.values.items() if 0 < largest < SMALLEST_NORMAL)

    def count(self, what: str) -> int:
        """The sum of a count over all constants."""
        return sum(int(getattr(constant, what)) for constant in self.constants.values())

    @property
    def subnormal_share(self) -> float:
        """Share of all constants' elements that lose bits."""
        return self.count("subnormal") / max(1, self.count("elements"))

    @property
    def error(self) -> HalfError | None:
        """The worst output."""
        return max(self.outputs.values(), key=lambda e: (e.not_finite, e.relative_rms_error), default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "largest_activation": self.largest,
            "values": len(self.values),
            "at_most": sorted(self.at_most),
            "overflowing_values": list(self.overflowing),
            "values_above_512": list(self.above_512),
            "subnormal_values": list(self.subnormal),
            "constants": len(self.constants),
            "elements": self.count("elements"),
            "overflowing_elements": self.count("overflowing"),
            "elements_above_512": self.count("above_512"),
            "subnormal_elements": self.count("subnormal"),
            "lost_elements": self.count("lost"),
            "subnormal_share": self.subnormal_share,
            "outputs": {name: vars(error) for name, error in self.outputs.items()},
            "not_run": self.not_run,
            "nodes": self.nodes.nodes,
            "nodes_kept": list(self.nodes.kept),
            "multiplications": self.nodes.multiplications,
            "multiplications_in_float16": self.nodes.share_in_half,
        }


@dataclass(frozen=True)
class Fp16:
    """Original beside rewritten.

    Attributes:
        original: the model before the rewrite.
        rewritten: the model after it.
        images: number of images of the calibration that stored the largest magnitudes; None if they were measured here.
    """

    original: ModelRange
    rewritten: ModelRange
    images: int | None = None

    @classmethod
    def stored(cls, original: Model, rewritten: Model, statistics: Statistics) -> Fp16:
        """What follows for both models from the ranges that a calibration of the original stored; runs neither.

        Raises:
            StatisticsError: if the ranges were not measured, or on another model.
            ModelError: if `rewritten` is not a rewrite of `original`, or its record is missing or damaged.
        """
        before, after = stored_ranges(original, statistics, rewritten)
        return cls(ModelRange.stored(original, before), ModelRange.stored(rewritten, after), statistics.images)

    @property
    def sides(self) -> dict[Side, ModelRange]:
        """Both models by their roles."""
        return {"original": self.original, "rewritten": self.rewritten}

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `verify --fp16 --json` prints it under "fp16"."""
        return ranges_json(self.sides, self.images)


def ranges_json(sides: Mapping[Side, ModelRange], images: int | None) -> dict[str, Any]:
    """The ranges of one model or of two as plain data; `images` as in `Fp16`."""
    values = dict.fromkeys(name for found in sides.values() for name in found.values)
    constants = dict.fromkeys(name for found in sides.values() for name in found.constants)
    return {
        "largest": LARGEST,
        "smallest_normal": SMALLEST_NORMAL,
        "ranges_from": "inputs" if images is None else "statistics",
        "images": images,
        **{side: found.to_json() for side, found in sides.items()},
        "values": [
            {"name": name} | {side: found.values[name] for side, found in sides.items() if name in found.values}
            for name in values
        ],
        "constants": [
            {"name": name}
            | {side: vars(found.constants[name]) for side, found in sides.items() if name in found.constants}
            for name in constants
        ],
    }
