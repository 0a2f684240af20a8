"""The probe: what it measures, what it drops, and that it leaves the model alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnxnorm
from onnxnorm.calibration.build import make_probe, sites_of
from onnxnorm.calibration.joint import Outputs
from onnxnorm.calibration.probe import Probe
from onnxnorm.calibration.taps import SMALL, WINDOW
from onnxnorm.errors import DataError, ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import find_layers, trace
from onnxnorm.scaling.filters import Site
from onnxnorm.statistics import Value
from tests.helpers import oracle
from tests.helpers.graphs import feeds, model, rand

CPU = Runtime("cpu", 1)
HEAD = "f = Flatten(p) g = Gemm(f, v, c) z = Softmax(g)"
WEIGHTS = {
    "w": rand(4, 3, 3, 3),
    "b": rand(4, seed=1),
    "u": rand(4, 4, 3, 3, seed=2),
    "v": rand(4 * 3 * 3, 5, seed=3),
    "c": rand(5, seed=4),
}
BODY = "a = Conv(x, w, b) r = Relu(a) d = Conv(r, u) s = Relu(d) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s)"


def probe_of(proto: onnx.ModelProto | Path, also: tuple[str, ...] = (), *, one_size: bool = False) -> Probe:
    opened = Model.open(proto)
    graph = read_graph(opened, sample_shapes(input_specs(opened), (10, 10)))
    sites = sites_of(find_layers(trace(graph)), also)
    return make_probe(opened, graph, sites, maxima="max" in also, histograms="p99.9" in also, one_size=one_size)


def vgg() -> onnx.ModelProto:
    return model(BODY + HEAD, {"x": ("n", 3, 10, 10)}, WEIGHTS)


def test_it_keeps_what_is_measured_and_drops_the_head() -> None:
    probe = probe_of(vgg(), ("max",))
    nodes = probe.proto.graph.node
    assert [node.op_type for node in nodes if node.op_type in {"Conv", "Relu"}] == ["Conv", "Relu", "Conv", "Relu"]
    assert not {node.op_type for node in nodes} & {"MaxPool", "Gemm", "Softmax"}
    assert {tensor.name for tensor in probe.proto.graph.initializer} == {"w", "b", "u"}
    assert [tap.site.value for tap in probe.taps] == ["r", "s"]
    assert [value.name for value in probe.proto.graph.output] == [probe.joint.name]
    assert set(probe.joint.places) == {name for tap in probe.taps for name in (tap.mean, tap.largest)}


def test_a_head_that_cannot_run_is_not_run() -> None:
    poisoned = vgg()
    poisoned.graph.initializer[3].CopyFrom(numpy_helper.from_array(rand(7, 5), "v"))  # does not fit
    fed = feeds(poisoned, n=2)
    with pytest.raises(ModelError):
        CPU.session(Model.open(poisoned)).run(fed)
    probe = probe_of(poisoned)
    assert len(Outputs(CPU.session(probe.proto).run(fed), probe.joint)) == 2


def test_maxima_are_measured_on_request() -> None:
    assert not {tap.largest for tap in probe_of(vgg()).taps} - {""}
    assert len(probe_of(vgg(), ("max",)).joint.places) == 4
    assert not any("Max" in node.op_type for node in probe_of(vgg()).proto.graph.node if node.name.startswith("onnx"))


def test_only_numbers_per_image_and_channel_leave_the_runtime() -> None:
    results = CPU.session(probe_of(vgg()).proto).run(feeds(vgg(), n=3))
    assert [array.shape for array in results.values()] == [(3, 2 * 4)]


def test_for_percentiles_the_values_themselves_leave_it_once() -> None:
    probe = probe_of(vgg(), ("rms", "p99.9"))
    assert [tap.raw for tap in probe.taps] == ["r", "s", "", ""]
    assert not {node.op_type for node in probe.proto.graph.node} & {"Identity", "Cast"}
    fed = feeds(vgg(), n=3)
    results, raw = CPU.session(probe.proto).run(fed), oracle.activations(vgg(), fed, ["r", "s"])
    for name, array in raw.items():
        np.testing.assert_array_equal(results[name], array)
    spreads = probe.spreads({"r": (3, 4, 8, 8), "s": (3, 4, 6, 6)}, 3)
    found = probe.moments(results, ["one", "two"], 3, spreads)  # the third only fills the batch
    for name, array in raw.items():
        counted = found[Value(name, "mean")].histogram
        assert counted is not None
        assert counted.positions == array[:2, 0].size
        np.testing.assert_array_equal(counted.zeros, (array[:2] == 0).sum(axis=(0, 2, 3)))
        assert found[Value(name, "mean_square")].histogram is None


def test_an_input_of_the_head_alone_is_not_asked_for() -> None:
    proto = model(BODY + "f = Flatten(p) z = Mul(f, gate)", {"x": ("n", 3, 10, 10), "gate": ("n", 36)}, WEIGHTS)
    assert [value.name for value in probe_of(proto).proto.graph.input] == ["x"]


def test_the_model_is_left_alone() -> None:
    proto = vgg()
    before = proto.SerializeToString(deterministic=True)
    opened = Model.open(proto)
    digest = opened.digest()
    probe_of(proto)
    assert proto.SerializeToString(deterministic=True) == before
    assert opened.digest() == digest


@pytest.mark.parametrize(("opset", "form"), [(7, "attribute"), (13, "attribute"), (17, "attribute"), (18, "input")])
def test_reductions_in_the_form_of_the_opset(opset: int, form: str) -> None:
    body = "a = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(a) z = Relu(t)"
    proto = model(body, {"x": ("n", 3, 10, 10)}, {"w": WEIGHTS["w"]}, opset=opset)
    probe = probe_of(proto, ("max",))
    reductions = [node for node in probe.proto.graph.node if node.op_type.startswith("Reduce")]
    assert reductions
    assert all((len(node.input) == 2) == (form == "input") for node in reductions)
    fed = feeds(proto, n=2)
    results = Outputs(CPU.session(probe.proto).run(fed), probe.joint)
    raw = CPU.session(Model.open(proto)).run(fed)["z"]
    np.testing.assert_allclose(results[probe.taps[0].mean], raw.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(results[probe.taps[0].largest], raw.max(axis=(1, 2)))


def test_pooling_where_channels_come_first() -> None:
    ops = [node.op_type for node in probe_of(vgg(), ("max",)).proto.graph.node]
    assert ops.count("GlobalAveragePool") == ops.count("GlobalMaxPool") == 2
    assert not any(op.startswith("Reduce") for op in ops)


@pytest.mark.parametrize(("one_size", "windows"), [(False, 2), (True, 0)])
def test_small_maps_need_no_windows_if_all_samples_are_of_one_size(one_size: bool, windows: int) -> None:
    probe = probe_of(vgg(), one_size=one_size)
    assert [node.op_type for node in probe.proto.graph.node].count("AveragePool") == windows
    fed = feeds(vgg(), n=3)
    spreads = probe.spreads({"r": (3, 4, 8, 8), "s": (3, 4, 6, 6)}, 3)
    found = probe.moments(CPU.session(probe.proto).run(fed), "abc", 3, spreads)
    for name, raw in oracle.activations(vgg(), fed, ["r", "s"]).items():
        np.testing.assert_allclose(
            found[Value(name, "mean")].mean, raw.mean(axis=(0, 2, 3), dtype=np.float64), rtol=3e-6
        )


def test_maps_of_many_positions_keep_their_windows() -> None:
    side = int(SMALL**0.5)
    for size, windows in ((side, 0), (side + 1, 1)):
        proto = model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 1, size, size)}, {"w": np.ones((2, 1, 1, 1), "f")})
        ops = [node.op_type for node in probe_of(proto, one_size=True).proto.graph.node]
        assert ops.count("AveragePool") == windows


@pytest.mark.parametrize("side", [1, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW + 3])
def test_the_padding_of_windows_is_taken_out_again(side: int) -> None:
    proto = model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 1, side, 2 * side)}, {"w": np.ones((2, 1, 1, 1), "f")})
    probe = probe_of(proto)
    ones = np.ones((2, 1, side, 2 * side), np.float32)
    shapes = {"z": (2, 2, side, 2 * side)}
    moments = probe.moments(CPU.session(probe.proto).run({"x": ones}), ["one", "two"], 2, probe.spreads(shapes, 2))
    found = moments[Value("z", "mean")]
    np.testing.assert_allclose(found.mean, [1, 1], rtol=1e-6)
    assert (found.images, found.weight) == (2, 2 * 2 * side * side)


def test_the_samples_that_fill_a_batch_do_not_count() -> None:
    proto = vgg()
    probe = probe_of(proto)
    shapes = {"r": (4, 4, 8, 8), "s": (4, 4, 6, 6)}
    fed = feeds(proto, n=4)
    fed["x"][2:] = np.nan
    found = probe.moments(CPU.session(probe.proto).run(fed), ["one", "two"], 4, probe.spreads(shapes, 4))
    assert {moments.images for moments in found.values()} == {2}
    with pytest.raises(DataError, match="three makes activation 'r' infinite or not a number"):
        probe.moments(CPU.session(probe.proto).run(fed), ["one", "two", "three", "four"], 4, probe.spreads(shapes, 4))


def test_numbers_of_which_the_sum_is_not_finite() -> None:
    proto = model("y = MatMul(x, w) z = Relu(y)", {"x": ("n", 2)}, {"w": np.eye(2)}, dtype=onnx.TensorProto.DOUBLE)
    with pytest.raises(DataError, match="activations are so large that their sum is beyond float64"):
        onnxnorm.calibrate(proto, np.full((8, 2), 1e308), filters="all", provider="cpu")


def test_nothing_to_measure() -> None:
    with pytest.raises(ModelError, match="no convolutions to normalize; with --filters all, dense layers count too"):
        probe_of(model("z = MatMul(x, w)", {"x": ("n", 3)}, {"w": rand(3, 4)}))


def test_a_value_whose_first_axis_is_not_the_batch() -> None:
    body = "q = Reshape(x, s) a = Conv(q, w) z = Relu(a)"
    proto = model(body, {"x": (2, 3, 10, 10)}, {"w": rand(4, 6, 3, 3), "s": [1, 6, 10, 10]})
    probe = probe_of(proto)
    results = CPU.session(probe.proto).run(feeds(proto))
    with pytest.raises(ModelError, match="value 'z' has 1 rows for 2 samples: its first axis is not the batch"):
        probe.moments(results, ["one", "two"], 2, probe.spreads({"z": (1, 4, 8, 8)}, 2))


def test_two_rows_of_a_value_per_sample() -> None:
    """Windows folded into the batch: the mean of an image is that over all its rows."""
    body = "q = Reshape(x, s) a = Conv(q, w, b) z = Relu(a)"
    proto = model(body, {"x": ("n", 6, 10, 10)}, {**WEIGHTS, "s": [-1, 3, 10, 10]})
    probe = probe_of(proto)
    fed = feeds(proto, n=2)
    found = probe.moments(CPU.session(probe.proto).run(fed), ["one", "two"], 2, probe.spreads({"z": (4, 4, 8, 8)}, 2))
    raw = CPU.session(Model.open(proto)).run(fed)["z"].astype(np.float64)
    (moments,) = found.values()
    assert (moments.images, moments.weight) == (2, 2 * 2 * 64)
    np.testing.assert_allclose(moments.mean, raw.mean(axis=(0, 2, 3)), rtol=1e-6)


def test_weights_in_their_file_are_not_copied(tmp_path: Path) -> None:
    proto = vgg()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(rand(400, 3, 3, 3), "w"))
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(rand(400), "b"))
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(rand(4, 400, 3, 3), "u"))
    onnx.save(proto, tmp_path / "model.onnx")
    probe = probe_of(tmp_path / "model.onnx")
    assert probe.folder == tmp_path
    assert len(probe.proto.SerializeToString()) < 10_000
    external = [tensor for tensor in probe.proto.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert {tensor.name for tensor in external} == {"w", "u"}
    fed = feeds(proto, n=2)
    here = CPU.session(probe.proto, probe.folder).run(fed)
    there = CPU.session(probe_of(proto).proto).run(fed)
    assert all(np.array_equal(here[name], array) for name, array in there.items())


def test_layers_that_share_a_site_are_measured_once() -> None:
    body = "a = Conv(x, u)  b = Conv(x, v)  c = Add(a, b)  r = Relu(c)  z = Conv(r, w)"
    weights = {"u": rand(4, 3, 3, 3), "v": rand(4, 3, 3, 3), "w": rand(2, 4, 1, 1)}
    opened = Model.open(model(body, {"x": ("N", 3, 8, 8)}, weights))
    layers = find_layers(trace(read_graph(opened, {"x": (1, 3, 8, 8)})))
    own = (Site("r", 1, "mean"), Site("z", 1, "mean_abs"))
    assert sites_of(layers) == own
    assert sites_of(layers, ["max", "rms", "p99.9"]) == (*own, Site("r", 1, "mean_square"), Site("z", 1, "mean_square"))


def test_names_of_the_probe_are_free_ones() -> None:
    """Values and nodes of the model that are called as the probe's own would be."""
    body, weights = "a = Conv(x, w) {0} = Relu(a) z = Conv({0}, v)", {"w": rand(5, 3, 3, 3), "v": rand(2, 5, 1, 1)}
    proto, plain = (model(body.format(name), {"x": ("n", 3, 8, 8)}, weights) for name in ("onnxnorm_mean_0", "r"))
    proto.graph.node[0].name = "onnxnorm_max_1"
    data = rand(4, 3, 8, 8)
    one, other = (onnxnorm.calibrate(item, data, provider="cpu") for item in (proto, plain))
    for mine, theirs in zip(one.values.values(), other.values.values(), strict=True):
        np.testing.assert_array_equal(mine.mean, theirs.mean)


