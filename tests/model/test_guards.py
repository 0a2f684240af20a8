"""Models at which ONNX's shape inference would end the process are refused or read, and all others read as before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.extraction.cutting import cut
from onnxnorm.model.files import Model
from onnxnorm.model.guards import NegativeSizeError, guard
from onnxnorm.model.inference import shorten_domain
from onnxnorm.model.shapes import assumed_shapes, read_graph
from tests.corpus import CASES

SHAPE = (1, 3, 4, 4)
OPSETS = [10, 11, 13, 17, onnx.defs.onnx_opset_version()]


def tensor(name: str, *numbers: int) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def network(
    *nodes: onnx.NodeProto,
    tensors: Sequence[TensorProto] = (),
    shape: Sequence[int | str] = SHAPE,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A network from `x` to `z`; a Slice finds `starts`, `ends` and `axes` in it."""
    constants = [tensor("starts", 0), tensor("ends", 2), tensor("axes", 2), *tensors]
    values = [helper.make_tensor_value_info(*value) for value in (("x", 1, shape), ("z", 1, None))]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def sliced(*inputs: str) -> onnx.NodeProto:
    return helper.make_node("Slice", ["y", *(inputs or ("starts", "ends", "axes"))], ["z"], name="slice")


def padded(rows: int) -> tuple[onnx.NodeProto, TensorProto]:
    """A node that takes as many rows away at the top and at the bottom, and its pads."""
    return helper.make_node("Pad", ["x", "pads"], ["y"]), tensor("pads", 0, 0, -rows, 0, 0, 0, -rows, 0)


def pooled(size: int, *names: str) -> onnx.NodeProto:
    source, target = names or ("x", "y")
    return helper.make_node("MaxPool", [source], [target], kernel_shape=[size, size])


def shapes_of(proto: onnx.ModelProto, shape: tuple[int, ...] = SHAPE) -> dict[str, tuple[int, ...]]:
    return dict(read_graph(Model.open(proto), {"x": shape}).shapes)


@pytest.mark.parametrize("opset", OPSETS[1:])
def test_a_slice_of_what_a_pad_leaves(opset: int) -> None:
    pad, pads = padded(3)
    with pytest.raises(ModelError, match=r"Slice node 'slice' reads the value 'y'.* shape \[1, 3, -2, 4\]; a pad"):
        shapes_of(network(pad, sliced(), tensors=[pads], opset=opset))
    for rows in (1, 2):  # two rows are left, and none, which is legal
        pad, pads = padded(rows)
        shapes = shapes_of(network(pad, sliced(), tensors=[pads], opset=opset))
        assert shapes["y"] == shapes["z"] == (1, 3, 4 - 2 * rows, 4)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_slice_of_a_pool_that_is_larger_than_its_input(opset: int) -> None:
    tensors = [tensor("back", -2), tensor("all_starts", 0, 0, 0, 0), tensor("all_ends", 1, 2, 2, 1)]
    for inputs, expected in (
        ((), (1, 3, 2, 3)),
        (("starts", "ends", "back"), (1, 3, 2, 3)),
        (("all_starts", "all_ends"), (1, 2, 2, 1)),
    ):
        with pytest.raises(NegativeSizeError, match=r"shape \[1, 3, -4, -4\]"):
            shapes_of(network(pooled(9), sliced(*inputs), tensors=tensors, opset=opset))
        assert shapes_of(network(pooled(2), sliced(*inputs), tensors=tensors, opset=opset))["z"] == expected


def test_a_slice_that_reads_backwards() -> None:
    tensors = [tensor("last", -1), tensor("end", -(1 << 63))]
    for pads in (1, 2):
        pad, cut_off = padded(pads)
        node = sliced("last", "end", "axes", "last")
        assert shapes_of(network(pad, node, tensors=[*tensors, cut_off]))["z"] == (1, 3, 4 - 2 * pads, 4)


def test_a_slice_of_an_expanded_value() -> None:
    expand = helper.make_node("Expand", ["x", "size"], ["y"])
    assert "z" not in shapes_of(network(expand, sliced(), tensors=[tensor("size", 1, 3, -4, 4)]))
    shapes = shapes_of(network(expand, sliced(), tensors=[tensor("size", 5, 3, 4, 4)]))
    assert shapes["z"] == (5, 3, 2, 4)


def test_a_slice_in_front_of_another_whose_numbers_are_computed() -> None:
    nodes = [pooled(2), helper.make_node("Neg", ["starts"], ["computed"])]
    shapes = shapes_of(network(*nodes, sliced("computed", "ends", "axes")))
    assert shapes["z"] == (1, 3, 2, 3)


def test_a_claimed_size_of_minus_one_is_unknown() -> None:
    proto = network(helper.make_node("Foreign", ["x"], ["y"], domain="own"), sliced())
    proto.graph.value_info.append(helper.make_tensor_value_info("y", 1, [1, 3, -1, 4]))
    assert "z" not in shapes_of(proto)
    assert [value.name for value in cut(Model.open(proto), ["z"]).proto.graph.output] == ["z"]


def body(size: int) -> onnx.GraphProto:
    """A subgraph that pools `x`, and slices that."""
    numbers = {"from": 0, "to": 2, "at": 2}
    nodes = [helper.make_node("Constant", [], [name], value_ints=[number]) for name, number in numbers.items()]
    nodes += [pooled(size, "x", "inner"), helper.make_node("Slice", ["inner", *numbers], ["part"], name="slice")]
    return helper.make_graph(nodes, "body", [], [helper.make_tensor_value_info("part", 1, None)])


