"""The numeric proof of every law: rewrite with random scales, run both models, compare.

A graph's groups get random powers of two (so that the comparison can be exact, bit for bit) or random numbers; pinned
groups stay 1. The rewritten model's outputs must be the original's, times the scales that the walk gives to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import Trace, trace
from onnxnorm.scaling.levels import Level
from onnxnorm.scaling.walk import Outputs

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Checked:
    """What a check found: the trace, the scale of every slot, the changed model, and both models' outputs."""

    trace: Trace
    of_slot: NDArray[np.float64]
    rewritten: Model
    expected: dict[str, NDArray[Any]]
    got: dict[str, NDArray[Any]]

    def free(self, value: str) -> bool:
        """Whether every channel of a value may be scaled."""
        return not bool(self.trace.groups.is_pinned(self.trace.ids[value]).any())

    def pinned(self, value: str) -> bool:
        """Whether every channel of a value keeps scale 1."""
        return bool(self.trace.groups.is_pinned(self.trace.ids[value]).all())

    def reasons(self, value: str) -> list[str]:
        """Why channels of a value are pinned."""
        return [barrier.reason for barrier in self.trace.groups.reasons(self.trace.ids[value])]

    def distinct(self, value: str) -> int:
        """How many scales a value has."""
        return len(np.unique(self.trace.groups.of[self.trace.ids[value]]))


def traced(
    proto: onnx.ModelProto,
    outputs: Outputs = "scale",
    shapes: dict[str, tuple[int, ...]] | None = None,
    level: Level = "constants",
) -> Trace:
    """Walk a model."""
    model = Model.open(proto)
    return trace(read_graph(model, shapes or sample_shapes(input_specs(model), (16, 16))), outputs, level)


def random_scales(found: Trace, seed: int, *, power_of_two: bool = True) -> NDArray[np.float64]:
    """A scale per slot: random for free groups, 1 for pinned ones."""
    generator = np.random.default_rng(seed)
    exponents = generator.uniform(-4, 4, found.groups.basis.shape[1])
    of_group = np.exp2(found.groups.at(np.rint(exponents) if power_of_two else exponents))
    of_slot: NDArray[np.float64] = of_group[found.groups.of]
    of_slot[0] = 1.0
    return of_slot


def check_scales(
    proto: onnx.ModelProto,
    feeds: Feeds,
    *,
    seed: int = 0,
    outputs: Outputs = "scale",
    power_of_two: bool = True,
    rtol: float = 0.0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    level: Level = "constants",
) -> Checked:
    """Rewrite with random scales and assert that every output is the original's times its scale.

    With powers of two and `rtol=0` it must be so bit for bit; otherwise up to `rtol` of the largest magnitude.
    The walk sees the shapes of the feeds, or `shapes`.
    """
    found = traced(proto, outputs, dict(shapes or {name: array.shape for name, array in feeds.items()}), level)
    of_slot = random_scales(found, seed, power_of_two=power_of_two)
    rewritten = apply_edits(Model.open(proto), found.edits, of_slot).model
    runtime = Runtime("cpu", threads=1)
    expected = runtime.session(Model.open(proto), optimize=False).run(feeds)
    got = runtime.session(rewritten, optimize=False).run(feeds)
    check_outputs(found, of_slot, expected, got, rtol=rtol)
    return Checked(found, of_slot, rewritten, expected, got)


def check_outputs(
    found: Trace, of_slot: NDArray[np.float64], expected: Feeds, got: Feeds, *, rtol: float = 0.0
) -> None:
    """Assert that every output is the original's times its scale."""
    for name, array in expected.items():
        ids = found.ids.get(name)
        scale = np.ones(1) if ids is None else of_slot[ids]
        if (scale == 1).all() and rtol == 0:
            np.testing.assert_array_equal(got[name], array, err_msg=name)
            continue
        want = np.asarray(array.astype(np.float64) * scale)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            error = np.where(got[name] == want, 0.0, np.abs(got[name].astype(np.float64) - want))
        worst = np.nanmax(error, initial=0.0) if error.size else 0.0
        assert worst <= rtol * np.abs(want[np.isfinite(want)]).max(initial=0.0), (name, worst)
        np.testing.assert_array_equal(np.isnan(want), np.isnan(got[name].astype(np.float64)), err_msg=name)
