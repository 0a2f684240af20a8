"""What a walk concludes from one size of the inputs holds for every size that the model leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxnorm.errors import ModelError
from onnxnorm.model.evaluation import evaluate
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import Trace, find_layers, trace
from onnxnorm.scaling.operators import movement
from tests.helpers.graphs import Shape, feeds, model, rand
from tests.helpers.scales_check import check_outputs, random_scales

OPEN: Shape = ("n", 3, "h", "w")
SIZES = ({"n": 2}, {"n": 3}, {"n": 4}, {"h": 12}, {"w": 3}, {"n": 2, "h": 5, "w": 7}, {"n": 5, "h": 33, "w": 40})


def layer(body: str, constants: dict[str, Any] | None = None, shape: Shape = OPEN, opset: int = 21) -> onnx.ModelProto:
    """`body` reads `a`, of 4 channels, and writes `z`."""
    ones = [1] * (len(shape) - 2)
    held = {"w_a": rand(4, 3, *ones), "b_a": rand(4, seed=1), **(constants or {})}
    return model(f"a = Conv(x, w_a, b_a) \n {body}", {"x": shape}, held, opset=opset)


def walked(proto: onnx.ModelProto, h: int = 6, w: int = 5, n: int = 1) -> Trace:
    """A walk for one sample, after a check at other sizes with random scales; outputs may be scaled."""
    shapes = {name: array.shape for name, array in feeds(proto, n=n, h=h, w=w).items()}
    found = trace(read_graph(Model.open(proto), shapes), "scale")
    of_slot = random_scales(found, 3)
    runtime = Runtime("cpu", threads=1)
    before = runtime.session(Model.open(proto), optimize=False)
    after = runtime.session(apply_edits(Model.open(proto), found.edits, of_slot).model, optimize=False)
    ran = 0
    for sizes in ({}, *SIZES):
        feed = feeds(proto, **{"n": n, "h": h, "w": w, **sizes})
        try:
            expected = before.run(feed)
        except ModelError:
            continue
        check_outputs(found, of_slot, expected, after.run(feed))
        ran += 1
    assert ran > 1 or not any(dim.dim_param for dim in proto.graph.input[0].type.tensor_type.shape.dim)
    return found


def scales(found: Trace, value: str = "a") -> int:
    """How many free scales a value has."""
    groups = found.groups.of[np.unique(found.ids[value])]
    return len({group for group in groups.tolist() if found.groups.pinned[group] < 0})


def refused(found: Trace) -> str:
    """Why a value `a` keeps its scale."""
    assert scales(found) == 0
    return found.groups.reasons(found.ids["a"])[0].reason


TIED = [
    ("z = Reshape(a, to)", {"to": [2, -1]}, "rows are channels of one sample, or samples"),
    ("z = Reshape(a, to)", {"to": [4, -1]}, "rows are the channels of one sample"),
    ("b = Reshape(a, to) \n z = MatMul(b, w)", {"to": [2, -1, 5], "w": rand(5, 3)}, "the same before a layer"),
    ("z = Reshape(a, to)", {"to": [-1, 2]}, "columns have every second element"),
    ("z = Flatten<axis=1>(a)", {}, "a channel has H * W elements"),
    ("z = Flatten<axis=0>(a)", {}, "as has a sample"),
    ("z = Compress(a, m)", {"m": np.ones(20, np.bool_)}, "the channel of element 20 depends on H and W"),
    ("z = DepthToSpace<blocksize=2>(a)", {}, "channels are in turn along H and W"),
]


@pytest.mark.parametrize(("body", "constants", "why"), TIED, ids=[why for *_, why in TIED])
def test_what_depends_on_open_sizes_ties(body: str, constants: dict[str, Any], why: str) -> None:
    assert scales(walked(layer(body, constants))) == 1, why


@pytest.mark.parametrize("body", ["z = DepthToSpace<blocksize=2>(a)", "z = SpaceToDepth<blocksize=2>(a)"])
def test_one_block_is_moved_where_sides_are_open(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ties the slots of a whole image says no more, and takes a hundred megabytes for a photograph."""
    whole = scales(walked(layer(body), w=6))
    moved: list[int] = []

    def recorded(node: Node, inputs: dict[str, Any]) -> Any:
        moved.append(max(array.size for array in inputs.values()))
        return evaluate(node, inputs)

    monkeypatch.setattr(movement, "evaluate", recorded)
    assert scales(walked(layer(body), h=60, w=60)) == whole
    assert 0 < max(moved) <= 4 * 2 * 2


