"""Regrouping: any chopping gives the same samples, shapes never mix, little waits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxnorm.data.batches import Batch, regroup


def block(*samples: tuple[int, int]) -> Batch:
    """A block of samples (value, width): arrays (n, width) filled with the value."""
    values = np.stack([np.full(width, value) for value, width in samples])
    return Batch({"x": values}, len(samples), tuple(str(value) for value, _ in samples))


def read(batch: Batch) -> list[int]:
    values = [int(row[0]) for row in batch.feeds["x"]]
    assert [str(value) for value in values] == list(batch.names)
    assert batch.count == len(values)
    return values


@given(st.lists(st.integers(1, 9), max_size=12), st.sampled_from([1, 2, 3, 7, 100]))
def test_blocks_of_one_shape_are_cut_to_size_in_order(lengths: list[int], size: int) -> None:
    numbers = iter(range(1000))
    blocks = [block(*[(next(numbers), 2) for _ in range(length)]) for length in lengths]
    batches = [read(batch) for batch in regroup(blocks, size)]
    assert [value for batch in batches for value in batch] == list(range(sum(lengths)))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)


@given(st.lists(st.integers(1, 20), max_size=80), st.integers(1, 5))
def test_shapes_never_mix_and_keep_their_order(widths: list[int], size: int) -> None:
    batches = list(regroup((block((index, width)) for index, width in enumerate(widths)), size))
    seen = [(batch.feeds["x"].shape[1], value) for batch in batches for value in read(batch)]
    assert sorted(value for _, value in seen) == list(range(len(widths)))
    for width in set(widths):
        assert [value for w, value in seen if w == width] == [i for i, w in enumerate(widths) if w == width]


def test_little_waits_when_all_shapes_differ() -> None:
    handed = 0

    def endless() -> Iterator[Batch]:
        nonlocal handed
        for width in range(1, 1000):
            handed += 1
            yield block((width, width))

    next(regroup(endless(), 2))
    assert handed == 9


def test_the_fullest_shape_is_flushed_first() -> None:
    widths = [5, 5, 5, *range(10, 24)]
    first = next(regroup((block((index, width)) for index, width in enumerate(widths)), 4))
    assert read(first) == [0, 1, 2]


def test_bytes_are_bounded_too() -> None:
    blocks = (Batch({"x": np.zeros((1, 10_000_000 + i))}, 1, (str(i),)) for i in range(10))
    first = next(regroup(blocks, 1000))
    assert first.count == 1
    assert first.names == ("0",)


def test_batches_are_contiguous() -> None:
    rows = np.asfortranarray(np.arange(12).reshape(4, 3))
    for batch in regroup([Batch({"x": rows}, 4, tuple("abcd"))], 3):
        assert batch.feeds["x"].flags.c_contiguous
