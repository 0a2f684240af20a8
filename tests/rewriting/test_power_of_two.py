"""Powers of two: the same bits, whatever the dtype, with and without graph optimizations; limits where bits end."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import onnxnorm
from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.cli import main
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.rewriting import Rewriting, power_of_two, restore_model, rewrite_model
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.rewriting.layer_statistics import LayerStatistic
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.power_of_two import powers_of_two
from onnxnorm.rewriting.scales import Scales, choose_scales
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import Trace, find_layers, trace
from tests.corpus import CASES, Case, feeds
from tests.helpers.graphs import model as network
from tests.helpers.graphs import rand

RUNTIME = Runtime("cpu", threads=1)
HALF, BRAIN = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
DTYPES = [HALF, BRAIN, np.dtype(np.float32), np.dtype(np.float64)]
# Cases whose outputs leave the finite numbers, or whose arithmetic adds in another order from one session to the next.
RUNNING = [case for case in CASES.values() if case.runs and case.rtol == 0]


def outputs(model: Model, given: dict[str, Any], *, optimize: bool) -> dict[str, bytes]:
    found = RUNTIME.session(model, optimize=optimize).run(given)
    return {name: array.tobytes() for name, array in found.items()}


@pytest.mark.parametrize("case", RUNNING, ids=[case.name for case in RUNNING])
def test_the_same_bits_with_and_without_optimizations(case: Case) -> None:
    model = Model.open(case.build())
    samples = feeds(model.proto, 2)
    statistics = calibrate_model(model, samples, CalibrationOptions(provider=RUNTIME.provider, filters=case.filters))
    rewriting = rewrite_model(model, statistics, ScaleOptions(power_of_two=True, filters=case.filters))
    for optimize in (True, False):
        expected, got = (outputs(m, samples, optimize=optimize) for m in (model, rewriting.model))
        assert expected == got, optimize
    for layer in rewriting.scales.layers:
        fraction, _ = np.frexp(layer.scale)
        assert (fraction == 0.5).all()
        free = layer.live & ~layer.pinned & ~layer.limited
        exact = rewrite_model(model, statistics, ScaleOptions(filters=case.filters)).scales.of_slot[layer.layer.slots]
        assert (np.abs(np.log2(layer.scale / exact)[free]) <= 0.5).all()
    assert restore_model(rewriting.model).same


def residual(dtype: np.dtype[Any]) -> Model:
    """Convolutions, a BatchNormalization, a residual Add, a dense head; weights well within the range of the dtype."""

    def constant(*shape: int, seed: int, least: float = 0.02) -> NDArray[Any]:
        values = rand(*shape, seed=seed)
        return (np.sign(values) * np.maximum(np.abs(values), least)).astype(dtype)

    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)   n = BatchNormalization(a, scale, shift, mean, var)   r = Relu(n)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)   c = Conv<pads=[1,1,1,1]>(p, w2, b2)   rc = Relu(c)
        d = Conv(p, w3)   s = Add(rc, d)   t = Relu(s)   f = Flatten(t)   z = Gemm(f, w4, b4)
    """
    constants = {
        "w1": constant(8, 3, 3, 3, seed=1), "b1": constant(8, seed=2), "w2": constant(8, 8, 3, 3, seed=3),
        "b2": constant(8, seed=4), "w3": constant(8, 8, 1, 1, seed=5), "w4": constant(128, 5, seed=6),
        "b4": constant(5, seed=7), "scale": constant(8, seed=8), "shift": constant(8, seed=9),
        "mean": constant(8, seed=10), "var": np.abs(constant(8, seed=11)),
    }  # fmt: skip
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return Model.open(network(body, {"x": ("N", 3, 8, 8)}, constants, dtype=elem_type))


