"""What every test of a law asserts: how many scales are free, why the others are not, and that the numbers agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from onnxnorm.scaling.levels import Level
from tests.helpers.graphs import feeds
from tests.helpers.scales_check import Checked, check_scales

__all__ = ["RUNTIME", "free_scales", "holds", "refused"]

RUNTIME = tuple(map(int, onnxruntime.__version__.split(".")[:2]))


def free_scales(checked: Checked, value: str) -> int:
    """How many different free scales the channels of a value have."""
    ids = np.unique(checked.trace.ids[value])
    ids = ids[ids != 0]
    return len(np.unique(checked.trace.groups.of[ids[~checked.trace.groups.is_pinned(ids)]]))


def holds(
    proto: onnx.ModelProto,
    scales: Mapping[str, int] | int | None = None,
    *,
    feed: Mapping[str, Any] | None = None,
    rtol: float = 0.0,
    whole: bool = False,
    seed: int = 0,
    level: Level = "constants",
    power_of_two: bool = True,
) -> Checked:
    """Check a model under random scales, after a walk that saw one sample while the batch has more.

    Scales are powers of two unless that is turned off. `scales` says how many free ones each value has; a number is
    about value `a`. `whole` lets the walk see the batch. `level` says how much of the graph may change.
    """
    given = feeds(proto) if feed is None else feed
    shapes = None if whole else {name: (1, *array.shape[1:]) if array.ndim else () for name, array in given.items()}
    checked = check_scales(proto, given, rtol=rtol, shapes=shapes, seed=seed, level=level, power_of_two=power_of_two)
    if scales is not None:
        wanted = {"a": scales} if isinstance(scales, int) else dict(scales)
        assert {value: free_scales(checked, value) for value in wanted} == wanted, reasons(checked, *wanted)
    assert any(
        np.nan_to_num(np.abs(array.astype(np.float64))).max(initial=0) > 0 for array in checked.expected.values()
    )
    return checked


def refused(proto: onnx.ModelProto, reason: str, value: str = "a", **options: Any) -> Checked:
    """Check a model whose value is pinned as a whole, for this reason."""
    checked = holds(proto, {value: 0}, **options)
    assert any(reason in found for found in checked.reasons(value)), checked.reasons(value)
    return checked


def reasons(checked: Checked, *values: str) -> dict[str, list[str]]:
    """Why values are pinned."""
    return {value: checked.reasons(value) for value in values}
