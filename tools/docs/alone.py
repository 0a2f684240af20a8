"""One small graph for each operator that the fuzzer of laws does not draw: most are barriers, or give out no numbers.

Each function adds its operator behind a value, and returns a value of float32 that depends on it. What makes values of
its own is multiplied into the value that it gets, and what gives out truth, text or integers is cast to numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.helpers.draws.draw import Draw, IllegalDrawError, Step

__all__ = ["ALONE", "NO_GRAPH"]

FLOAT, INT32, INT64, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)

NO_GRAPH = {"ImageDecoder": "it reads the bytes of an image file, which no filter computes"}
"""Operators for which there is no graph, and why."""


def _cast(d: Draw, x: str, to: int = FLOAT) -> str:
    return d.op("Cast", x, to=to)


def _text(op: str, *rest: Callable[[Draw], str], **attributes: object) -> Step:
    """An operator that reads text."""

    def step(d: Draw, x: str) -> str:
        text = _cast(d, d.op("Reshape", x, d.ints(-1)), STRING)
        return _cast(d, d.op(op, text, *(part(d) for part in rest), **attributes))

    return step


def _split_text(d: Draw, x: str) -> str:
    parts, _ = d.many("StringSplit", _cast(d, x, STRING), outs=2, delimiter=" ")
    return _cast(d, parts)


def _number(d: Draw) -> str:
    return d.const(["1"], object)


def _truth(op: str) -> Step:
    """And, Or, Xor, Not: of what is positive and what is negative."""

    def step(d: Draw, x: str) -> str:
        signs = [d.op(comparison, x, d.const(0.0)) for comparison in ("Greater", "Less")]
        return _cast(d, d.op(op, *signs[: 1 if op == "Not" else 2]))

    return step


def _says(op: str) -> Step:
    """What says something of each element, or of the shape."""

    def step(d: Draw, x: str) -> str:
        return _cast(d, d.op(op, x))

    return step


def _bits(op: str) -> Step:
    """An operator on integers of 32 bits."""

    def step(d: Draw, x: str) -> str:
        whole = _cast(d, x, TensorProto.UINT32)
        if op == "BitwiseNot":
            return _cast(d, d.op(op, whole))
        attributes = {"direction": "LEFT"} if op == "BitShift" else {}
        return _cast(d, d.op(op, whole, d.const(1, np.uint32), **attributes))

    return step


def _bit_cast(d: Draw, x: str) -> str:
    return d.op("BitCast", d.op("BitCast", x, to=INT32), to=FLOAT)


def _factor(make: Callable[[Draw, str], str]) -> Step:
    """Values that an operator makes, multiplied into another value."""

    def step(d: Draw, x: str) -> str:
        return d.op("Mul", x, make(d, x))

    return step


def _window(op: str) -> Step:
    return _factor(lambda d, x: d.op(op, d.const(d.shape(x)[-1], np.int64)))


def _random(op: str) -> Step:
    return _factor(lambda d, x: d.op(op, shape=d.shape(x)))


def _like(op: str) -> Step:
    return _factor(lambda d, x: d.op(op, x))


def _range(d: Draw, x: str) -> str:
    return d.op("Range", d.const(1.0), d.const(d.shape(x)[-1] + 1.0), d.const(1.0))


def _constant(d: Draw, _: str) -> str:
    return d.op("Constant", value_float=2.0)


def _mel(d: Draw, x: str) -> str:
    bins = (d.shape(x)[-1] - 1) * 2
    numbers = [d.const(value, np.int64) for value in (3, bins, 8000)]
    return d.op("MatMul", x, d.op("MelWeightMatrix", *numbers, d.const(0.0), d.const(4000.0)))


def _bernoulli(d: Draw, x: str) -> str:
    return d.op("Bernoulli", d.op("Div", d.op("Abs", x), d.const(1000.0)))


def _multinomial(d: Draw, x: str) -> str:
    if len(d.shape(x)) != 2:
        raise IllegalDrawError("it reads rows of classes")
    return _cast(d, d.op("Multinomial", x, sample_size=3))


def _one_hot(d: Draw, x: str) -> str:
    return d.op("OneHot", d.op("ArgMax", x, axis=1), d.const(4, np.int64), d.const([0.0, 1.0]))


def _affine(d: Draw, x: str) -> str:
    shape = d.shape(x)
    if len(shape) != 4:
        raise IllegalDrawError("only for images")
    theta = d.op("Reshape", d.op("Slice", d.op("Reshape", x, d.ints(-1)), d.ints(0), d.ints(6)), d.ints(1, 2, 3))
    return d.op("GridSample", x, d.op("AffineGrid", theta, d.ints(*shape)))


def _cum_prod(d: Draw, x: str) -> str:
    return d.op("CumProd", x, d.const(-1, np.int64))


def _loss(op: str) -> Step:
    def step(d: Draw, x: str) -> str:
        shape = d.shape(x)
        return d.op(op, x, d.const(np.zeros((shape[0], *shape[2:])), np.int64))

    return step


def _boxes(d: Draw, x: str) -> str:
    if len(d.shape(x)) != 3:
        raise IllegalDrawError("it reads one set of boxes a sample")
    boxes = d.op("Transpose", x, perm=[0, 2, 1])
    scores = d.op("ReduceMax", x, d.ints(1), keepdims=1)
    return _cast(d, d.op("NonMaxSuppression", boxes, scores, d.const(2, np.int64)))


def _counted(d: Draw, x: str) -> str:
    return d.op("QuantizeLinear", x, d.const(0.05), d.const(128, np.uint8))


def _conv_integer(d: Draw, x: str) -> str:
    shape = d.shape(x)
    weight = d.const(np.ones((2, shape[1], *[1] * (len(shape) - 2))), np.uint8)
    return _cast(d, d.op("ConvInteger", _counted(d, x), weight, d.const(128, np.uint8)))


def _matmul_integer(d: Draw, x: str) -> str:
    return _cast(d, d.op("MatMulInteger", _counted(d, x), d.const(np.ones((d.shape(x)[-1], 2)), np.uint8)))


def _q_linear(d: Draw, x: str, op: str, weight: str) -> str:
    step, middle = d.const(0.05), d.const(128, np.uint8)
    counted = d.op(op, _counted(d, x), step, middle, weight, step, d.const(0, np.uint8), step, middle)
    return d.op("DequantizeLinear", counted, step, middle)


def _q_linear_conv(d: Draw, x: str) -> str:
    shape = d.shape(x)
    return _q_linear(d, x, "QLinearConv", d.const(np.ones((2, shape[1], *[1] * (len(shape) - 2))), np.uint8))


def _q_linear_matmul(d: Draw, x: str) -> str:
    return _q_linear(d, x, "QLinearMatMul", d.const(np.ones((d.shape(x)[-1], 2)), np.uint8))


def _sequence(d: Draw, x: str) -> str:
    return d.op("SequenceConstruct", x, x)


def _sequenced(op: str) -> Step:
    """An operator on sequences, from a value and back."""

    def step(d: Draw, x: str) -> str:
        first = d.const(0, np.int64)
        if op == "SequenceConstruct":
            return d.op("SequenceAt", _sequence(d, x), first)
        if op == "SequenceEmpty":
            return d.op("SequenceAt", d.op("SequenceInsert", d.op(op, dtype=FLOAT), x), first)
        if op == "SequenceLength":
            return d.op("Mul", x, _cast(d, d.op(op, _sequence(d, x))))
        if op == "SplitToSequence":
            return d.op("SequenceAt", d.op(op, x, d.const(2, np.int64), axis=1), first)
        if op == "SequenceAt":
            return d.op(op, _sequence(d, x), first)
        if op == "ConcatFromSequence":
            return d.op(op, _sequence(d, x), axis=1)
        rest = {"SequenceInsert": [x], "SequenceErase": [first], "SequenceMap": []}[op]
        attributes = {"body": _negated()} if op == "SequenceMap" else {}
        return d.op("SequenceAt", d.op(op, _sequence(d, x), *rest, **attributes), first)

    return step


def _optional(op: str) -> Step:
    def step(d: Draw, x: str) -> str:
        held = d.op("Optional", x)
        if op == "OptionalHasElement":
            return d.op("Mul", x, _cast(d, d.op(op, held)))
        return d.op("OptionalGetElement", held)

    return step


def _value(name: str, kind: int = FLOAT, shape: tuple[int, ...] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _negated() -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Neg", ["in"], ["out"])], "body", [_value("in")], [_value("out")])


def _branch(d: Draw, x: str) -> str:
    then = helper.make_graph([helper.make_node("Neg", [x], ["negated"])], "then", [], [_value("negated")])
    other = helper.make_graph([helper.make_node("Relu", [x], ["positive"])], "else", [], [_value("positive")])
    return d.op("If", d.const(True, np.bool_), then_branch=then, else_branch=other)


def _loop(d: Draw, x: str) -> str:
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["held"], ["next"])]
    read = [_value("i", INT64, ()), _value("go", BOOL, ()), _value("held")]
    body = helper.make_graph(nodes, "body", read, [_value("on", BOOL, ()), _value("next")])
    return d.op("Loop", d.const(2, np.int64), d.const(True, np.bool_), x, body=body)


def _scan(d: Draw, x: str) -> str:
    return d.op("Scan", x, num_scan_inputs=1, body=_negated())


def _terms(d: Draw, x: str) -> str:
    whole = _cast(d, x, INT32)
    return d.op(
        "TfIdfVectorizer",
        whole,
        max_gram_length=1,
        max_skip_count=0,
        min_gram_length=1,
        mode="TF",
        ngram_counts=[0],
        ngram_indexes=[0, 1],
        pool_int64s=[0, 1],
    )


def _swiglu(d: Draw, x: str) -> str:
    return d.op("SwiGLU", x, d.op("Relu", x))


def _tensor_scatter(d: Draw, x: str) -> str:
    if len(d.shape(x)) < 3:
        raise IllegalDrawError("it has no axis of time")
    return d.op("TensorScatter", x, d.op("Relu", x))


def _linear_attention(d: Draw, x: str) -> str:
    if len(d.dims) != 3:
        raise IllegalDrawError("only for sequences")
    return d.op("LinearAttention", x, x, x, outs=2, q_num_heads=1, kv_num_heads=1, update_rule="linear")


def _causal_conv(d: Draw, x: str) -> str:
    if len(d.dims) != 3:
        raise IllegalDrawError("only for sequences")
    return d.op("CausalConvWithState", x, d.weights(4, 1, 2), outs=2)


ALONE: dict[str, Step] = {
    "AffineGrid": _affine,
    **{op: _truth(op) for op in ("And", "Or", "Xor", "Not")},
    "Bernoulli": _bernoulli,
    "BitCast": _bit_cast,
    **{op: _bits(op) for op in ("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")},
    **{op: _window(op) for op in ("BlackmanWindow", "HammingWindow", "HannWindow")},
    "CausalConvWithState": _causal_conv,
    "Constant": _factor(_constant),
    "ConstantOfShape": _factor(lambda d, x: d.op("ConstantOfShape", d.ints(*d.shape(x)))),
    "ConvInteger": _conv_integer,
    "CumProd": _cum_prod,
    "If": _branch,
    **{op: _says(op) for op in ("IsInf", "IsNaN", "NonZero", "Sign")},
    "LinearAttention": _linear_attention,
    "Loop": _loop,
    "MatMulInteger": _matmul_integer,
    "MelWeightMatrix": _mel,
    "Multinomial": _multinomial,
    **{op: _loss(op) for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")},
    "NonMaxSuppression": _boxes,
    "OneHot": _one_hot,
    **{op: _optional(op) for op in ("Optional", "OptionalGetElement", "OptionalHasElement")},
    "QLinearConv": _q_linear_conv,
    "QLinearMatMul": _q_linear_matmul,
    **{op: _random(op) for op in ("RandomNormal", "RandomUniform")},
    **{op: _like(op) for op in ("RandomNormalLike", "RandomUniformLike")},
    "Range": _factor(_range),
    "RegexFullMatch": _text("RegexFullMatch", pattern="1.*"),
    "Scan": _scan,
    **{op: _sequenced(op) for op in ("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty")},
    **{op: _sequenced(op) for op in ("SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap")},
    "SplitToSequence": _sequenced("SplitToSequence"),
    "Shape": lambda d, x: d.op("Reshape", x, d.op("Shape", x)),
    "Size": _factor(lambda d, x: _cast(d, d.op("Size", x))),
    "StringConcat": _text("StringConcat", _number),
    "StringNormalizer": _text("StringNormalizer", locale="C"),
    "StringSplit": _split_text,
    "SwiGLU": _swiglu,
    "TensorScatter": _tensor_scatter,
    "TfIdfVectorizer": _terms,
}
