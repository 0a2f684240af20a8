"""A small network to calibrate, and whether two calibrations agree."""

from __future__ import annotations

import numpy as np
import onnx

from onnxnorm.statistics import Statistics
from tests.helpers.graphs import model, rand


def net(inputs: int = 1, channels: int = 5) -> onnx.ModelProto:
    body = "a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) z = Conv(r, w2)"
    shapes: dict[str, tuple[int | str | None, ...]] = {"x": ("N", 3, "H", "W")}
    if inputs == 2:
        body = "a = Conv<pads=[1,1,1,1]>(x, w, b) c = Conv<pads=[1,1,1,1]>(y, w, b) s = Add(a, c) r = Relu(s) " + (
            "z = Conv(r, w2)"
        )
        shapes["y"] = ("N", 3, "H", "W")
    constants = {"w": rand(channels, 3, 3, 3), "b": rand(channels, seed=1), "w2": rand(2, channels, 1, 1, seed=2)}
    return model(body, shapes, constants)


def close(one: Statistics, other: Statistics, rtol: float = 1e-12) -> None:
    assert one.images == other.images
    assert set(one.values) == set(other.values)
    assert set(one.histograms) == set(other.histograms)
    for value, counted in one.histograms.items():
        assert (counted.positions, counted.start) == (other.histograms[value].positions, other.histograms[value].start)
        np.testing.assert_array_equal(counted.counts, other.histograms[value].counts)
    for value, mine in one.values.items():
        theirs = other.values[value]
        assert mine.weight == theirs.weight
        assert (mine.largest is None) == (theirs.largest is None)
        for name in ("total", "square_total", "squares", *(("largest",) if mine.largest is not None else ())):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=rtol, atol=0)
