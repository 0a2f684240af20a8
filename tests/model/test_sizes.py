"""Sizes that a model leaves open: what is assumed, which others it allows, and what depends on them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.shapes import assumed_shapes, read_graph
from onnxnorm.runtime import Runtime
from tests.helpers.graphs import Shape, model, rand


def graph_of(body: str, shape: Shape, known: tuple[int, ...], **constants: object) -> Graph:
    return read_graph(Model.open(model(body, {"x": shape}, constants)), {"x": known})


def test_axes_of_open_size_are_known() -> None:
    graph = graph_of("y = Flatten<axis=2>(x) \n z = Relu(y)", ("n", 3, "h", "w"), (1, 3, 8, 6))
    assert graph.batched == {"x": (0,), "y": (0,), "z": (0,)}
    assert graph.varying["x"] == (0, 2, 3)
    assert graph.varying["y"] == graph.varying["z"] == (0, 1)
    assert [resized.shapes["x"] for resized in graph.resized] == [(2, 3, 8, 6), (1, 3, 40, 38), (1, 3, 40, 6)]


def test_fixed_sizes_have_no_others() -> None:
    graph = graph_of("z = Relu(x)", (2, 3, 8, 6), (2, 3, 8, 6))
    assert (graph.resized, graph.varying, graph.unsteady) == ((), {}, frozenset())


def test_sizes_that_32_more_does_not_fit_are_doubled() -> None:
    """Parts of 7."""
    body = "y = Reshape(x, to) \n z = Relu(y)"
    graph = graph_of(body, (1, 3, "h", "h"), (1, 3, 14, 14), to=[1, 3, -1, 7, 7])
    assert [resized.shapes["x"] for resized in graph.resized] == [(1, 3, 28, 28)]


def test_dimensions_are_tried_alone_if_not_together() -> None:
    graph = graph_of("z = MatMul(x, w)", ("n", 3, "h", "w"), (1, 3, 8, 6), w=rand(6, 2))
    assert [resized.shapes["x"] for resized in graph.resized] == [(2, 3, 8, 6), (1, 3, 40, 6)]


@pytest.mark.parametrize(
    ("body", "weight"),
    [
        ("f = Flatten(x) \n z = Gemm(f, w)", rand(144, 2)),
        ("f = Flatten(x) \n z = Gemm<transB=1>(f, w)", rand(2, 144)),
        ("z = Conv(x, w)", rand(2, 6, 1, 1)),
        ("z = ConvTranspose(x, w)", rand(6, 2, 1, 1)),
        ("z = BatchNormalization(x, w, w, w, w)", rand(6)),
        ("z = Add(x, w)", rand(6, 1, 1)),
        ("y = Squeeze(x, k) \n z, h = GRU<hidden_size=1>(y, w, r)", rand(1, 3, 4)),
    ],
)
def test_sizes_that_constants_fix_are_not_allowed(body: str, weight: np.ndarray) -> None:
    """Axis 1 of the input is open, or what is behind it is."""
    constants = {"w": weight} | ({"k": [0], "r": rand(1, 3, 1)} if "GRU" in body else {})
    known = (1, 6, 4, 6) if "GRU" not in body else (1, 6, 3, 4)
    dims: Shape = (1, "c", 4, 6) if "GRU" not in body else (1, 6, 3, "c")
    assert graph_of(body, dims, known, **constants).resized == ()


def test_a_number_of_axes_that_changes() -> None:
    graph = graph_of("y = Squeeze(x) \n z = Relu(y)", ("n", 3, 8, 6), (1, 3, 8, 6))
    assert graph.unsteady == {"y", "z"}
    assert set(graph.varying) == {"x"}


POOLS = [
    "kernel_shape=[2], strides=[3], pads=[0,1]",
    "kernel_shape=[2], strides=[3]",
    "kernel_shape=[3], strides=[2], pads=[1,1]",
    "kernel_shape=[1], strides=[2]",
    "kernel_shape=[3], dilations=[2], strides=[3], pads=[2,2]",
    'kernel_shape=[2], strides=[3], auto_pad="VALID"',
    'kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER"',
]


@pytest.mark.parametrize("attributes", POOLS)
@pytest.mark.parametrize("opset", [11, 21, 22])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_that_round_up(op: str, opset: int, attributes: str) -> None:
    """Two in a row, for all lengths; the runtime is right."""
    if op == "AveragePool" and "dilations" in attributes:
        pytest.skip("AveragePool has none before opset 19")
    pool = f"{op}<ceil_mode=1, {attributes}>"
    proto = model(f"y = {pool}(x) \n r = Relu(y) \n z = {pool}(r)", {"x": (1, 2, "w")}, outputs=["y", "z"], opset=opset)
    session = Runtime("cpu", threads=1).session(Model.open(proto))
    for length in range(9, 20):
        ran = session.run({"x": rand(1, 2, length)})
        graph = read_graph(Model.open(proto), {"x": (1, 2, length)})
        assert {name: graph.shapes[name] for name in ran} == {name: array.shape for name, array in ran.items()}


def strided(layers: int) -> onnx.ModelProto:
    """A network that needs 4 ** layers columns."""
    names = ["x", *(f"v{k}" for k in range(layers))]
    body = " \n ".join(f"{b} = Conv<strides=[4]>({a}, w)" for a, b in pairwise(names))
    return model(f"{body} \n z = Relu({names[-1]})", {"x": ("n", 2, "w")}, {"w": rand(2, 2, 4)})


def test_a_size_that_layers_survive_is_assumed() -> None:
    assert assumed_shapes(Model.open(strided(3))) == {"x": (1, 2, 224)}
    assert assumed_shapes(Model.open(strided(4))) == {"x": (1, 2, 448)}
    assert assumed_shapes(Model.open(strided(6))) == {"x": (1, 2, 7168)}
    assert assumed_shapes(Model.open(strided(12))) == {"x": (1, 2, 224)}  # none does
    assert onnxnorm.plan(strided(6), filters="all", outputs="scale").free == 12


def test_a_size_that_is_told_is_kept() -> None:
    proto = model("y = Conv(x, w) \n z = Relu(y)", {"x": (1, 3, "h", "w")}, {"w": rand(2, 3, 9, 9)})
    assert assumed_shapes(Model.open(proto), (8, 8)) == {"x": (1, 3, 8, 8)}


def test_a_pool_that_rounds_up_behind_a_computed_slice() -> None:
    """Its input's shape is known only from a computation in the graph."""
    body = "s = Shape(x) \n t = Gather(s, i) \n e = Div(t, k) \n c = Slice(x, o, e, i) \n"
    pool = "z = MaxPool<ceil_mode=1, kernel_shape=[2], strides=[3], pads=[0,1]>(c)"
    held = {"i": [2], "k": [2], "o": [0]}
    proto = model(body + pool, {"x": (1, 2, "w")}, held, opset=14)
    assert read_graph(Model.open(proto), {"x": (1, 2, 12)}).shapes["z"] == (1, 2, 2)
