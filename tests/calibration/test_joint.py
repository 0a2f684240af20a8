"""Outputs that are joined in the graph say the same, bit for bit; they are joined only where samples have one row."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.calibration import build
from onnxnorm.calibration.joint import Joint, Outputs, has_one_row, join
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import InputSettings
from onnxnorm.model.shapes import read_graph
from onnxnorm.statistics import Statistics
from tests.helpers.graphs import model, rand

WEIGHTS = {
    "w": rand(16, 3, 3, 3),
    "u": rand(24, 16, 3, 3, seed=1),
    "v": rand(24, 16, 1, 1, seed=2),
    "s": np.array([-1, 3, 8, 8]),
    "f": np.array([0, 1]),
}
BODY = """a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, u) d = Conv(b, v) e = Sigmoid(d)
    m = Mul(c, e) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(m) z = GlobalAveragePool(p)"""


def net(body: str = BODY, shape: tuple[int | str, ...] = ("n", 3, 12, 12)) -> onnx.ModelProto:
    return model(body, {"x": shape}, {name: array for name, array in WEIGHTS.items() if f", {name})" in body})


def read(proto: onnx.ModelProto, shape: tuple[int, ...], axes: dict[str, int] | None = None) -> Graph:
    return read_graph(Model.open(proto).fed(InputSettings(axes or {})), {"x": shape})


def test_columns_that_are_neighbours_are_a_slice() -> None:
    joint = Joint("all", {"a": slice(0, 2), "b": slice(2, 5), "c": slice(5, 6)})
    assert joint.widths(["b", "c"]) == (3, 1)
    assert joint.columns(["a", "b", "c"]) == slice(0, 6)
    rows = np.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(rows[:, joint.columns(["c", "a"])], [[5, 0, 1], [11, 6, 7]])


def test_outputs_by_their_names() -> None:
    results = {"all": np.arange(8.0).reshape(2, 4), "alone": np.ones(3)}
    outputs = Outputs(results, Joint("all", {"a": slice(0, 1), "b": slice(1, 4)}))
    assert list(outputs) == ["alone", "a", "b"]
    assert len(outputs) == 3
    np.testing.assert_array_equal(outputs["b"], [[1, 2, 3], [5, 6, 7]])
    assert outputs["alone"] is results["alone"]
    with pytest.raises(KeyError):
        outputs["all of them"]
    assert dict(Outputs({"alone": results["alone"]}, Joint())).keys() == {"alone"}


def test_a_single_output_is_left_as_it_is() -> None:
    graph = net().graph
    assert join(graph, {"z": 24}, "all") == Joint()
    assert [output.name for output in graph.output] == ["z"]


@pytest.mark.parametrize(
    ("body", "shape", "rows"),
    [
        ("z = Conv(x, w)", ("n", 3, 8, 8), True),
        ("z = Conv(x, w)", (2, 3, 8, 8), True),
        ("r = Reshape(x, s) z = Conv(r, w)", ("n", 6, 8, 8), False),  # two rows of each sample
        ("r = Reshape(x, s) z = Conv(r, w)", (2, 6, 8, 8), False),
        ("r = Reshape(x, s) z = Conv(r, w)", ("n", 3, "h", 8), False),  # at a height of 8 only one
        ("z = Conv(x, w) y = Gather<axis=0>(z, f)", ("n", 3, 8, 8), True),
        ("y = Conv(x, w) z = Gather<axis=0>(y, f)", ("n", 3, 8, 8), False),  # two rows for any number of samples
    ],
)
def test_which_values_have_a_row_for_each_sample(body: str, shape: tuple[int | str, ...], rows: bool) -> None:
    sample = tuple(8 if side == "h" else 2 if side == "n" else int(side) for side in shape)
    assert has_one_row(read(net(body, shape), sample), "z") == rows


def test_samples_that_lie_along_another_axis() -> None:
    proto = net("z = Conv(x, w)", (1, 3, "n", 8))
    assert not has_one_row(read(proto, (1, 3, 8, 8), {"x": 2}), "z")


def statistics(proto: onnx.ModelProto, measure: tuple[str, ...], shape: tuple[int, ...] = (7, 3, 12, 12)) -> Statistics:
    return onnxnorm.calibrate(proto, rand(*shape, seed=9), measure=measure, provider="cpu", threads=1)


@pytest.mark.parametrize("measure", [(), ("max",), ("range",), ("rms", "range", "max"), ("p99", "range")])
@pytest.mark.parametrize("batch", ["n", 2])
def test_what_is_joined_says_the_same(
    monkeypatch: pytest.MonkeyPatch, measure: tuple[str, ...], batch: int | str
) -> None:
    proto = net(shape=(batch, 3, 12, 12))
    joined = statistics(proto, measure)
    monkeypatch.setattr(build, "join", lambda *_: Joint())
    apart = statistics(proto, measure)
    assert list(joined.values) == list(apart.values)
    for value, moments in joined.values.items():
        assert (moments.images, moments.weight) == (7, apart.values[value].weight)
        for name in ("total", "square_total", "squares", "largest", "smallest"):
            np.testing.assert_array_equal(getattr(moments, name), getattr(apart.values[value], name))


def joints(monkeypatch: pytest.MonkeyPatch, proto: onnx.ModelProto, shape: tuple[int, ...], *measure: str) -> int:
    """How many outputs were joined."""
    made, usual = list[Joint](), join

    def noted(probe: onnx.GraphProto, widths: dict[str, int], name: str) -> Joint:
        made.append(usual(probe, widths, name))
        return made[-1]

    monkeypatch.setattr(build, "join", noted)
    statistics(proto, measure, shape)
    return len(made[0].places)


def test_all_or_none_of_what_has_rows_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joints(monkeypatch, net(), (4, 3, 12, 12)) > 2
    folded = net("a = Conv<pads=[1,1,1,1]>(x, w) r = Reshape(x, s) z = Conv(r, w)", ("n", 6, 8, 8))
    folded.graph.node[0].input[0] = "r"  # both layers read the folded rows
    folded.graph.node.insert(0, folded.graph.node.pop(1))
    assert joints(monkeypatch, folded, (4, 6, 8, 8)) == 0
    assert joints(monkeypatch, net(), (4, 3, 12, 12), "p99") == 0  # the values themselves are outputs too
