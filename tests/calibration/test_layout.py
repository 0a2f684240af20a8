"""Where the kernels keep a value and when they compute it; and that what is measured is the same in every layout."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from onnxnorm.calibration.build import make_probe, sites_of
from onnxnorm.calibration.layout import blocked_values, measure_early
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe import Probe
from onnxnorm.calibration.step import prepare
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import find_layers, trace
from onnxnorm.statistics import Moments, Value
from tests.helpers import oracle
from tests.helpers.graphs import model, rand

CPU = Runtime("cpu", 1)
ULPS = 32 * float(np.finfo(np.float32).eps)  # sums of up to 1,024 positive numbers in float32, in any order
x86 = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="other processors have no blocked layout"
)


def deep(channels: int = 16) -> onnx.ModelProto:
    """Four convolutions, one behind the other; the last has no activation."""
    body = "a = Conv(x, w) r = Relu(a) b = Conv(r, v) s = Relu(b) c = Conv(s, v) t = Relu(c) z = Conv(t, v)"
    weights = {"w": rand(channels, 3, 1, 1), "v": rand(channels, channels, 1, 1, seed=1)}
    return model(body, {"x": ("n", 3, "h", "w")}, weights)


def read(proto: onnx.ModelProto, size: tuple[int, int] = (10, 10)) -> Graph:
    return read_graph(Model.open(proto), {"x": (1, 3, *size)})


def probe_of(proto: onnx.ModelProto, size: tuple[int, int], *, blocked: bool = True, one_size: bool = False) -> Probe:
    graph = read(proto, size)
    values = blocked_values(graph) if blocked else None
    return make_probe(Model.open(proto), graph, sites_of(find_layers(trace(graph))), one_size=one_size, blocked=values)


def order_of_running(proto: onnx.ModelProto, folder: Path) -> list[str]:
    """The names of a graph's nodes as ONNX Runtime runs them."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": rand(1, 3, 40, 40)})
    events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return [event["name"] for event in events if event["name"].endswith("_kernel_time")]


def _number(node: onnx.NodeProto) -> int:
    return int(node.name.split("_")[2])


def test_a_value_is_measured_before_the_next_layers_run(tmp_path: Path) -> None:
    names = order_of_running(probe_of(deep(), (40, 40)).proto, tmp_path)
    first = next(place for place, name in enumerate(names) if "mean_0" in name)
    last = max(place for place, name in enumerate(names) if "mean" not in name and not name.startswith("Reorder"))
    assert first < last


def test_in_the_usual_order_it_would_be_measured_last(tmp_path: Path) -> None:
    """What the order of the nodes is there for; if this fails, the runtime has become better at it."""
    built = probe_of(deep(), (40, 40))
    probe, joint = built.proto, built.joint.name
    rest = [node for node in probe.graph.node if not node.name.startswith("onnxnorm")]
    mine = [node for node in probe.graph.node if node.name.startswith("onnxnorm")]
    chains = sorted(mine, key=lambda node: (node.name == joint, 0 if node.name == joint else _number(node)))
    usual = onnx.GraphProto()
    usual.CopyFrom(probe.graph)
    del probe.graph.node[:]
    probe.graph.node.extend([*rest, *chains])
    names = order_of_running(probe, tmp_path)
    first = next(place for place, name in enumerate(names) if "mean_0" in name)
    measuring = ("mean", "Reorder", joint)
    layers = [place for place, name in enumerate(names) if not any(part in name for part in measuring)]
    assert first > max(layers)


def test_nodes_stay_in_topological_order() -> None:
    probe = probe_of(deep(17), (40, 40)).proto
    known = {value.name for value in probe.graph.input} | {tensor.name for tensor in probe.graph.initializer}
    for node in probe.graph.node:
        assert known.issuperset(name for name in node.input if name)
        known.update(node.output)
    measuring = [node.name.startswith("onnxnorm") for node in probe.graph.node]
    assert measuring == sorted(measuring)


