"""Taking a serialized model apart and putting it together: nothing is lost, and no bytes make it crash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.protobuf import BULKY, DOUBLE_DATA, FLOAT_DATA, RAW_DATA, Span, join_weights, split_weights
from onnxnorm.model.shapes import read_graph, sample_shapes

steady = settings(deadline=None, derandomize=True, database=None, max_examples=60)


@dataclass(frozen=True)
class Piece:
    """Bulky data for `join_weights`, handed out in chunks."""

    data: bytes
    field: int

    @property
    def length(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterable[bytes]:
        for start in range(0, len(self.data), 1000):
            yield self.data[start : start + 1000]


def taken_apart(serialized: bytes) -> tuple[bytes, dict[int, Span], dict[int, Piece]]:
    skeleton, spans = split_weights(memoryview(serialized))
    pieces = {i: Piece(serialized[s.offset : s.offset + s.length], s.field) for i, s in spans.items()}
    return skeleton, spans, pieces


def together(skeleton: bytes, pieces: dict[int, Piece]) -> bytes:
    return b"".join(join_weights(skeleton, pieces))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def delimited(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


@st.composite
def tensors(draw: st.DrawFn) -> TensorProto:
    name = draw(st.text(max_size=5))
    size = draw(st.sampled_from([0, 1, 3, BULKY // 4 - 1, BULKY // 4, BULKY // 4 + 1, 3000]))
    how = draw(st.sampled_from(["raw", "float", "double", "int64", "half", "string", "pieces"]))
    values = np.arange(size, dtype=np.float32) / 7
    if how == "raw":
        return numpy_helper.from_array(values.reshape(1, -1), name)
    if how == "pieces":  # two fields at once, which no one writes
        return TensorProto(name=name, data_type=TensorProto.FLOAT, raw_data=values.tobytes(), float_data=values)
    fields = {
        "float": (TensorProto.FLOAT, "float_data"),
        "double": (TensorProto.DOUBLE, "double_data"),
        "int64": (TensorProto.INT64, "int64_data"),
        "half": (TensorProto.FLOAT16, "int32_data"),
        "string": (TensorProto.STRING, "string_data"),
    }
    kind, field = fields[how]
    tensor = TensorProto(name=name, data_type=kind, dims=[size], doc_string=draw(st.text(max_size=3)))
    numbers = [b"x" * 9] * min(size, 5) if how == "string" else values.astype(np.int64 if how == "int64" else float)
    getattr(tensor, field).extend([int(v) for v in numbers] if how in {"int64", "half"} else list(numbers))
    return tensor


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Models with all kinds of initializers, metadata, attributes that hold tensors, and fields that nobody knows."""
    inner = draw(tensors())
    node = helper.make_node("Constant", [], ["c"], value=inner, name=draw(st.text(max_size=5)))
    graph = helper.make_graph([node], "g", [], [], draw(st.lists(tensors(), max_size=5)))
    proto = helper.make_model(graph, doc_string=draw(st.text(max_size=20)))
    proto.metadata_props.add(key=draw(st.text(max_size=5)), value=draw(st.text(max_size=5)))
    unknown = draw(st.lists(st.tuples(st.integers(100, 1 << 20), st.binary(max_size=20)), max_size=3))
    serialized = proto.SerializeToString() + b"".join(delimited(number, data) for number, data in unknown)
    return onnx.ModelProto.FromString(serialized)


@steady
@given(models())
def test_round_trip(proto: onnx.ModelProto) -> None:
    serialized = proto.SerializeToString()
    skeleton, spans, pieces = taken_apart(serialized)
    rebuilt = onnx.ModelProto.FromString(together(skeleton, pieces))
    assert rebuilt.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)
    assert len(skeleton) + sum(span.length for span in spans.values()) <= len(serialized)
    bare = onnx.ModelProto.FromString(skeleton)
    for index, tensor in enumerate(bare.graph.initializer):
        assert (index in spans) is bool(tensor.ByteSize() < proto.graph.initializer[index].ByteSize())
    # also after protobuf has written the skeleton again
    again = together(bare.SerializeToString(), pieces)
    assert onnx.ModelProto.FromString(again) == proto


