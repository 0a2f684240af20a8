"""Numbers in attributes that follow scales, such as an epsilon. They are float32, in whatever type a node computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant

__all__ = ["Attribute", "attribute_constant", "set_number"]


@dataclass(frozen=True)
class Attribute:
    """An attribute that changed.

    Attributes:
        output: the first output of the node, by which it is found.
        name: name of the attribute.
        absent: whether the node did not have it before, so that its default held.
    """

    output: str
    name: str
    absent: bool

    @classmethod
    def named(cls, title: str, node: onnx.NodeProto) -> Attribute:
        """The attribute that a factor with this title (`output:name`) belongs to."""
        output, _, name = title.rpartition(":")
        return cls(output, name, not any(attribute.name == name for attribute in node.attribute))


def attribute_constant(proto: onnx.ModelProto, attribute: Attribute) -> Constant:
    """The number in an attribute, as a constant. Raises ModelError if the model has no such node."""
    for index, node in enumerate(proto.graph.node):
        if node.output and node.output[0] == attribute.output:
            for found in node.attribute:
                if found.name == attribute.name and found.type == onnx.AttributeProto.FLOAT:
                    title, value = f"{attribute.output}:{attribute.name}", np.asarray(np.float32(found.f))
                    return Constant(title, (), value.dtype, "attribute", index, read=partial(np.copy, value))
    raise ModelError(
        f"the record names attribute {attribute.name!r} of the node that writes {attribute.output!r}, which the model "
        "does not have; it cannot be undone"
    )


def set_number(node: onnx.NodeProto, name: str, value: float | None) -> None:
    """Set an attribute that is a number, or remove it with None."""
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            if value is None:
                del node.attribute[index]
            else:
                attribute.f = value
            return
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))
