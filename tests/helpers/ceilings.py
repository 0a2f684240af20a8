"""Rewrites under a ceiling, and what must hold after each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.rewriting import Rewriting, restore_model, rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.levels import Level
from onnxnorm.statistics import Statistics
from tests.helpers import oracle

__all__ = ["RUNTIME", "check", "largest", "ranged", "under"]

RUNTIME = Runtime("cpu", threads=1)
Feeds = dict[str, NDArray[Any]]


def ranged(proto: onnx.ModelProto, given: Feeds) -> Statistics:
    size = len(next(iter(given.values())))
    return onnxnorm.calibrate(proto, given, measure=("range",), provider="cpu", filters="all", batch_size=size)


def under(proto: onnx.ModelProto, given: Feeds, ceiling: float, level: Level = "constants") -> Rewriting:
    return rewrite_model(Model.open(proto), ranged(proto, given), ScaleOptions(ceiling=ceiling, allow=level))


def largest(done: Rewriting, given: Feeds) -> dict[str, float]:
    """The largest magnitude of every value of the rewritten network, from raw activations."""
    proto = done.model.to_proto()
    names = [name for name in done.trace.graph.float_values() if name not in given]
    raw = oracle.activations(proto, given, names)
    return {name: float(np.abs(array.astype(np.float64)).max(initial=0.0)) for name, array in raw.items()}


def check(done: Rewriting, proto: onnx.ModelProto, given: Feeds, ceiling: float) -> None:
    """Every value is at the ceiling or below, or is named; outputs are the same bits; the original comes back."""
    found = done.ceiling
    assert found is not None
    named = {item.value: item for item in found.above}
    for name, magnitude in largest(done, given).items():
        if not np.isfinite(magnitude) or magnitude >= np.finfo(np.float32).max:
            continue
        assert magnitude <= ceiling * (1 + 1e-5) or name in named, (name, magnitude)
    for name, item in named.items():
        assert item.after > ceiling
        ids = done.trace.ids[name]
        pinned = done.trace.groups.reasons(ids[done.trace.groups.is_pinned(ids)])
        true = [f"{barrier.op} {barrier.node!r}: {barrier.reason}" for barrier in pinned]
        assert item.reason in true or item.reason.startswith(("constant ", "value ", "it depends on")), item
    before = RUNTIME.session(proto, optimize=False).run(given)
    after = RUNTIME.session(done.model, optimize=False).run(given)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    assert restore_model(done.model).same