def test_fixed_sizes_tie_nothing() -> None:
    """Nor does an open batch."""
    assert scales(walked(layer("z = Flatten<axis=1>(a)", shape=("n", 3, 6, 5)))) == 4
    assert scales(walked(layer("z = Reshape(a, to)", {"to": [0, 8, -1]}, ("n", 3, 6, 5)))) == 4
    assert scales(walked(layer("z = DepthToSpace<blocksize=2>(a)", shape=(1, 3, 6, 4)), w=4)) == 4


FREE = [
    ("z = Reshape(a, to)", {"to": [0, 4, -1]}, 4),
    ("z = Reshape(a, to)", {"to": [0, 2, -1]}, 2),
    ("b = Reshape(a, to) \n c = Transpose<perm=[0,2,1,3,4]>(b) \n z = Reshape(c, back)",
     {"to": [0, 2, 2, -1, 5], "back": [0, 4, -1, 5]}, 4),
    ("s = Shape(a) \n n = Gather(s, i) \n to = Concat<axis=0>(n, c, r) \n z = Reshape(a, to)",
     {"i": [0], "c": [4], "r": [-1]}, 4),
    ("s = Shape(a) \n n = Gather(s, i) \n m = Mul(n, k) \n to = Concat<axis=0>(n1, c, m) \n"
     'z = Resize<mode="nearest">(a, none, none, to)', {"i": [2, 3], "k": [2], "n1": [1], "c": [4],
      "none": np.zeros(0, np.float32)}, 4),
    ("s = Shape(a) \n n = Gather(s, i) \n p = Div(n, k) \n to = Concat<axis=0>(o, p, o, o) \n z = Pad(a, to)",
     {"i": [2, 3], "k": [3], "o": [0, 0]}, 4),
    ("m = ReduceMean(a, hw) \n f = Flatten(m) \n z = MatMul(f, w)", {"hw": [2, 3], "w": rand(4, 2)}, 4),
    ("z = Slice(a, i, j, i)", {"i": [1], "j": [3]}, 4),
    ("z = Concat<axis=2>(a, a)", {}, 4),
]  # fmt: skip


@pytest.mark.parametrize(("body", "constants", "free"), FREE, ids=[body[-30:] for body, *_ in FREE])
def test_what_does_not_depend_on_them_stays_free(body: str, constants: dict[str, Any], free: int) -> None:
    assert scales(walked(layer(body, constants))) == free


def test_sizes_that_do_not_fit_a_layer_do_not_count() -> None:
    """H and W are open, but 4 * 6 * 5 inputs of a Gemm fix them; and so do weights of a Conv or a MatMul."""
    proto = layer("f = Flatten(a) \n z = Gemm(f, w)", {"w": rand(120, 2)})
    assert scales(walked(proto)) == 4
    proto = layer("f = Reshape(a, to) \n z = MatMul(f, w)", {"to": [0, -1], "w": rand(120, 2)})
    assert scales(walked(proto)) == 4
    proto = layer("f = Reshape(a, to) \n z = Conv(f, w)", {"to": [0, -1, 1, 1], "w": rand(2, 120, 1, 1)})
    assert scales(walked(proto)) == 4


def test_one_open_dimension_of_two() -> None:
    """W is fixed by a layer over it, H is open."""
    proto = layer("z = MatMul(a, w)", {"w": rand(5, 2)})
    assert read_graph(Model.open(proto), {"x": (1, 3, 6, 5)}).varying["a"] == (0, 2)
    flat = layer("m = MatMul(a, w) \n z = Reshape(m, to)", {"w": rand(5, 2), "to": [0, -1]})
    assert scales(walked(flat)) == 1