def test_the_first_value_stands_last() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Relu", ["x"], ["a"], "one"),
        make("Abs", ["a"], ["m_a1"], "m_a1"),
        make("Abs", ["m_a1"], ["m_a2"], "m_a2"),
        make("Relu", ["a"], ["b"], "two"),
        make("Abs", ["b"], ["m_b"], "m_b"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    measure_early(graph, "m_")
    assert [node.name for node in graph.node] == ["one", "two", "m_b", "m_a1", "m_a2"]


@x86
@pytest.mark.parametrize(
    ("body", "blocked"),
    [
        ("a = Conv(x, w) z = Relu(a)", {"a", "z"}),
        ("a = Conv(x, w) b = BatchNormalization(a, s, o, o, s) z = Clip(b, zero)", {"a", "b", "z"}),
        ("a = Conv(x, w) b = Sigmoid(a) z = Mul(a, b)", {"a", "b", "z"}),
        ("a = Conv(x, w) b = HardSigmoid(a) z = Mul(b, a)", {"a", "z"}),
        ("a = Conv(x, w) b = Conv(x, v) z = Add(a, b)", {"a", "b", "z"}),
        ("a = Conv(x, w) b = Tanh(a) z = MaxPool<kernel_shape=[2,2]>(b)", {"a", "b", "z"}),
        ("a = Conv(x, w) b = Relu(a) c = Clip(a, zero) z = Add(b, c)", {"a", "b"}),  # two read a, so Clip is not folded
        ("a = Conv(x, w) b = Sigmoid(a) c = Conv(x, v) z = Mul(c, b)", {"a", "b", "c"}),
        ("a = Conv(x, w) z = Softplus(a)", {"a"}),
        ("a = Conv(x, w) b = Relu(a) z = Add(b, x)", {"a", "b"}),
        ("a = ConvTranspose(x, u) z = Relu(a)", set()),
        ("z = Relu(x)", set()),
    ],
)
def test_what_stays_in_blocks(body: str, blocked: set[str]) -> None:
    weights = {
        "w": rand(3, 3, 1, 1),
        "v": rand(3, 3, 1, 1),
        "u": rand(3, 3, 1, 1),
        "s": np.ones(3, np.float32),
        "o": np.zeros(3, np.float32),
        "zero": np.float32(0),
    }
    found = blocked_values(read(model(body, {"x": ("n", 3, "h", "w")}, weights)))
    assert found is not None
    assert set(found) == blocked


def test_other_processors_have_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert blocked_values(read(deep())) is None


def test_half_precision_is_not_kept_in_blocks() -> None:
    body = "h = Cast<to=10>(x) a = Conv(h, w) z = Relu(a)"
    proto = model(body, {"x": ("n", 3, "h", "w")}, {"w": rand(3, 3, 1, 1).astype(np.float16)})
    assert not blocked_values(read(proto))


def measured(proto: onnx.ModelProto, probe: Probe, x: NDArray[np.float32], names: list[str]) -> dict[str, Moments]:
    graph = read(proto, (x.shape[2], x.shape[3]))
    shapes = {name: (len(x), *shape[1:]) for name, shape in graph.shapes.items() if shape}
    spreads = probe.spreads(shapes, len(x))
    moments = probe.moments(CPU.session(probe.proto).run({"x": x}), [str(n) for n in range(len(x))], len(x), spreads)
    return {name: moments[Value(name, "mean_abs" if name == "z" else "mean")] for name in names}


@x86
@pytest.mark.parametrize("channels", [8, 16, 17, 40])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 7), (40, 33), (130, 70)])
@pytest.mark.parametrize("one_size", [False, True])
def test_means_are_those_of_the_raw_activations(channels: int, size: tuple[int, int], one_size: bool) -> None:
    """Channels that fill their blocks and that do not, small maps and large, magnitudes of two means."""
    proto, x = deep(channels), rand(2, 3, *size, seed=5)
    probe = probe_of(proto, size, one_size=one_size)
    assert next(tap for tap in probe.taps if tap.site.value == "z").signed
    raw = oracle.activations(proto, {"x": x}, ["r", "s", "t", "z"])
    for name, moments in measured(proto, probe, x, ["r", "s", "t", "z"]).items():
        expected = np.abs(raw[name].astype(np.float64)).mean(axis=(0, 2, 3))
        np.testing.assert_allclose(moments.mean, expected, rtol=ULPS)


@x86
def test_rows_are_summed_where_no_blocks_are() -> None:
    body = "a = Conv(x, w) r = Softplus(a) z = Conv(r, v)"
    proto = model(body, {"x": ("n", 3, "h", "w")}, {"w": rand(5, 3, 1, 1), "v": rand(2, 5, 1, 1)})
    probe, x = probe_of(proto, (100, 90)), rand(3, 3, 100, 90)
    assert next(tap.way for tap in probe.taps if tap.site.value == "r") == "reduce"
    raw = oracle.activations(proto, {"x": x}, ["r"])["r"].astype(np.float64)
    np.testing.assert_allclose(measured(proto, probe, x, ["r"])["r"].mean, raw.mean(axis=(0, 2, 3)), rtol=ULPS)


@x86
@pytest.mark.parametrize(("measure", "splits"), [((), True), (("max",), False)])
def test_a_maximum_needs_the_magnitudes(measure: tuple[str, ...], splits: bool) -> None:
    session = prepare(Model.open(deep()), {"x": (1, 3, 20, 20)}, CalibrationOptions(measure=measure), CPU)
    ops = [node.op_type for node in session.probe.proto.graph.node if node.name.startswith("onnxnorm")]
    assert ("Relu" in ops, "Abs" in ops) == (splits, not splits)
