"""Activations of measured convolutions stay inside a convolution, and change no number."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnxnorm
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.step import prepare
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime
from tests.helpers.graphs import model, rand
from tests.helpers.ranges import checked_links

x86 = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="other processors have no blocked layout"
)


def network(activation: str, channels: int = 16, extra: str = "") -> onnx.ModelProto:
    constants = {
        "w": rand(channels, 3, 3, 3),
        "bias": rand(channels, seed=1) * 3,
        "v": rand(channels, channels, 1, 1, seed=2),
        "zero": np.float32(0),
        "six": np.float32(1.5),
    }
    body = f"a = Conv(x, w, bias) r = {activation} {extra} z = Conv(r, v)"
    return model(body, {"x": ("n", 3, 12, 12)}, constants)


def optimized(proto: onnx.ModelProto, folder: Path, measure: tuple[str, ...] = ("range",)) -> list[str]:
    """The operators, with their activations, that ONNX Runtime makes of the probe of a model."""
    probe = prepare(Model.open(proto), {"x": (1, 3, 12, 12)}, CalibrationOptions(measure=measure), Runtime("cpu", 1))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(probe.probe.proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = []
    for node in onnx.load(folder / "optimized.onnx").graph.node:
        inside = [entry.s.decode() for entry in node.attribute if entry.name == "activation"]
        found.append("+".join([node.op_type, *inside]))
    return found


@x86
@pytest.mark.parametrize(
    ("activation", "fused"),
    [
        ("Relu(a)", "Conv+Relu"),
        ("Clip(a, zero, six)", "Conv+Clip"),
        ("LeakyRelu<alpha=0.1>(a)", "Conv+LeakyRelu"),
        ("HardSwish(a)", "Conv+HardSwish"),
    ],
)
@pytest.mark.parametrize("channels", [16, 24])
def test_activations_stay_inside(activation: str, fused: str, channels: int, tmp_path: Path) -> None:
    found = optimized(network(activation, channels), tmp_path)
    if fused == "Conv+Relu":  # which exists by itself too, and is cheaper where channels do not fill their blocks
        assert (fused in found) == (not channels % 16)
    else:
        assert fused in found
        assert fused.partition("+")[2] not in found


@x86
def test_a_negated_convolution_saves_the_negative(tmp_path: Path) -> None:
    """Of two convolutions the first one computes its negative; only the last needs another pass for it."""
    found = optimized(network("Relu(a)"), tmp_path)
    assert found.count("Conv") + found.count("Conv+Relu") == 4  # two of the network, and one by -1 behind each
    assert "Neg" not in found  # constants are folded


@x86
def test_what_others_read_too_is_not_negated(tmp_path: Path) -> None:
    found = optimized(network("Relu(a)", extra="y = Conv(a, v)"), tmp_path)
    assert "Conv+Relu" not in found
    assert "Relu" in found


@pytest.mark.parametrize(
    "activation", ["Relu(a)", "Clip(a, zero, six)", "LeakyRelu<alpha=0.1>(a)", "HardSwish(a)", "Sigmoid(a)"]
)
@pytest.mark.parametrize("channels", [16, 24])
@pytest.mark.parametrize("extra", ["", "y = Conv(a, v)", "y = Identity(r)"])
def test_ranges_are_right(activation: str, channels: int, extra: str) -> None:
    checked_links(network(activation, channels, extra), {"x": rand(5, 3, 12, 12, seed=4)}, rtol=1e-5)


def test_channels_that_are_never_positive() -> None:
    """The positive part of those is 0, which says nothing about their magnitude."""
    proto = network("Relu(a)")
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.linspace(-200, 200, 16, dtype=np.float32), "bias"))
    checked_links(proto, {"x": rand(5, 3, 12, 12, seed=4)}, rtol=1e-5)


def test_a_single_position_is_not_negated() -> None:
    """It is an output as it is, so it must have its own sign."""
    constants = {"w": rand(16, 16, 1, 1), "u": rand(16, 3, 1, 1, seed=3), "v": rand(2, 16, 1, 1, seed=2)}
    body = "c = Conv(x, u) g = GlobalAveragePool(c) a = Conv(g, w) r = Relu(a) z = Conv(r, v)"
    proto = model(body, {"x": ("n", 3, 12, 12)}, constants)
    checked_links(proto, {"x": rand(5, 3, 12, 12, seed=4)}, rtol=1e-5)


@pytest.mark.parametrize("activation", ["Relu(a)", "Clip(a, zero, six)", "LeakyRelu<alpha=0.1>(a)", "HardSwish(a)"])
def test_means_are_the_same_bits(activation: str) -> None:
    proto, x = network(activation), rand(5, 3, 12, 12, seed=4)
    plain = onnxnorm.calibrate(proto, x, provider="cpu")
    ranged = onnxnorm.calibrate(proto, x, provider="cpu", measure=("range",))
    for value, moments in plain.means.items():
        np.testing.assert_array_equal(moments.mean, ranged.means[value].mean)


@pytest.mark.parametrize("shape", [("n", 3, 9, 9), ("n", 3, "h", "w")])
def test_channels_that_come_last(shape: tuple[int | str, ...]) -> None:
    constants = {"w": rand(6, 3, 1, 1), "m": rand(6, 5, seed=1), "n": rand(5, 2, seed=2)}
    body = "a = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(a) b = MatMul(t, m) s = Sin(b) z = MatMul(s, n)"
    checked_links(model(body, {"x": shape}, constants), {"x": rand(5, 3, 9, 9)}, rtol=1e-5)