def test_a_value_without_rows_is_not_measured_on_that_image() -> None:
    """As behind a detector: rows are what NonZero finds, one image at a time, and some images have none."""
    body = """
    f = NonZero(x) i = Transpose(f) c = Cast<to=1>(i) d = Unsqueeze(c, axes)
    a = Conv(d, w) r = Relu(a) z = Conv(r, v)
    """
    constants = {"axes": np.array([2, 3]), "w": rand(5, 4, 1, 1), "v": rand(2, 5, 1, 1)}
    proto = model(body, {"x": (1, 1, 3, 3)}, constants)
    images = np.zeros((4, 1, 3, 3), np.float32)
    images[1, 0, 1, 2] = images[3, 0, :2, 0] = 1
    statistics = onnxnorm.calibrate(proto, images, batch_size=1, provider="cpu")
    (value, moments), *_ = statistics.values.items()
    assert moments.images == 2
    found = np.concatenate([np.argwhere(image[None]) for image in images]).astype(np.float64)
    weights = constants["w"].reshape(5, 4)
    act = np.abs if value.measure == "mean_abs" else lambda a: np.maximum(a, 0)
    np.testing.assert_allclose(moments.mean, act(found @ weights.T).mean(axis=0), rtol=1e-6)
    none = onnxnorm.calibrate(proto, images[[0, 2]], batch_size=1, provider="cpu")
    rewritten = onnxnorm.rewrite(proto, none, provider="cpu", verify=False)
    assert rewritten.reach.normalized == 0