def test_dimensions_of_one_name_grow_together() -> None:
    proto = layer("z = MatMul(a, a)", shape=("n", 3, "h", "h"))
    assert read_graph(Model.open(proto), {"x": (1, 3, 6, 6)}).varying["a"] == (0, 2, 3)


def test_size_1_when_calibrated() -> None:
    """`(N, C, 1, W)` becomes `(N, C * 1, W)`, and for a larger H `(N, C * H, W)`."""
    proto = layer("z = Reshape(a, to)", {"to": [0, -1, 5]})
    assert scales(walked(proto, h=1)) == 1


def test_a_number_of_axes_that_depends_on_the_batch_is_refused() -> None:
    assert "number of axes" in refused(walked(layer("b = Squeeze(a) \n z = Relu(b)")))
    assert scales(walked(layer("b = Squeeze(a) \n z = Relu(b)", shape=(1, 3, 6, 5)))) == 4


def test_triangles_of_any_size() -> None:
    """Rows that one sample does not have are no zeros."""
    proto = layer("t = Reshape(a, to) \n z = Trilu<upper=0>(t)", {"to": [0, -1]}, ("n", 3, 1, 1))
    assert scales(walked(proto, 1, 1)) == 4


def test_padded_to_a_size_that_may_be_exceeded() -> None:
    proto = layer("z = CenterCropPad<axes=[0, 2]>(a, to)", {"to": [2, 9]})
    assert scales(walked(proto)) == 4


def test_empty_for_this_size_is_refused() -> None:
    body = "b = Slice(a, i, j, k) \n z = Relu(b)"
    assert "for this size" in refused(walked(layer(body, {"i": [2], "j": [3], "k": [0]})))
    assert "for this size" in refused(walked(layer(body, {"i": [40], "j": [60], "k": [2]})))


def test_empty_for_every_size_constrains_nothing() -> None:
    body = "b = Slice(a, i, i, j) \n r = Relu(b) \n z = Concat<axis=1>(a, r, a)"
    assert scales(walked(layer(body, {"i": [2], "j": [1]}))) == 4
    body = "p, q = Split<axis=1>(a, s) \n r = Relu(q) \n z = Concat<axis=1>(r, p)"
    assert scales(walked(layer(body, {"s": [4, 0]}))) == 4


@pytest.mark.parametrize("op", ["ReduceSum", "CumSum"])
def test_axes_that_depend_on_the_size_are_refused(op: str) -> None:
    """An axis that is computed from the size of the input: 1 for up to 8 rows, 2 for more."""
    axes = "s = Shape(a) \n h = Gather(s, i) \n b = Div(h, k) \n axis = Add(b, one) \n"
    index = [2] if op == "ReduceSum" else np.int64(2)
    proto = layer(f"{axes} z = {op}(a, axis)", {"i": index, "k": np.int64(9), "one": np.int64(1)})
    assert scales(walked(proto)) == 0


def test_empty_unless_the_input_is_smaller() -> None:
    """Rows from the third last to the third: none of 6, one of 5; shape inference refuses to cut 38."""
    body = "b = Slice<axes=[2], starts=[-3], ends=[3]>(a) \n z = Identity(b)"
    assert "for this size" in refused(walked(layer(body, opset=7)))


def test_an_axis_of_open_size_has_no_filters() -> None:
    """A product with a vector leaves H as the last axis."""
    found = walked(layer("z = MatMul(a, w)", {"w": rand(5)}))
    assert [one.node for one in find_layers(found, "all")] == ["a"]
    found = walked(layer("z = MatMul(a, w)", {"w": rand(5, 2)}))
    assert [one.channels for one in find_layers(found, "all")] == [4, 2]


def test_random_numbers_without_elements_have_no_scale() -> None:
    node = onnx.helper.make_node("RandomNormal", [], ["y"], shape=[4, 0, 3])
    graph = onnx.helper.make_graph([node], "g", [], [onnx.helper.make_tensor_value_info("y", 1, None)])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    traced = trace(read_graph(Model.open(proto), {}))
    assert traced.graph.shapes["y"] == (4, 0, 3)
    assert not find_layers(traced)