def dense(dtype: np.dtype[Any]) -> Model:
    body = "a = Gemm(x, w1, b1)   r = Relu(a)   b = MatMul(r, w2)   s = Relu(b)   z = Gemm(s, w3, b3)"
    shapes = {"w1": (6, 16), "b1": (16,), "w2": (16, 12), "w3": (12, 4), "b3": (4,)}
    constants = {name: rand(*shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(shapes.items())}
    constants["w1"] = constants["w1"] * (2.0 ** np.arange(16)).astype(dtype) / np.asarray(64, dtype)
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return Model.open(network(body, {"x": ("N", 6)}, constants, dtype=elem_type))


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), HALF], ids=str)
def test_a_residual_network(dtype: np.dtype[Any]) -> None:
    model = residual(dtype)
    samples = {"x": rand(32, 3, 8, 8, seed=12, dtype=dtype)}
    rewriting = rewrite_model(
        model,
        calibrate_model(model, samples, CalibrationOptions(provider=RUNTIME.provider)),
        ScaleOptions(power_of_two=True),
    )
    assert rewriting.scales.limited == 0 or dtype == HALF
    assert rewriting.scales.span[0] < 1 < rewriting.scales.span[1]
    for optimize in (True, False):
        assert outputs(model, samples, optimize=optimize) == outputs(rewriting.model, samples, optimize=optimize)


def test_double_precision() -> None:
    model = dense(np.dtype(np.float64))
    samples = {"x": rand(64, 6, seed=5, dtype=np.float64)}
    statistics = calibrate_model(model, samples, CalibrationOptions(provider=RUNTIME.provider, filters="all"))
    rewriting = rewrite_model(model, statistics, ScaleOptions(power_of_two=True, filters="all"))
    assert rewriting.scales.span[1] / rewriting.scales.span[0] > 1000
    for optimize in (True, False):
        assert outputs(model, samples, optimize=optimize) == outputs(rewriting.model, samples, optimize=optimize)


def test_bfloat16_in_the_reference_implementation() -> None:
    """ONNX Runtime has no CPU kernels for it."""
    model = dense(BRAIN)
    found, scales = wanted(model, np.random.default_rng(0).uniform(0.01, 100, 64), filters="all")
    rewritten = apply_edits(model, found.edits, powers_of_two(model, found, scales).of_slot).model
    x = rand(16, 6, seed=5, dtype=BRAIN)
    expected, got = (np.asarray(list(ReferenceEvaluator(m.to_proto()).run(None, {"x": x}))) for m in (model, rewritten))
    assert rewritten.digest() != model.digest()
    assert expected.tobytes() == got.tobytes()


def test_exact_scales_are_not_the_same_bits() -> None:
    """The comparison can fail: without rounding, almost every number of the output differs."""
    model = residual(np.dtype(np.float32))
    samples = {"x": rand(32, 3, 8, 8, seed=12)}
    rewriting = rewrite_model(model, calibrate_model(model, samples, CalibrationOptions(provider=RUNTIME.provider)))
    assert outputs(model, samples, optimize=True) != outputs(rewriting.model, samples, optimize=True)


# --- limits --------------------------------------------------------------------------------------------------------


def found_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return sample_shapes(input_specs(model), (8, 8))


def wanted(model: Model, statistic: NDArray[Any], filters: Any = "conv") -> tuple[Trace, Scales]:
    """The scales that bring these statistics to 1, of as many filters as there are, in order."""
    found = trace(read_graph(model, found_shapes(model)))
    layers = find_layers(found, filters)
    starts = np.cumsum([0, *(layer.channels for layer in layers)])
    parts = [np.asarray(statistic[a:b], np.float64) for a, b in pairwise(starts)]
    return found, choose_scales(found, layers, [LayerStatistic(part, np.zeros(len(part))) for part in parts])