def test_a_slice_in_branches() -> None:
    def branches(size: int) -> onnx.ModelProto:
        node = helper.make_node("If", ["yes"], ["z"], then_branch=body(2), else_branch=body(size))
        return network(node, tensors=[numpy_helper.from_array(np.array(True), "yes")])

    assert shapes_of(branches(2))["z"] == (1, 3, 2, 3)
    with pytest.raises(NegativeSizeError, match="'slice' reads the value 'inner'"):
        shapes_of(branches(9))


def test_a_slice_in_a_loop() -> None:
    def loop(size: int) -> onnx.ModelProto:
        inner = body(size)
        inner.input.extend([helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, [])])
        inner.output.insert(0, helper.make_tensor_value_info("go", 9, []))
        node = helper.make_node("Loop", ["times", "yes"], ["z"], body=inner)
        constants = [numpy_helper.from_array(np.array(3), "times"), numpy_helper.from_array(np.array(True), "yes")]
        return network(node, tensors=constants)

    shapes_of(loop(2))
    with pytest.raises(NegativeSizeError, match="'slice' reads the value 'inner'"):
        shapes_of(loop(9))


def test_a_slice_in_a_function() -> None:
    def calling(size: int, *numbers: str) -> onnx.ModelProto:
        nodes = [*body(size).node]
        nodes[-1].input[1:] = numbers or nodes[-1].input[1:]
        opsets = [helper.make_opsetid("", 17)]
        function = helper.make_function("own", "Part", ["x", *numbers], ["part"], nodes, opsets)
        return network(helper.make_node("Part", ["x", *numbers], ["z"], domain="own"), functions=[function])

    assert shapes_of(calling(2))["z"] == (1, 3, 2, 3)
    assert "z" not in shapes_of(calling(9))  # no type inside a function is told
    for size in (2, 9):  # which axes it slices is up to the call
        assert "z" not in shapes_of(calling(size, "starts", "ends", "axes"))


def test_indices_of_a_negative_size() -> None:
    def gathered(columns: int) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Pad", ["x", "pads"], ["smaller"]),
            helper.make_node("Cast", ["smaller"], ["y"], to=TensorProto.INT64),
            helper.make_node("GatherND", ["x", "y"], ["z"], name="gather"),
        ]
        return network(*nodes, tensors=[tensor("pads", 0, 0, 0, -columns, 0, 0, 0, -columns)])

    with pytest.raises(NegativeSizeError, match=r"GatherND node 'gather' reads the value 'y'.*\[1, 3, 4, -2\]"):
        shapes_of(gathered(3))
    assert shapes_of(gathered(1))["z"] == (1, 3, 4, 4, 4)


@pytest.mark.parametrize(("op", "attributes"), [("EyeLike", {"dtype": 11}), ("EyeLike", {}), ("RegexFullMatch", {})])
def test_values_without_a_type(op: str, attributes: dict[str, Any]) -> None:
    opset = onnx.defs.onnx_opset_version()
    foreign = helper.make_node("Foreign", ["x"], ["y"], domain="own")
    assert "z" not in shapes_of(network(foreign, helper.make_node(op, ["y"], ["z"], **attributes), opset=opset))
    flat = helper.make_node("Reshape", ["x", "rows_and_columns"], ["y"])
    proto = network(flat, helper.make_node(op, ["y"], ["z"], **attributes), opset=opset)
    proto.graph.initializer.append(tensor("rows_and_columns", 12, 4))
    proto.graph.output[0].type.Clear()
    graph = read_graph(Model.open(proto), {"x": SHAPE})
    assert graph.shapes["z"] == (12, 4)
    assert graph.types["z"] == {"EyeLike": attributes.get("dtype", 1), "RegexFullMatch": TensorProto.BOOL}[op]


@pytest.mark.parametrize("op", ["DictVectorizer", "LabelEncoder", "TreeEnsemble"])
def test_operators_of_classical_learning_are_hidden(op: str) -> None:
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml")  # that lacks its attributes, and reads no map
    proto = network(node, helper.make_node("Relu", ["x"], ["z"]))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 5 if op == "TreeEnsemble" else 1))
    shapes = shapes_of(proto)
    assert "y" not in shapes
    assert shapes["z"] == SHAPE


def test_larger_inputs_are_tried_where_a_slice_has_none() -> None:
    weights = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["v"]), pooled(300, "v", "y"), sliced()]
    proto = network(*nodes, tensors=[weights], shape=["n", 3, "h", "w"])
    assert assumed_shapes(Model.open(proto)) == {"x": (1, 3, 448, 448)}
    assert onnxnorm.plan(proto).filters == 3


def test_a_network_is_not_cut_behind_a_slice_of_a_negative_size() -> None:
    for size, legal in ((2, True), (9, False)):
        model = Model.open(network(pooled(size), sliced()))
        if legal:
            assert [value.name for value in cut(model, ["z"]).proto.graph.output] == ["z"]
        else:
            with pytest.raises(NegativeSizeError):
                cut(model, ["z"])


def test_guards_change_nothing_else() -> None:
    compared = 0
    protos = [case.build() for case in CASES.values()]
    for proto in protos:
        shorten_domain(proto)
    protos += [network(pooled(2), sliced(), shape=["n", 3, "h", "w"])]
    for proto in protos:
        guarded = onnx.ModelProto()
        guarded.CopyFrom(proto)
        guards = guard(guarded)
        plain, other = (shape_inference.infer_shapes(each).graph for each in (proto, guarded))
        expected = {value.name: value.type.SerializeToString() for value in plain.value_info}
        found = guards.without_own({value.name: value.type.SerializeToString() for value in other.value_info})
        assert found == expected
        compared += bool(guards.reads)
    assert compared > 5
