"""Graphs that are odd but legal."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests.corpus.case import CASES, case
from tests.corpus.net import FLOAT, Net


@case(8, 0, 0)
def nodes_without_names() -> onnx.ModelProto:
    """No node has a name."""
    net = Net()
    model = net.head(net.block(net.bn(net.block(net.input(), 3, 4), 4), 4, 4), 4)
    for node in model.graph.node:
        node.ClearField("name")
    return model


@case(6, 0, 0, runs=False)
def nodes_with_one_name() -> onnx.ModelProto:
    """All nodes are called the same, and two of them share a weight."""
    net = Net()
    w = net.weight(3, 3, 3, 3)
    model = net.head(net.block(net.block(net.input(), 3, 3, w=w), 3, 3, w=w), 3)
    for node in model.graph.node:
        node.name = "node"
    return model


@case(4, 8, 0, legal=False)
def nodes_out_of_order() -> onnx.ModelProto:
    """The nodes are listed backwards."""
    model = CASES["residual_after_activation"].build()
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@case(4, 0, 0, free="a", clones=True)
def names_that_look_like_clones() -> onnx.ModelProto:
    """The names that a clone would get are taken."""
    net = Net()
    b = net.bias(2, "b")
    net.const([1.0], "b_onnxnorm1")
    x = net.block(net.input(), 3, 2, "b_onnxnorm2", b=b)
    return net.head(net.block(x, 2, 2, "a", b=b), 2)


@case(4, 0, 0, legal=False)
def domain_spelled_out() -> onnx.ModelProto:
    """ONNX's own domain by its long name, on operators that move data too."""
    net = Net()
    a = net.op("Relu", net.conv(net.input(), 3, 4), domain="ai.onnx")
    s = net.op("Slice", a, net.ints(1), net.ints(4), net.ints(1), domain="ai.onnx")
    t = net.op("Concat", s, a, domain="ai.onnx", axis=1)
    return net.head(t, 7)


@case(4, 0, 4, pinned="a g", free="b")
def custom_domain() -> onnx.ModelProto:
    """An operator of another domain, which happens to have a familiar name; the file says what shape it makes."""
    net = Net()
    net.domains.append("com.microsoft")
    a = net.block(net.input(), 3, 4, "a")
    net.op("Gelu", a, domain="com.microsoft", out="g")
    return net.head(net.block(net.info("g", ("N", 4, 8, 8)), 4, 4, "b"), 4)


@case(0, 0, 8, pinned="a g b", legal=False)
def custom_domain_of_unknown_shape() -> onnx.ModelProto:
    """The same, but nobody says what shape it makes: what needs shapes behind it is pinned."""
    net = Net()
    net.domains.append("com.microsoft")
    a = net.block(net.input(), 3, 4, "a")
    return net.head(net.block(net.op("Gelu", a, domain="com.microsoft", out="g"), 4, 4, "b"), 4)


@case(4, 0, 7, free="b", legal=False)
def convolutions_of_unknown_shape() -> onnx.ModelProto:
    """Convolutions and ReLUs need no shapes."""
    net = Net()
    net.domains.append("com.microsoft")
    a = net.block(net.input(), 3, 4, "a")
    b = net.bn(net.block(net.op("Gelu", a, domain="com.microsoft", out="g"), 4, 4, "b"), 4)
    return net.model(net.conv(b, 4, 3, out="y"))


def _function(name: str, domain: str, kind: str) -> onnx.FunctionProto:
    node = helper.make_node(kind, ["p"], ["q"])
    return helper.make_function(domain, name, ["p"], ["q"], [node], [helper.make_opsetid("", 18)])


