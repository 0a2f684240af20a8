"""Slots of a value that is reshaped, without an array of the value's size.

An activation of millions of elements has few slots: they do not vary along most of its axes. A Reshape keeps the order
of elements, so what matters is where in that order slots change. Of the value's axes, those in front along which
slots do not vary repeat the whole, and those at the end repeat every element. Axes of the target that are made of these
alone have size 1 in the result; and one that is made of them in part is shortened: it holds every slot once for each
*run* of as many elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxnorm.scaling.slots import Ids

__all__ = ["lengthened", "reshaped", "shortened_axes"]


def reshaped(ids: Ids, source: Sequence[int], target: Sequence[int], most: int) -> Ids | None:
    """Slots after a Reshape.

    Args:
        ids: slots of the value, of its rank, with size 1 along each axis where they do not vary.
        source: the shape of the value, without zeros.
        target: its shape after the Reshape, of as many elements.
        most: how many slots there may be.

    Returns:
        Slots of the target's rank. Along each axis they have size 1 if they do not vary; else the target's size, or a
        divisor of it if elements come in runs of the same slot. None if that would be too many.
    """
    varies = [axis for axis, size in enumerate(ids.shape) if size > 1]
    first, last = (varies[0], varies[-1] + 1) if varies else (0, 0)
    front, back = math.prod(source[:first]), math.prod(source[last:])
    start, whole = 0, 1
    while start < len(target) and not front % (whole * target[start]):
        whole *= target[start]
        start += 1
    stop, each = len(target), 1
    while stop > start and not back % (each * target[stop - 1]):
        each *= target[stop - 1]
        stop -= 1
    inner = list(target[start:stop])
    run = math.gcd(back // each, inner[-1]) if inner else 1
    inner[-1:] = [size // run for size in inner[-1:]]
    core = (front // whole, *source[first:last], back // (each * run))
    if math.prod(core) > most:
        return None
    flat = np.broadcast_to(ids.reshape(1, *ids.shape[first:last], 1), core)
    return flat.reshape([1] * start + inner + [1] * (len(target) - stop))


def shortened_axes(ids: Ids, shape: Sequence[int]) -> list[int]:
    """The axes of a reshaped value along which slots are held once for each run."""
    return [axis for axis, (held, size) in enumerate(zip(ids.shape, shape, strict=True)) if held not in {1, size}]


def lengthened(ids: Ids, shape: Sequence[int]) -> Ids:
    """The same slots, each axis of size 1 or that of `shape`."""
    for axis in shortened_axes(ids, shape):
        ids = ids.repeat(shape[axis] // ids.shape[axis], axis=axis)
    return ids
