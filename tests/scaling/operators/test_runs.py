"""A Reshape of slots in runs gives the same slots as one of an array of the value's size."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onnxnorm.scaling.operators.runs import lengthened, reshaped, shortened_axes

SHAPES = {
    "groups": ((2, 8, 4, 6), (2, 4, 48)),
    "back": ((2, 4, 48), (2, 8, 4, 6)),
    "heads": ((3, 10, 12), (3, 10, 4, 3)),
    "flat": ((2, 6, 4, 4), (2, 96)),
    "all": ((2, 6, 4, 4), (192,)),
    "across": ((2, 6, 5), (4, 15)),
    "ones": ((1, 6, 1, 1), (1, 1, 6)),
    "number": ((6,), (2, 3)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_runs_are_those_of_the_whole_array(name: str, seed: int) -> None:
    source, target = SHAPES[name]
    rng = np.random.default_rng(seed)
    held = tuple(size if rng.integers(2) else 1 for size in source)
    ids = np.arange(1, math.prod(held) + 1).reshape(held)
    whole = np.broadcast_to(ids, source).reshape(target)
    short = reshaped(ids, source, target, ids.size * whole.size)
    assert short is not None
    np.testing.assert_array_equal(np.broadcast_to(lengthened(short, target), target), whole)


def test_the_size_of_an_image_does_not_count() -> None:
    channels = np.arange(1, 129).reshape(1, 128, 1, 1)
    grouped = reshaped(channels, (1, 128, 4096, 4096), (1, 32, 4 * 4096 * 4096), 128)
    assert grouped is not None
    assert grouped.shape == (1, 32, 4)
    assert shortened_axes(grouped, (1, 32, 4 * 4096 * 4096)) == [2]
    back = reshaped(grouped[:, :, :1], (1, 32, 4 * 4096 * 4096), (1, 128, 4096, 4096), 128)
    assert back is not None
    assert lengthened(back, (1, 128, 4096, 4096)).shape == (1, 128, 1, 1)


def test_more_slots_than_allowed() -> None:
    corners = np.arange(1, 9).reshape(4, 1, 2)
    assert reshaped(corners, (4, 1000, 2), (1000, 8), 7999) is None
    assert reshaped(corners, (4, 1000, 2), (1000, 8), 8000) is not None
