"""Splitting a serialized model into a small graph and its bulky weights, and joining the two again.

Parsing a model with protobuf copies every weight, and changing one leaves the old bytes in memory as well. So the
weights never go through protobuf here. `split_weights` reads the serialized ModelProto and returns it *without* the
bulky data of its initializers (the skeleton, which protobuf parses quickly), and the position of each piece of data in
the file. `join_weights` is its inverse: it serializes a skeleton as chunks of bytes, with the data of its initializers
put back.

Invariant: parsing `join_weights(skeleton, data)` gives the ModelProto that parsing the original gives.

Only two levels of nesting matter. The field numbers are those of onnx.proto, the wire format that of the protobuf
encoding guide::

    ModelProto.graph = 7 → GraphProto.initializer = 5 → TensorProto.raw_data = 9, float_data = 4, double_data = 10

Packed `float_data` and `double_data` are little-endian arrays on the wire, the same bytes as `raw_data`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["RAW_DATA", "Span", "TensorData", "join_weights", "split_weights"]

GRAPH, INITIALIZER = 7, 5
FLOAT_DATA, RAW_DATA, DOUBLE_DATA = 4, 9, 10
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5

# Bytes. Smaller data stays in the skeleton, where shape inference and the laws read it.
BULKY = 4096


@dataclass(frozen=True)
class Span:
    """The bytes `[offset, offset + length)` of a buffer, and the TensorProto field that they fill."""

    offset: int
    length: int
    field: int = RAW_DATA


class TensorData(Protocol):
    """Bulky data of one initializer: the TensorProto field that holds it, its length, and its bytes in chunks."""

    @property
    def field(self) -> int:
        """Number of the TensorProto field."""

    @property
    def length(self) -> int:
        """Size in bytes."""

    def chunks(self) -> Iterable[bytes | memoryview]:
        """The bytes, in order, in chunks of any size."""


@dataclass(frozen=True)
class _Field:
    number: int
    wire: int
    start: int  # of the tag
    payload: int  # of the contents
    end: int


def split_weights(buffer: memoryview) -> tuple[bytes, dict[int, Span]]:
    """Split a serialized ModelProto.

    Returns:
        The serialized skeleton, and the spans of the bulky data in `buffer` by the initializer's index.

    Raises:
        ValueError: if the buffer is not protobuf.
    """
    spans: dict[int, Span] = {}
    pieces: list[bytes] = []
    index = 0
    for field in _fields(buffer, 0, len(buffer)):
        if (field.number, field.wire) != (GRAPH, DELIMITED):
            pieces.append(bytes(buffer[field.start : field.end]))
            continue
        graph: list[bytes] = []
        for inner in _fields(buffer, field.payload, field.end):
            if (inner.number, inner.wire) != (INITIALIZER, DELIMITED):
                graph.append(bytes(buffer[inner.start : inner.end]))
                continue
            tensor, span = _strip_tensor(buffer, inner)
            if span is not None:
                spans[index] = span
            graph.append(_delimited(INITIALIZER, tensor))
            index += 1
        pieces.append(_delimited(GRAPH, b"".join(graph)))
    return b"".join(pieces), spans


def join_weights(skeleton: bytes, tensor_data: Mapping[int, TensorData]) -> Generator[bytes | memoryview, None, None]:
    """Yield, in chunks, the ModelProto of a serialized skeleton and the data of its initializers, given by index."""
    view = memoryview(skeleton)
    index = 0
    for field in _fields(view, 0, len(view)):
        if (field.number, field.wire) != (GRAPH, DELIMITED):
            yield view[field.start : field.end]
            continue
        inners = list(_fields(view, field.payload, field.end))
        owned: list[TensorData | None] = []
        for inner in inners:
            is_initializer = (inner.number, inner.wire) == (INITIALIZER, DELIMITED)
            owned.append(tensor_data.get(index) if is_initializer else None)
            index += is_initializer
        heads = [_tensor_heads(inner, data) for inner, data in zip(inners, owned, strict=True)]
        size = sum(
            inner.end - inner.start if data is None else len(head) + inner.end - inner.payload + len(tail) + data.length
            for inner, data, (head, tail) in zip(inners, owned, heads, strict=True)
        )
        yield _tag(GRAPH, DELIMITED) + _varint(size)
        for inner, data, (head, tail) in zip(inners, owned, heads, strict=True):
            if data is None:
                yield view[inner.start : inner.end]
                continue
            yield head
            yield view[inner.payload : inner.end]
            yield tail
            yield from data.chunks()


def _tensor_heads(inner: _Field, data: TensorData | None) -> tuple[bytes, bytes]:
    """The bytes before the fields of a TensorProto in the skeleton, and those between them and its data."""
    if data is None:
        return b"", b""
    tail = _tag(data.field, DELIMITED) + _varint(data.length)
    return _tag(INITIALIZER, DELIMITED) + _varint(inner.end - inner.payload + len(tail) + data.length), tail


def _strip_tensor(buffer: memoryview, tensor: _Field) -> tuple[bytes, Span | None]:
    """A TensorProto without its bulky data, and the span of that data. Data in several pieces is left in."""
    if tensor.end - tensor.payload < BULKY:
        return bytes(buffer[tensor.payload : tensor.end]), None
    data = (RAW_DATA, FLOAT_DATA, DOUBLE_DATA)
    fields = list(_fields(buffer, tensor.payload, tensor.end))
    bulky = [f for f in fields if f.number in data and f.wire == DELIMITED and f.end - f.payload >= BULKY]
    if len(bulky) != 1 or sum(f.number in data for f in fields) != 1:
        return bytes(buffer[tensor.payload : tensor.end]), None
    rest = b"".join(bytes(buffer[f.start : f.end]) for f in fields if f is not bulky[0])
    return rest, Span(bulky[0].payload, bulky[0].end - bulky[0].payload, bulky[0].number)


def _fields(buffer: memoryview, start: int, end: int) -> Iterator[_Field]:
    position = start
    while position < end:
        tag, payload = _read_varint(buffer, position, end)
        wire = tag & 7
        if wire == VARINT:
            _, stop = _read_varint(buffer, payload, end)
        elif wire == DELIMITED:
            length, payload = _read_varint(buffer, payload, end)
            stop = payload + length
        elif wire in (FIXED64, FIXED32):
            stop = payload + (8 if wire == FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire} at byte {position} is not protobuf")
        if stop > end or tag >> 3 == 0:
            raise ValueError(f"the field at byte {position} reaches past the end of its message")
        yield _Field(tag >> 3, wire, position, payload, stop)
        position = stop


def _read_varint(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = buffer[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError(f"a number is cut short at byte {position}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _delimited(number: int, payload: bytes) -> bytes:
    return _tag(number, DELIMITED) + _varint(len(payload)) + payload
