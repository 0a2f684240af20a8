"""Epsilons: from attributes of nodes to the `eps` of modules.

A normalization divides by the deviation of its input and an epsilon, which follows the scale of the input. In the
exported model it is an attribute of a node, in the module the attribute `eps` of the part that made the node. Exporters
tell which part that is: PyTorch's new one in the metadata of the node, the old one in its name.

One `eps` serves all nodes of its module, so all of them must want the same new value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from onnxnorm.rewriting.record import Record

__all__ = ["Epsilons"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_CALL = re.compile(r"(?:@|_)\d+$")
"""What exporters append to the name of a module at its second call and later ones."""


class Epsilons:
    """The modules of a network by name, and which of them has the epsilon of which node of the exported model.

    Attributes:
        modules: all modules, by name.
        of: the name of the module, by the first output of the node.
    """

    def __init__(self, module: Any, proto: onnx.ModelProto) -> None:
        self.modules: dict[str, Any] = dict(module.named_modules(remove_duplicate=False))
        owners = {node.output[0]: self._owner(node) for node in proto.graph.node if node.output}
        self.of = {output: name for output, name in owners.items() if name is not None}

    def changes_of(self, record: Record) -> tuple[dict[str, float], dict[str, str]]:
        """Which epsilons a rewrite changes.

        Args:
            record: by what each constant and attribute of the exported model was multiplied.

        Returns:
            The new epsilons by module, and why other attributes must not change, by `output:name`.
        """
        factors = {
            title: float(record.factors[title].times / record.factors[title].over) for title in record.attributes
        }
        changes, others = {}, {}
        for title, attribute in record.attributes.items():
            name = self.of.get(attribute.output) if attribute.name == "epsilon" else None
            factor = factors[title]
            if name is None:
                others[title] = "not the eps of a module"
            elif any(factors.get(f"{output}:epsilon", 1.0) != factor for output in self._outputs_of(name)):
                others[title] = f"the eps of module {name!r}, which runs several times, at different scales"
            else:
                changes[name] = self.modules[name].eps * factor
        return changes, others

    def _outputs_of(self, name: str) -> list[str]:
        """The first output of every node that reads the `eps` of a module."""
        return [output for output, other in self.of.items() if self.modules[other] is self.modules[name]]

    def _owner(self, node: onnx.NodeProto) -> str | None:
        """The module whose `eps` is the epsilon of a node; None if it is none's, or cannot be set."""
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), None)
        name = self._scope(node)
        value = getattr(self.modules.get(name), "eps", None)
        if epsilon is None or not isinstance(value, float) or np.float32(value) != np.float32(epsilon):
            return None
        return name if _settable(self.modules[name], "eps", value) else None

    def _scope(self, node: onnx.NodeProto) -> str:
        """The name of the innermost module that made a node, the first one if it has several; empty for the network."""
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), None)
        parts = node.name.split("/")[1:-1] if scopes is None else _words(scopes)
        name = ""
        for part in parts:
            names = [f"{name}.{part}", part, f"{name}.{_CALL.sub('', part)}", _CALL.sub("", part)]
            name = next((known for known in names if known in self.modules), name)
        return next(other for other, module in self.modules.items() if module is self.modules[name])

    @contextmanager
    def replaced(self, changes: Mapping[str, float]) -> Iterator[None]:
        """Set the `eps` of modules, by name; if the block raises anything, set them back."""
        kept = {name: self.modules[name].eps for name in changes}
        try:
            for name, value in changes.items():
                self.modules[name].eps = value
            yield
        except BaseException:
            for name, value in kept.items():
                self.modules[name].eps = value
            raise


def _words(text: str) -> list[str]:
    """The strings of a list, as PyTorch writes it into metadata; none if it is something else."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [word for word in found if isinstance(word, str) and word] if isinstance(found, list) else []


def _settable(module: Any, name: str, value: float) -> bool:
    """Whether an attribute of a module can be set; it is set to the value that it has."""
    try:
        setattr(module, name, value)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return True
