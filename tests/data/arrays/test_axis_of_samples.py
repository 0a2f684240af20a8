"""An array has its samples first, or on the input's own axis; where it could be both, nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxnorm
from onnxnorm.data.arrays.fitting import samples_axis
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from tests.helpers.graphs import model, rand

STATE = InputSpec("h", (2, None, 6), np.dtype(np.float32), batch=1)


@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 2, 6), 0), ((2, 5, 6), 1), ((2, 1, 6), 1), ((1, 2, 6), 0), ((5, 6), 0), ((3, 3, 6), 0)]
)
def test_the_axis_that_fits(shape: tuple[int, ...], axis: int) -> None:
    assert samples_axis(STATE, shape) == axis


def test_one_sample_is_the_same_either_way() -> None:
    assert samples_axis(InputSpec("h", (1, None, 6), np.dtype(np.float32), batch=1), (1, 1, 6)) == 0


def test_two_samples_of_two_layers_are_not_guessed(tmp_path: Path) -> None:
    proto = model(
        "y = Conv(x, w) r = Relu(y) m = ReduceMean<axes=[2,3], keepdims=0>(r) t = ReduceMean<axes=[0], keepdims=0>(h) "
        "z = Add(m, t)",
        {"x": ("n", 3, 8, 8), "h": (2, "n", 4)},
        {"w": rand(4, 3, 3, 3)},
    )
    images, state = rand(2, 3, 8, 8), rand(2, 2, 4)
    np.savez(tmp_path / "two.npz", x=images, h=state)
    for data in ({"x": images, "h": state}, tmp_path / "two.npz"):
        with pytest.raises(DataError, match="may have its samples on axis 0 or on axis 1, which are not the same"):
            onnxnorm.calibrate(proto, data, provider="cpu")
    for states in (rand(5, 2, 4), rand(2, 5, 4)):
        assert onnxnorm.calibrate(proto, {"x": rand(5, 3, 8, 8), "h": states}, provider="cpu").images == 5
