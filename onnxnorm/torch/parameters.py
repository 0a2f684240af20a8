"""From the constants that a rewrite changed to the parameters of the module, and what cannot go that way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.api import Rewritten
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.torch.holding import hold, hold_attributes
from onnxnorm.torch.state import State

__all__ = ["Change", "changes_of", "hold_others"]

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Change:
    """New values of one parameter or buffer."""

    parameter: str
    values: Array = field(repr=False)


def changes_of(old: Model, outcome: Rewritten, state: State) -> tuple[list[Change], dict[str, str]]:
    """Which parameters a rewrite changes.

    Args:
        old: the exported model.
        outcome: its rewrite.
        state: the parameters and buffers of the module.

    Returns:
        The changes, and why other constants must not change, by name.

    Raises:
        ModelError: if the rewrite added nodes.
    """
    new = outcome.rewriting.model
    _check_nodes(old.proto, outcome)
    others = {
        clone.constant: "shared by several places, which need different scales" for clone in outcome.rewriting.clones
    }
    before = {tensor.name: index for index, tensor in enumerate(old.proto.graph.initializer)}
    after = {tensor.name: index for index, tensor in enumerate(new.proto.graph.initializer)}
    literals = _literals(old.proto), _literals(new.proto)
    changes: list[Change] = []
    for name in outcome.rewriting.changed:
        if name in others or name in outcome.rewriting.record.attributes:
            continue
        if name in before:
            pair = old.values(before[name]), new.values(after[name])
        else:
            pair = literals[0][name], literals[1][name]
        if np.array_equal(*pair):  # zeros
            continue
        parameter = None if name not in before else state.name_of(name, pair[0], frozenset(before))
        entangled = None if parameter is None else state.entangled(parameter)
        if parameter is None:
            others[name] = "not a parameter or buffer of the module"
        elif entangled is not None:
            others[name] = f"in the same memory as {entangled}"
        else:
            changes.append(Change(parameter, pair[1]))
    return changes, others


def hold_others(
    proto: onnx.ModelProto, constants: Mapping[str, str], attributes: Mapping[str, str], held: dict[str, str]
) -> None:
    """Pin constants and attributes (by `output:name`) in the exported model, and note why.

    Raises:
        ModelError: if one of them was held already, and changed all the same.
    """
    others = {**constants, **attributes}
    again = next((name for name in others if name in held), None)
    if again is not None:
        raise ModelError(f"constant {again!r} must keep its values ({others[again]}), and cannot be kept from changing")
    held |= others
    hold(proto, constants)
    hold_attributes(proto, {title.rpartition(":")[0] for title in attributes})


def _literals(proto: onnx.ModelProto) -> dict[str, Array]:
    """The values of Constant nodes, by the name of their output."""
    return {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in proto.graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }


def _check_nodes(before: onnx.ModelProto, outcome: Rewritten) -> None:
    """Raise ModelError if a rewrite added nodes, or changed operators."""
    nodes = outcome.rewriting.additions.nodes
    if nodes:
        first, more = nodes[0], f" and {len(nodes) - 1:,} more" if nodes[1:] else ""
        end = f"node {first.before[0]!r}" if first.before else "the output"
        raise ModelError(
            f"allow='nodes' needs multiplications for which a module in place has no room, between node "
            f"{first.behind!r} and {end}{more}; use allow='attributes', or make an ONNX file, by torch.onnx.export and "
            "onnxnorm.normalize(..., allow='nodes')"
        )
    old, new = (
        [node.op_type for node in proto.graph.node if node.op_type != "Constant"]
        for proto in (before, outcome.rewriting.model.proto)
    )
    if old != new:
        raise ModelError(
            "the rewrite changed nodes, which are no parameters of the module; export the module and use "
            "onnxnorm.normalize"
        )