@case(4, 0, 4, pinned="a", free="b", reason="function of the model's own")
def local_function() -> onnx.ModelProto:
    """A function of the model's own."""
    net = Net()
    net.domains.append("here")
    net.functions.append(_function("Squash", "here", "Sigmoid"))
    a = net.op("Squash", net.conv(net.input(), 3, 4), domain="here", out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b")
def local_function_with_a_known_name() -> onnx.ModelProto:
    """A function of the model's own that is called Relu and is none."""
    net = Net()
    net.domains.append("here")
    net.functions.append(_function("Relu", "here", "Sigmoid"))
    a = net.op("Relu", net.conv(net.input(), 3, 4), domain="here", out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b", reason="function of the model's own")
def local_function_in_place_of_an_operator() -> onnx.ModelProto:
    """A function that claims the name of an ONNX operator: which of the two is meant is up to the runtime."""
    net = Net()
    net.functions.append(_function("LeakyRelu", "", "Sigmoid"))
    a = net.op("LeakyRelu", net.conv(net.input(), 3, 4), out="a")
    return net.head(net.block(a, 4, 4, "b"), 4)


@case(4, 0, 4, pinned="a", free="b")
def scan_captures_activation() -> onnx.ModelProto:
    """A Scan over the channels of one activation that adds up another's."""
    net = Net()
    x = net.input()
    a, r = net.block(x, 3, 4, "a"), net.op("ReduceMean", x, keepdims=0)
    body = [
        helper.make_node("Add", ["state", "row"], ["sum"]),
        helper.make_node("Add", ["row", r], ["out"]),
        helper.make_node("Identity", ["sum"], ["next"]),
    ]
    ins = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("state", "row")]
    outs = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("next", "out")]
    start = net.op("ReduceSum", net.op("Mul", a, net.const(0.0)), net.ints(1), keepdims=0)
    graph = helper.make_graph(body, "body", ins, outs)
    _, c = net.many("Scan", start, a, outs=2, body=graph, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1])
    return net.head(net.block(net.info(c, ("N", 4, 8, 8)), 4, 4, "b"), 4)


def _branches(net: Net, then: list[onnx.NodeProto], other: list[onnx.NodeProto], x: str, out: str) -> str:
    """An If whose condition depends on the data; its branches write `t` and `e`."""
    mean = net.op("ReduceMean", x, keepdims=0)
    infos = [helper.make_tensor_value_info(name, FLOAT, None) for name in "te"]
    return net.op(
        "If",
        net.op("Greater", mean, net.const(0.0)),
        out=out,
        then_branch=helper.make_graph(then, "then", [], [infos[0]]),
        else_branch=helper.make_graph(other, "else", [], [infos[1]]),
    )


@case(4, 0, 4, pinned="a c", free="b")
def branch_captures_activation() -> onnx.ModelProto:
    """An If whose branches read an activation from outside."""
    net = Net()
    x = net.input()
    a = net.block(x, 3, 4, "a")
    then, other = helper.make_node("Relu", [a], ["t"]), helper.make_node("Tanh", [a], ["e"])
    return net.head(net.block(_branches(net, [then], [other], x, "c"), 4, 4, "b"), 4)


@case(7, 0, 0, free="a b", clones=True)
def branch_captures_weight() -> onnx.ModelProto:
    """An If whose branch reads a weight that a convolution outside reads too."""
    net = Net()
    x = net.input()
    w = net.weight(3, 3, 3, 3, name="w")
    a = net.block(x, 3, 3, "a", w=w)
    then = helper.make_node("Conv", [x, w], ["t"], pads=[1] * 4)
    other = helper.make_node("Identity", [x], ["e"])
    b = net.op("Concat", a, _branches(net, [then], [other], x, "c"), axis=1)
    return net.head(net.block(b, 6, 4, "b"), 4)


@case(4, 0, 4, pinned="a c", free="b")
def loop_captures_activation() -> onnx.ModelProto:
    """A Loop that adds an activation from outside three times."""
    net = Net()
    a = net.block(net.input(), 3, 4, "a")
    ins = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", FLOAT, None),
    ]
    kinds: dict[str, tuple[int, list[int] | None]] = {"on": (TensorProto.BOOL, []), "next": (FLOAT, None)}
    outs = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    body = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["state", a], ["next"])]
    start = net.op("Mul", a, net.const(0.5))
    c = net.op("Loop", net.ints(3), "", start, out="c", body=helper.make_graph(body, "body", ins, outs))
    return net.head(net.block(net.info(c, ("N", 4, 8, 8)), 4, 4, "b"), 4)
