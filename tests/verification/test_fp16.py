"""FP16 headroom: ranges are exact, every value is really rounded, and a network that overflows is seen to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from typer.testing import CliRunner

import onnxnorm
from onnxnorm import api
from onnxnorm.cli.app import app
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Runtime
from onnxnorm.verification.fp16 import LARGEST, ConstantRange, Fp16
from onnxnorm.verification.fp16_model import ranges_of, rounding
from onnxnorm.verification.headroom import HeadroomMeter
from tests.helpers.graphs import Array, between, feeds, model, rand

CPU = Runtime("cpu", 1)


def headroom(original: onnx.ModelProto, rewritten: onnx.ModelProto | None = None, *fed: dict[str, Array]) -> Fp16:
    meter = HeadroomMeter(Model.open(original), Model.open(rewritten or original), CPU)
    assert len(list(meter.watching(fed or [feeds(original)]))) == max(1, len(fed))
    return meter.result()


def half(proto: onnx.ModelProto, fed: dict[str, Array]) -> dict[str, Array]:
    opened = Model.open(proto)
    graph = read_graph(opened, {name: array.shape for name, array in fed.items()})
    return CPU.session(rounding(opened, graph)).run(fed)


def f32(values: Any) -> Array:
    return np.asarray(values, np.float32)


def loud(gain: float) -> onnx.ModelProto:
    """Two convolutions: the first `gain` times louder than the second needs."""
    constants = {"w1": rand(8, 3, 3, 3) * np.float32(gain), "w2": rand(4, 8, 3, 3, seed=1) / np.float32(gain)}
    body = "a = Conv(x, w1) \n r = Relu(a) \n p = MaxPool<kernel_shape=[2, 2]>(r) \n z = Conv(p, w2)"
    return model(body, {"x": ("N", 3, 12, 12)}, constants)


@pytest.mark.parametrize("size", [5, (1 << 20) + 3])
def test_a_constant_is_counted_element_by_element(size: int) -> None:
    values = np.ones(size, np.float32)
    values[:5] = [0, -1e-6, 2.0**-14, 1e5, -1e-9]
    values[-1:] = np.float32(-1e-9)
    assert ConstantRange.of(values) == ConstantRange(
        1e5, float(np.float32(1e-9)), size, 1, 2 + (size > 5), 1 + (size > 5), 1
    )
    assert ConstantRange.of(np.zeros((2, 0), np.float32)) == ConstantRange(0.0, 0.0, 0, 0, 0, 0)
    assert ConstantRange.of(np.asarray([0.5], ml_dtypes.bfloat16)).largest == 0.5


@pytest.mark.parametrize("opset", [13, 21])
def test_the_largest_magnitude_of_every_value_is_that_of_the_raw_activations(opset: int) -> None:
    body = "b = Relu(a) \n c = Softmax(b) \n shape = Shape(c) \n d = Mul(c, k)"
    proto = between(body.replace("b =", "q =").replace("(b)", "(q)") + " \n b = Identity(d)", constants={"k": rand(1)},
                    opset=opset, batch="N")  # fmt: skip
    fed = [feeds(proto, seed=seed, N=count) for seed, count in ((1, 3), (2, 1))]
    names = ["x", "a", "q", "c", "d", "b", "z"]
    raw: dict[str, float] = {"x": max(float(np.abs(feed["x"]).max()) for feed in fed)}
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[1:-1])
    for feed in fed:
        for name, array in CPU.session(tapped, optimize=False).run(feed).items():
            raw[name] = max(raw.get(name, 0.0), float(np.abs(array).max()))
    found = headroom(proto, None, *fed).original.values
    assert found == {name: pytest.approx(raw[name], rel=1e-5) for name in names}


def test_every_value_is_rounded_to_float16_and_nothing_in_between_is_skipped() -> None:
    constants = {"k": rand(4, 1, 1), "m": rand(4, 1, 1, seed=1)}
    proto = model("a = Mul(x, k) \n b = Add(a, m) \n c = Relu(b) \n z = Mul(c, c)", {"x": ("N", 4, 5, 5)}, constants)
    fed = feeds(proto)
    x, k, m = (array.astype(np.float16) for array in (fed["x"], constants["k"], constants["m"]))
    expected = np.maximum(x * k + m, np.float16(0))
    np.testing.assert_array_equal(half(proto, fed)["z"], (expected * expected).astype(np.float32))


def test_subnormal_and_overflowing_results_are_those_of_float16() -> None:
    proto = model("a = Mul(x, x) \n z = Mul(a, k)", {"x": (1, 6)}, {"k": f32([0.5])})
    x = f32([[300.0, 1e-3, 1e-4, 2.0, 255.0, -300.0]])
    got = half(proto, {"x": x})["z"]
    with np.errstate(over="ignore", under="ignore"):
        h = x.astype(np.float16)
        np.testing.assert_array_equal(got, (h * h * np.float16(0.5)).astype(np.float32))
    assert np.isinf(got[0, [0, 5]]).all()


def test_what_the_converter_keeps_in_float32_keeps_its_constants() -> None:
    scales = f32([1, 1, 4 / 3, 4 / 3])
    proto = between('b = Resize<mode="nearest">(a, r, s)', (1, 2, 6, 6), {"r": np.empty(0, np.float32), "s": scales})
    opened = Model.open(proto)
    rounded = rounding(opened, read_graph(opened, {"x": (1, 3, 6, 6)}))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    np.testing.assert_array_equal(values["s"], scales)
    assert (values["w_a"] == values["w_a"].astype(np.float16)).all()
    assert half(proto, feeds(proto))["z"].shape == (1, 3, 8, 8)


def test_constant_nodes_are_rounded_and_counted_like_initializers() -> None:
    inside = model("z = Mul(x, k)", {"x": (1, 4)}, {"k": f32([1 / 3, 1e-5, 0, 1])})
    tensor = inside.graph.initializer.pop()
    inside.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["k"], value=tensor))
    found = headroom(inside).original
    assert found.constants["k"].subnormal == 1
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(half(inside, {"x": x})["z"][0, 0], np.float32(np.float16(1 / 3)))


def test_a_network_that_overflows_is_told_from_its_quiet_version() -> None:
    found = headroom(loud(1e4), loud(1.0), {"x": rand(2, 3, 12, 12)})
    assert set(found.original.overflowing) == {"a", "r", "p"}
    assert found.original.largest == pytest.approx(found.rewritten.values["a"] * 1e4, rel=1e-3)
    assert not found.rewritten.overflowing
    assert found.original.error is not None
    assert found.rewritten.error is not None
    assert found.original.error.not_finite > 0.5
    assert found.rewritten.error.not_finite == 0
    assert 1e-5 < found.rewritten.error.relative_rms_error < 1e-2
    assert found.original.constants["w2"].subnormal_share > 0.2
    assert found.rewritten.constants["w2"].subnormal_share < 0.01


def test_a_quiet_value_is_subnormal_as_a_whole() -> None:
    found = headroom(loud(1e-6), None, {"x": rand(2, 3, 12, 12)}).original
    assert set(found.subnormal) == {"a", "r", "p"} - set(found.overflowing)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_models_are_measured_and_not_converted(dtype: type) -> None:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = model("a = Mul(x, k) \n z = Relu(a)", {"x": (1, 2)}, {"k": rand(2).astype(dtype)}, dtype=kind)
    found = headroom(proto).original
    assert set(found.values) == {"x", "a", "z"}
    assert found.not_run is not None
    assert "only float32 models" in found.not_run
    assert found.outputs == {}
    assert found.constants["k"].largest == float(np.abs(rand(2).astype(dtype)).max())


def test_an_activation_that_is_not_a_number_is_infinite() -> None:
    proto = model("a = Sqrt(x) \n z = Relu(a)", {"x": (1, 2)})
    assert headroom(proto, None, {"x": f32([[-1, -1]])}).original.values["a"] == np.inf


def test_scaled_outputs_are_compared_in_their_own_scale() -> None:
    one = model("z = Conv(x, w)", {"x": ("N", 3, 4, 4)}, {"w": rand(2, 3, 1, 1)})
    scale = np.asarray([1.0, 1024.0]).reshape(1, 2, 1, 1)
    two = model("z = Conv(x, w)", {"x": ("N", 3, 4, 4)}, {"w": rand(2, 3, 1, 1) * scale[0, :, None].astype(np.float32)})
    meter = HeadroomMeter(Model.open(one), Model.open(two), CPU, {"z": scale})
    list(meter.watching([{"x": rand(2, 3, 4, 4)}]))
    found = meter.result()
    assert found.rewritten.outputs == found.original.outputs


def test_probe_names_do_not_meet_the_models_own() -> None:
    proto = model("onnxnorm_0 = Relu(x) \n z = Relu(onnxnorm_0)", {"x": (1, 2)})
    opened = Model.open(proto)
    graph = read_graph(opened, {"x": (1, 2)})
    probe = ranges_of(opened, graph, graph.float_values())
    assert sorted(probe.values.values()) == ["onnxnorm_0", "x", "z"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("fp16")
    paths = (folder / "loud.onnx", folder / "quiet.onnx")
    for path, gain in zip(paths, (1e4, 1.0), strict=True):
        onnx.save(loud(gain), path)
    return paths


def ran(*words: object) -> Any:
    return CliRunner().invoke(app, ["verify", *map(str, words)])


def test_the_command_prints_tables(files: tuple[Path, Path]) -> None:
    done = ran(*files, "--fp16", "--provider", "cpu")
    assert done.exit_code == 0, done.output
    for text in ("headroom", "values that overflow", "3 of 5", "0 of 5", "infinite", "largest activations", "w2"):
        assert text in done.stdout
    assert "headroom" not in ran(*files).stdout


def test_the_command_prints_json(files: tuple[Path, Path]) -> None:
    done = ran(*files, "--fp16", "--json", "--provider", "cpu")
    found = json.loads(done.stdout)["fp16"]
    assert found["largest"] == LARGEST
    assert found["original"]["overflowing_values"] == ["a", "r", "p"]
    assert found["original"]["outputs"]["z"]["relative_rms_error"] is None  # infinite
    assert found["rewritten"]["outputs"]["z"]["not_finite"] == 0
    assert {item["name"] for item in found["values"]} == {"x", "a", "r", "p", "z"}
    assert {item["name"] for item in found["constants"]} == {"w1", "w2"}
    assert "fp16" not in json.loads(ran(*files, "--json").stdout)


def test_the_function_takes_arrays_and_counts_their_samples(files: tuple[Path, Path]) -> None:
    found = api.verify(*files, rand(5, 3, 12, 12), fp16=True, batch_size=2, provider="cpu")
    assert found.samples == 5
    assert found.fp16 is not None
    assert found.fp16.original.overflowing
    assert found.fp16.original.values["x"] == pytest.approx(float(np.abs(rand(5, 3, 12, 12)).max()))


def test_float16_inputs_of_a_model_are_measured() -> None:
    proto = between("b = Relu(a)", dtype=np.float16)
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    fed = feeds(proto)
    assert headroom(proto, None, fed).original.values["x"] == float(np.abs(fed["x"]).max())


@pytest.mark.parametrize("home", ["initializer", "node"])
def test_constants_of_rank_0(home: str) -> None:
    """A third of real networks have one; the converter to float16 takes no array without axes."""
    proto = model(
        "a = Conv(x, w) m = Mul(a, k) z = Relu(m)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3), "k": np.float32(0.3)}
    )
    if home == "node":
        (tensor,) = (t for t in proto.graph.initializer if t.name == "k")
        node = onnx.helper.make_node("Constant", [], ["k"], value=tensor)
        proto.graph.initializer.remove(tensor)
        proto.graph.node.insert(0, node)
    found = onnxnorm.verify(proto, proto, fp16=True).fp16
    assert found is not None
    assert found.original.not_run is None
    assert found.original.error is not None
    assert 0 < found.original.error.max_relative_error < 2.0**-8