@pytest.mark.parametrize("claim", [(1, 5, 16, 16), (-1, 5, -1, -1)])
def test_what_the_file_claims_about_shapes_is_not_believed(claim: tuple[int, ...]) -> None:
    """Behind an operator that shape inference does not know, the claim may be of another size, or of none."""
    weights = {"w": rand(5, 3, 3, 3), "v": rand(5, 5, 3, 3, seed=1), "u": rand(2, 5, 1, 1, seed=2)}
    proto = model(
        "a = Conv(x, w) q = Relu(a) c = Conv(q, v) r = Relu(c) z = Conv(r, u)", {"x": ("n", 3, "h", "w")}, weights
    )
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "QuickGelu", "com.microsoft"
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    del proto.graph.value_info[:]
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("q", TensorProto.FLOAT, claim))
    x = rand(4, 3, 40, 24)
    statistics = onnxnorm.calibrate(proto, x, provider="cpu")
    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    del seen.graph.value_info[:]
    (value,) = (value for value in statistics.values if value.name in {"r", "c"})
    seen.graph.output.append(onnx.helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None))
    expected = CPU.session(seen).run({"x": x})[value.name].astype(np.float64)
    expected = np.abs(expected) if value.measure == "mean_abs" else expected
    moments = statistics.values[value]
    np.testing.assert_allclose(moments.mean, expected.mean(axis=(0, 2, 3)), rtol=1e-5)
    assert moments.weight == 4 * expected[0, 0].size
