"""One small graph for each operator on text, sequences or optional values, or with a subgraph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.helpers.draws.draw import Draw, Step

__all__ = ["OTHERS", "cast"]

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
BOOL, STRING = TensorProto.BOOL, TensorProto.STRING


def cast(d: Draw, x: str, to: int = FLOAT) -> str:
    """A value in another type."""
    return d.op("Cast", x, to=to)


def _text(op: str, *rest: str, **attributes: Any) -> Step:
    """An operator that reads the numbers as text, and these words."""

    def step(d: Draw, x: str) -> str:
        text = cast(d, d.op("Reshape", x, d.ints(-1)), STRING)
        return cast(d, d.op(op, text, *(d.const([word], object) for word in rest), **attributes))

    return step


def _split_text(d: Draw, x: str) -> str:
    parts, _ = d.many("StringSplit", cast(d, x, STRING), outs=2, delimiter=" ")
    return cast(d, parts)


def _terms(d: Draw, x: str) -> str:
    whole = cast(d, x, INT32)
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
            return d.op("Mul", x, cast(d, d.op(op, _sequence(d, x))))
        if op == "SplitToSequence":
            return d.op("SequenceAt", d.op(op, x, d.const(2, np.int64), axis=1), first)
        if op == "SequenceAt":
            return d.op(op, _sequence(d, x), first)
        if op == "ConcatFromSequence":
            return d.op(op, _sequence(d, x), axis=1)
        rest = {"SequenceInsert": [x], "SequenceErase": [first], "SequenceMap": []}[op]
        attributes: dict[str, Any] = {"body": _negated()} if op == "SequenceMap" else {}
        return d.op("SequenceAt", d.op(op, _sequence(d, x), *rest, **attributes), first)

    return step


def _optional(op: str) -> Step:
    def step(d: Draw, x: str) -> str:
        held = d.op("Optional", x)
        if op == "OptionalHasElement":
            return d.op("Mul", x, cast(d, d.op(op, held)))
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


OTHERS: dict[str, Step] = {
    "If": _branch,
    "Loop": _loop,
    "Scan": _scan,
    **{op: _optional(op) for op in ("Optional", "OptionalGetElement", "OptionalHasElement")},
    **{op: _sequenced(op) for op in ("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty")},
    **{op: _sequenced(op) for op in ("SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap")},
    "SplitToSequence": _sequenced("SplitToSequence"),
    "RegexFullMatch": _text("RegexFullMatch", pattern="1.*"),
    "StringConcat": _text("StringConcat", "1"),
    "StringNormalizer": _text("StringNormalizer", locale="C"),
    "StringSplit": _split_text,
    "TfIdfVectorizer": _terms,
}