def test_what_is_bulky() -> None:
    exact, below = np.zeros(BULKY // 4, np.float32), np.zeros(BULKY // 4 - 1, np.float32)
    typed = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2000], float_data=np.ones(2000))
    double = TensorProto(name="d", data_type=TensorProto.DOUBLE, dims=[2000], double_data=np.ones(2000))
    initializers = [numpy_helper.from_array(exact, "a"), numpy_helper.from_array(below, "b"), typed, double]
    proto = helper.make_model(helper.make_graph([], "g", [], [], initializers))
    _, spans, _ = taken_apart(proto.SerializeToString())
    assert {index: span.field for index, span in spans.items()} == {0: RAW_DATA, 2: FLOAT_DATA, 3: DOUBLE_DATA}
    assert spans[0].length == BULKY


def test_a_graph_in_two_pieces() -> None:
    """Protobuf merges a message that is written twice; so must the count of initializers go on."""
    one, two = (numpy_helper.from_array(np.full(2000, k, np.float32), f"w{k}") for k in (1, 2))
    halves = [onnx.GraphProto(name="g", initializer=[tensor]).SerializeToString() for tensor in (one, two)]
    serialized = b"".join(delimited(7, half) for half in halves)
    skeleton, spans, pieces = taken_apart(serialized)
    assert set(spans) == {0, 1}
    assert onnx.ModelProto.FromString(together(skeleton, pieces)) == onnx.ModelProto.FromString(serialized)


def test_numbers_that_are_not_packed() -> None:
    """A float_data field of single numbers, as old writers left it, stays in the skeleton."""
    numbers = b"".join(varint(4 << 3 | 5) + np.float32(k).tobytes() for k in range(2000))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2000]).SerializeToString() + numbers
    serialized = delimited(7, delimited(5, tensor))
    skeleton, spans, _ = taken_apart(serialized)
    assert spans == {}
    assert skeleton == serialized


def test_other_data_of_another_length() -> None:
    proto = helper.make_model(helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.zeros(2000), "w")]))
    skeleton, _, _ = taken_apart(proto.SerializeToString())
    rebuilt = onnx.ModelProto.FromString(together(skeleton, {0: Piece(b"x" * 300_000, RAW_DATA)}))
    assert rebuilt.graph.initializer[0].raw_data == b"x" * 300_000
    assert rebuilt.graph.initializer[0].name == "w"


# --- bytes that are no model ---------------------------------------------------------------------------------------


def plain_model() -> onnx.ModelProto:
    """A small legal network with bulky and small, raw and typed weights."""
    random = np.random.default_rng(0)
    big = numpy_helper.from_array(random.normal(size=(40, 3, 3, 3)).astype(np.float32), "w")
    small = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[40], float_data=random.normal(size=40))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        helper.make_node("Clip", ["c", "", "k"], ["y"]),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.asarray(6, np.float32))),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s, 8, 8]) for n, s in (("x", 3), ("y", 40))]
    graph = helper.make_graph([nodes[2], *nodes[:2]], "g", infos[:1], infos[1:], [big, small])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


PLAIN = plain_model().SerializeToString()


def opened(data: bytes) -> None:
    """All that is done with a model before a runtime sees it; only ModelError may come out."""
    try:
        skeleton, _ = split_weights(memoryview(data))
        proto = onnx.ModelProto.FromString(skeleton)
    except (ValueError, DecodeError):
        return
    del proto
    with contextlib.suppress(ModelError):
        # the ModelProto that these bytes make, if they make one
        try:
            parsed = onnx.ModelProto.FromString(data)
        except DecodeError:
            return
        model = Model.open(parsed)
        model.digest()
        for index in range(len(model.proto.graph.initializer)):
            model.values(index)
        read_graph(model, sample_shapes((), None))


def test_truncated_anywhere() -> None:
    for length in [*range(0, 400), *range(400, len(PLAIN), 97)]:
        opened(PLAIN[:length])
    with pytest.raises(ValueError, match="byte"):
        split_weights(memoryview(PLAIN[:-1]))


@steady
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    opened(data)
    opened(delimited(7, data))
    opened(delimited(7, delimited(5, data)))


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_corrupted_bytes(changes: list[tuple[int, int]], tail: bool) -> None:
    data = bytearray(PLAIN)
    for position, value in changes:
        data[len(data) - 1 - position if tail else position] = value
    opened(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 20,  # a number without an end
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a graph of nearly 2**63 bytes
        b"\x3b",  # a group, which ONNX does not have
        b"\x00\x00",  # field 0
        b"not a model at all",
    ],
)
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match="byte"):
        split_weights(memoryview(data))