def chain(w1: Any, b1: Any, w2: Any, dtype: np.dtype[Any]) -> Model:
    """`z = Conv(Relu(Conv(x, w1, b1)), w2)` with one input and one output channel."""
    a, b, c = (np.asarray(part).astype(dtype) for part in (w1, b1, w2))
    constants = {"w1": a.reshape(-1, 1, 1, 1), "b1": b, "w2": c.reshape(1, -1, 1, 1)}
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    body = "a = Conv(x, w1, b1)   r = Relu(a)   z = Conv(r, w2)"
    # Convolutions of bfloat16 came with opset 22.
    return Model.open(network(body, {"x": (1, 1, 4, 4)}, constants, dtype=elem_type, opset=22))


def exponents(model: Model, statistic: Any) -> list[int]:
    found, scales = wanted(model, np.asarray(statistic, np.float64))
    limited = powers_of_two(model, found, scales)
    (layer,) = (layer for layer in limited.layers if layer.layer.output == "a")
    result = np.log2(layer.scale).astype(int).tolist()
    unlimited = np.rint(np.log2(1 / np.asarray(statistic, np.float64))[: len(result)])
    assert (layer.limited == (unlimited != result)).all()
    return [int(exponent) for exponent in result]


def largest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def smallest(dtype: np.dtype[Any]) -> float:
    return float(ml_dtypes.finfo(dtype).smallest_normal)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_limits_of_a_chain(dtype: np.dtype[Any]) -> None:
    """Channels: free, weight or bias near the top, a later weight near the top or bottom, a weight near the bottom."""
    top, low = largest(dtype), smallest(dtype)
    w1 = [1, top / 4, 1, 1, 1, low * 4, 1]
    b1 = [1, 1, top / 8, 1, 1, 1, 0]
    w2 = [1, 1, 1, top / 2, low * 2, 1, 0]
    up = [1 / 64] * 7
    assert exponents(chain(w1, b1, w2, dtype), [*up, 1]) == [6, 2, 3, 6, 1, 6, 6]
    down = [64] * 7
    assert exponents(chain(w1, b1, w2, dtype), [*down, 1]) == [-6, -6, -6, -1, -6, -2, -6]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_subnormal_numbers_may_grow_but_not_shrink(dtype: np.dtype[Any]) -> None:
    tiny = smallest(dtype) / 2
    model = chain([tiny, tiny, 1, 1], [0, 0, 0, 0], [1, 1, tiny, tiny], dtype)
    assert exponents(model, [1 / 8, 8, 1 / 8, 8, 1]) == [3, 0, 0, -3]


def test_what_is_not_finite_limits_nothing() -> None:
    model = chain([np.inf, np.nan, 1], [0, 0, 0], [1, 1, np.inf], HALF)
    assert exponents(model, [1 / 8, 1 / 8, 1 / 8, 1]) == [3, 3, 3]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), dtype=st.sampled_from(DTYPES))
def test_every_bit_survives_random_bits(seed: int, dtype: np.dtype[Any]) -> None:
    """Weights of random bits (any exponent, subnormals too) in three layers, random scales: there and back again."""
    random = np.random.default_rng(seed)

    def bits(*shape: int) -> NDArray[Any]:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        raw = random.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(unsigned).reshape(shape)
        values = raw.view(dtype)
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(values), values, np.ones((), dtype))

    constants = {"w1": bits(4, 2, 1, 1), "b1": bits(4), "w2": bits(6, 4, 1, 1), "b2": bits(6), "w3": bits(2, 6, 1, 1)}
    body = "a = Conv(x, w1, b1)   r = Relu(a)   b = Conv(r, w2, b2)   s = Relu(b)   z = Conv(s, w3)"
    elem_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    model = Model.open(network(body, {"x": (1, 2, 4, 4)}, constants, dtype=elem_type, opset=22))
    found, scales = wanted(model, np.exp2(random.uniform(-9, 9, 12)))
    limited = powers_of_two(model, found, scales)
    before, after = np.rint(np.log2(scales.of_slot)), np.log2(limited.of_slot)
    assert (np.abs(after) <= np.abs(before)).all()
    assert (after * before >= 0).all()
    there = apply_edits(model, found.edits, limited.of_slot).model
    again = trace(read_graph(there, found_shapes(there)))
    back = apply_edits(there, again.edits, 1 / limited.of_slot).model
    assert back.digest() == model.digest()


