"""The averages of many values at once are those of each alone, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxnorm.calibration.averages import Spreads, averages_of
from onnxnorm.calibration.joint import Joint, Outputs
from onnxnorm.calibration.taps import Positions, Tap
from onnxnorm.errors import ModelError
from onnxnorm.scaling.filters import Site
from tests.helpers.graphs import rand


def tap(name: str, signed: str = "") -> Tap:
    return Tap(site=Site(name, 1, "mean"), mean=name, largest="", way="windows", signed=signed)


def test_as_each_alone() -> None:
    rows = {"a": (1, 5), "b": (1, 3), "c": (9, 4), "d": (9, 1), "e": (9, 6), "f": (0, 2), "g": (1, 2)}
    spreads = {name: Positions(64, 1.25) for name in rows} | {"e": Positions(16, 1.25), "b": Positions(64, 1.0)}
    results: dict[str, NDArray[np.float32]] = {}
    for seed, (name, (each, width)) in enumerate(rows.items()):
        results[name] = rand(4 * each, width, 1, 1, seed=seed)
    found = averages_of([tap(name) for name in rows], Outputs(results, Joint()), Spreads(tuple(spreads.values())), 3, 4)
    assert [group.places for group in found.groups] == [(0, 6), (1,), (2,), (3,), (4,), (5,)]
    names = list(rows)
    for group in found.groups:
        for place in group.places:
            assert (group.rows, group.spread) == (rows[names[place]][0], spreads[names[place]])
    measured = {names[place]: means for place, means in found.each()}
    assert set(measured) == set(rows)
    for name, (each, width) in rows.items():
        alone = results[name].reshape(4, each, width)[:3]
        expected = alone.mean(axis=1, dtype=np.float64) if each else np.zeros((3, width))
        np.testing.assert_array_equal(measured[name], expected * spreads[name].factor)


def test_a_mean_of_two_outputs() -> None:
    results = {"a": np.full((2, 3), 0.75, np.float32), "s": np.full((2, 3), 0.5, np.float32)}
    found = averages_of([tap("a", "s")], Outputs(results, Joint()), Spreads((Positions(1, 1.0),)), 2, 2)
    np.testing.assert_array_equal(found.means, np.full((2, 3), 1.0))


def test_rows_that_are_no_samples() -> None:
    with pytest.raises(ModelError, match="value 'a' has 5 rows for 2 samples: its first axis is not the batch"):
        averages_of([tap("a")], Outputs({"a": rand(5, 3)}, Joint()), Spreads((Positions(1, 1.0),)), 2, 2)
