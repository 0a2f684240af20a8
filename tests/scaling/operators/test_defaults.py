"""Attributes that are left out, axes counted from the end, and constants of zeros among others."""

from __future__ import annotations

import pytest

from onnxnorm.scaling.operators import movement
from tests.helpers.graphs import between, floats, model, rand
from tests.helpers.law_checks import holds, refused


def test_split_without_an_axis_splits_the_first() -> None:
    body = "p, q = Split<num_outputs=2>(a) \n b = Concat<axis=0>(q, p)"
    holds(between(body, (4, 4, 6, 6)), {"a": 4, "p": 4, "b": 4}, whole=True)


@pytest.mark.parametrize("attribute", ["", "<axis=-1>", "<axis=-4>", "<axis=0>", "<axis=2>"])
@pytest.mark.parametrize("indices", [[1, 0, 1], [[1, 0, 1]], [[0], [1]]], ids=str)
def test_gather_along_axes_on_which_no_scale_varies(attribute: str, indices: list[object]) -> None:
    proto = between(f"b = Gather{attribute}(a, i)", constants={"i": indices}, tail="none")
    holds(proto, {"a": 4, "b": 4}, whole=True)


def test_squeeze_without_axes() -> None:
    holds(between("b = Squeeze(a)", (2, 4, 1, 6), tail="none"), {"a": 4, "b": 4}, whole=True)


@pytest.mark.parametrize(("axes", "free"), [("batch_axis=0, time_axis=1", 1), ("batch_axis=1, time_axis=0", 4)])
def test_reverse_sequence_ties_its_time_axis_only(axes: str, free: int) -> None:
    proto = between(f"b = ReverseSequence<{axes}>(a, n)", (4, 4, 6), {"n": [4, 2, 1, 3]}, tail="none")
    holds(proto, {"a": free, "b": free}, whole=True)


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("b = Slice(a, start, end, one)", (2, 4, 6, 6)),
        ("b = Squeeze(a, two)", (2, 4, 1, 6)),
        ("b = Unsqueeze(a, two)", (2, 4, 6)),
        ("b = Transpose<perm=[0,2,3,1]>(a)", (2, 4, 6, 6)),
    ],
)
def test_only_axes_that_are_worked_on_take_their_real_size(
    body: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = between(body, shape, {"start": [1], "end": [3], "one": [1], "two": [2]}, tail="none")
    monkeypatch.setattr(movement, "_MOST_ELEMENTS", 4)
    assert holds(proto, {"a": 4}).free("b")
    monkeypatch.setattr(movement, "_MOST_ELEMENTS", 3)
    refused(proto, "it moves more than 3 elements")


def test_a_sum_with_zeros_between() -> None:
    constants = {"zero": floats([[[0]]]), "k": rand(4, 1, 1)}
    holds(between("b = Sum(a, zero, k)", constants=constants, tail="none"), {"a": 4, "b": 4})


def test_zeros_that_are_added_and_are_a_bias_too() -> None:
    proto = model(
        "a = Gemm(x, w, zero) \n b = MatMul(x, v) \n c = Add(b, zero) \n z = Concat<axis=1>(a, c)",
        {"x": (2, 3)},
        {"w": rand(3, 4), "v": rand(3, 4, seed=1), "zero": floats([0, 0, 0, 0])},
    )
    holds(proto, {"a": 4, "c": 4, "z": 8})


def test_a_constant_matrix_on_the_left_of_a_matrix() -> None:
    """It mixes the rows, so the columns of what it reads share one scale."""
    proto = between("b = MatMul(k, a)", (2, 4), {"k": rand(5, 2)}, tail="none")
    holds(proto, {"a": 1, "b": 5}, whole=True, rtol=1e-6)


def test_a_constant_matrix_on_the_left_of_a_vector() -> None:
    proto = between("v = ReduceMax<keepdims=0>(a, first) \n b = MatMul(k, v)", (2, 4), {"k": rand(5, 4), "first": [0]},
                    tail="none")  # fmt: skip
    holds(proto, {"v": 4, "b": 5}, whole=True, rtol=1e-6)
