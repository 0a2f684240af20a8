"""The nodes that a mixed-precision converter leaves in float32: by values, by weights, and by multiplications."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.verification.fp16 import ModelRange
from tests.helpers.graphs import model, rand

SAMPLES = {"x": rand(4, 3, 8, 8)}


def counted(proto: onnx.ModelProto, samples: dict[str, np.ndarray] | None = None) -> ModelRange:
    found = onnxnorm.verify(proto, proto, samples or SAMPLES, fp16=True, provider="cpu").fp16
    assert found is not None
    return found.original


def test_a_large_value_keeps_its_writer_and_its_readers() -> None:
    proto = model(
        "a = Conv(x, w) b = Conv(a, loud) c = Conv(b, quiet) z = Relu(c)",
        {"x": ("N", 3, 8, 8)},
        {
            "w": rand(2, 3, 1, 1),
            "loud": np.full((2, 2, 1, 1), 3000.0, np.float32),
            "quiet": np.full((1, 2, 3, 3), 1e-6, np.float32),
        },
    )
    found = counted(proto)
    assert found.nodes.kept == ("b", "c")
    assert found.nodes.nodes == 4
    assert found.above_512 == ("b",)
    assert found.overflowing == ()
    assert found.count("above_512") == 4
    assert found.nodes.multiplications == 4 * (64 * 2 * 3 + 64 * 2 * 2 + 36 * 2 * 9)
    assert found.nodes.in_half == 4 * 64 * 2 * 3
    assert found.to_json()["multiplications_in_float16"] == found.nodes.in_half / found.nodes.multiplications


def test_a_weight_beyond_65504_keeps_its_reader() -> None:
    weight = rand(2, 3, 1, 1)
    weight[0, 0] = 70000
    proto = model("a = Conv(x, w) z = Relu(a)", {"x": ("N", 3, 8, 8)}, {"w": weight})
    found = counted(proto, {"x": SAMPLES["x"] * np.float32(1e-5)})
    assert found.nodes.kept == ("a",)
    assert found.nodes.share_in_half == 0


@pytest.mark.parametrize(
    ("body", "shape", "constants", "expected"),
    [
        ("z = MatMul(x, w)", ("N", 5, 3), {"w": rand(3, 7)}, 2 * 5 * 3 * 7),
        ("z = Gemm(x, w)", ("N", 3), {"w": rand(3, 7)}, 2 * 3 * 7),
        ("z = Gemm<transB=1>(x, w)", ("N", 3), {"w": rand(7, 3)}, 2 * 3 * 7),
        ("z = ConvTranspose<group=2>(x, w)", ("N", 4, 5, 5), {"w": rand(4, 3, 2, 2)}, 2 * 25 * 4 * 3 * 4),
        ("z = Conv<group=2>(x, w)", ("N", 4, 5, 5), {"w": rand(6, 2, 1, 1)}, 2 * 25 * 6 * 2),
        ("z = Relu(x)", ("N", 4), {}, 0),
    ],
)
def test_multiplications(
    body: str, shape: tuple[int | str, ...], constants: dict[str, np.ndarray], expected: int
) -> None:
    sizes = [2 if isinstance(size, str) else size for size in shape]
    found = counted(model(body, {"x": shape}, constants), {"x": rand(*sizes)})
    assert found.nodes.multiplications == expected
    assert found.nodes.share_in_half == (1.0 if expected else None)


def test_under_a_ceiling_no_node_is_left() -> None:
    proto = model(
        "a = Conv(x, w) r = Relu(a) z = Conv(r, v)", {"x": ("N", 3, 8, 8)},
        {"w": 4000 * rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1, seed=1) / 4000},
    )  # fmt: skip
    done = onnxnorm.normalize(proto, SAMPLES, ceiling=512, provider="cpu")
    found = onnxnorm.verify(proto, done.model, SAMPLES, fp16=True, provider="cpu")
    assert found.fp16 is not None
    assert found.bit_identical
    assert len(found.fp16.original.nodes.kept) == 3
    assert found.fp16.rewritten.nodes.kept == ()
    assert found.fp16.rewritten.above_512 == ()