def test_without_limits_bits_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail."""
    monkeypatch.setattr(power_of_two, "all_bits_kept", lambda model, edits, groups, wanted: (groups.at(wanted), []))
    with pytest.raises((AssertionError, onnxnorm.ModelError)):
        test_every_bit_survives_random_bits.hypothesis.inner_test(0, HALF)  # type: ignore[attr-defined]


def test_large_constants_are_limited_row_by_row() -> None:
    """A weight of several chunks, with one number out of range in the last."""
    w1 = np.ones((2048, 600, 1, 1), np.float32)
    w1[2047, 599] = largest(np.dtype(np.float32)) / 2
    w2 = np.ones((1, 2048, 1, 1), np.float32)
    body = "a = Conv(x, w1)   r = Relu(a)   z = Conv(r, w2)"
    model = Model.open(network(body, {"x": (1, 600, 1, 1)}, {"w1": w1, "w2": w2}))
    assert len(list(model.tensor_data[0].chunks())) > 1
    assert exponents(model, [1 / 16] * 2049) == [4] * 2047 + [1]


# --- what is said --------------------------------------------------------------------------------------------------


def limited_rewriting(tmp_path: Path) -> tuple[Path, Path]:
    """A float16 model in a file, and statistics on ones: means 1 and 16; the second filter's weight may be doubled."""
    proto = chain([1, 30000], [0, -29984], [1, 1], HALF).to_proto()
    del proto.graph.input[:]
    proto.graph.input.append(onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT16, ("N", 1, 4, 4)))
    onnx.save(proto, tmp_path / "model.onnx")
    x = np.ones((2, 1, 4, 4), np.float16)
    onnxnorm.calibrate(tmp_path / "model.onnx", x).save(tmp_path / "stats.safetensors")
    return tmp_path / "model.onnx", tmp_path / "stats.safetensors"


def test_limited_filters_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, stats = limited_rewriting(tmp_path)
    words = ["onnxnorm", "rewrite", str(model), "--stats", str(stats), "-o", str(tmp_path / "out.onnx")]
    words += ["--target", "64", "--power-of-two"]
    told = []
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code
        told.append(capsys.readouterr().out)
    assert "1 filters have a scale nearer to 1" in told[0]
    assert "0.71 to 1.41" in told[0]
    found = json.loads(told[1])
    assert found["limited"] == 1
    assert found["layers"][0]["limited"] == [1]
    assert found["layers"][0]["scale"] == {"min": 2.0, "median": 33.0, "max": 64.0}
    assert found["verification"]["bit_identical"]


def test_exact_scales_that_would_overflow_are_limited(tmp_path: Path) -> None:
    model, stats = limited_rewriting(tmp_path)
    done = onnxnorm.rewrite(model, stats, target=64.0)
    assert done.rewriting.scales.limited > 0
    assert done.verification is not None
    assert done.verification.same


def test_rounding_to_half_precision_is_reported(tmp_path: Path) -> None:
    proto = chain(rand(64) + 3, rand(64), rand(64), HALF).to_proto()
    x = np.abs(rand(8, 1, 4, 4, dtype=np.float16))
    model = Model.open(proto)
    statistics = calibrate_model(model, {"x": x[:1]}, CalibrationOptions(provider=RUNTIME.provider))

    def rounding(rewriting: Rewriting) -> float:
        assert rewriting.rounding.worst is not None
        return rewriting.rounding.worst[1]

    exact = rounding(rewrite_model(model, statistics))
    assert 2.0**-13 < exact <= 2.0**-11
    assert rounding(rewrite_model(model, statistics, ScaleOptions(power_of_two=True))) == 0.0
