"""Random damage to protobuf messages, field by field: the fields are found by reflection, so none is forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tools.fuzz.mutations import ODD_INTEGERS, ODD_TEXTS, pick

__all__ = ["damage_message", "messages_in"]

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (0, 30),
}
_ODD_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), float("nan"))


def damage_message(random: np.random.Generator, message: Message) -> None:
    """Change one field of the message, or of a message within it, in place."""
    inside = messages_in(message)
    # Half of the time one of a kind that is drawn first: else most changes would fall on the many small messages.
    kinds = sorted({type(item).__name__ for item in inside})
    if random.integers(2):
        kind = pick(random, kinds)
        inside = [item for item in inside if type(item).__name__ == kind]
    target = pick(random, inside)
    fields: list[Any] = [field for field, _ in target.ListFields()]
    if not fields or random.integers(6) == 0:
        fields = list(target.DESCRIPTOR.fields)
    field = pick(random, fields)
    if _is_repeated(field):
        _change_list(random, target, field, message)
    elif random.integers(5) == 0:
        target.ClearField(field.name)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        _replace(random, getattr(target, field.name), message)
    else:
        setattr(target, field.name, _scalar(random, field, message))


def messages_in(message: Message) -> list[Message]:
    """Return the message and all messages within it that are set."""
    found: list[Message] = []
    _collect(message, found)
    return found


def _collect(message: Message, found: list[Message]) -> None:
    found.append(message)
    for field, value in message.ListFields():
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            for item in value if _is_repeated(field) else [value]:
                _collect(item, found)


def _is_repeated(field: Any) -> bool:
    """Whether the field holds a list; older versions of protobuf say that by a label."""
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated)


def _change_list(random: np.random.Generator, target: Message, field: FieldDescriptor, root: Message) -> None:
    items = getattr(target, field.name)
    is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    at = int(random.integers(len(items))) if len(items) else -1
    kind = int(random.integers(6)) if len(items) else 5
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.add().CopyFrom(items[at]) if is_message else items.append(items[at])
    elif kind == 2:
        _swap(items, at, int(random.integers(len(items))), is_message)
    elif kind == 3:
        del items[at:]
    elif is_message:
        _replace(random, items.add() if kind == 5 else items[at], root)
    elif kind == 5:
        items.append(_scalar(random, field, root))
    else:
        items[at] = _scalar(random, field, root)


def _swap(items: Any, one: int, other: int, is_message: bool) -> None:
    if is_message:
        kept = type(items[one])()
        kept.CopyFrom(items[one])
        items[one].CopyFrom(items[other])
        items[other].CopyFrom(kept)
    else:
        items[one], items[other] = items[other], items[one]


def _replace(random: np.random.Generator, target: Message, root: Message) -> None:
    """Make the message a copy of another one of its kind; sometimes an empty one."""
    others = [item for item in messages_in(root) if type(item) is type(target)]
    kept = type(target)()
    if others and random.integers(5):
        kept.CopyFrom(pick(random, others))
    if kept.ByteSize() < 1 << 16:  # else a few copies of a graph into itself would grow without bounds
        target.CopyFrom(kept)


def _scalar(random: np.random.Generator, field: FieldDescriptor, root: Message) -> Any:
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        number = int(random.integers(low, high + 1)) if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM else None
        return min(max(pick(random, ODD_INTEGERS), low), high) if number is None else _enum(field, number)
    if field.cpp_type in {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}:
        return pick(random, _ODD_FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return bool(random.integers(2))
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(random, root)
    return pick(random, (b"", b"\x00", random.bytes(9), _text(random, root).encode()))


def _enum(field: FieldDescriptor, number: int) -> int:
    numbers = [value.number for value in field.enum_type.values] if field.enum_type else [number]
    return numbers[number % len(numbers)]


def _text(random: np.random.Generator, root: Message) -> str:
    """Return a name that is used elsewhere in the model, which joins two edges, or an odd one."""
    if random.integers(3) == 0:
        return pick(random, ODD_TEXTS)
    names = [name for item in messages_in(root) for name in _names(item)]
    return pick(random, names) if names else ""


def _names(message: Message) -> list[str]:
    if isinstance(message, onnx.NodeProto):
        return [message.op_type, message.domain, *message.input, *message.output]
    if isinstance(message, (onnx.ValueInfoProto, onnx.TensorProto, onnx.AttributeProto, onnx.FunctionProto)):
        return [message.name]
    return []
