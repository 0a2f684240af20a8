"""What a law is: a function from one visit of a node to the slots of its outputs, or to a refusal with a reason.

A law is registered for its operators with `@law("Conv", ...)`; registering an operator twice raises ValueError. The
role says what the operator means for a filter whose output reaches it. A *transparent* operator passes every channel
on, so the search for the filter's activation continues at its output. At the output of a *nonlinearity* the filter is
measured. A *mixing* operator has filters or dense units of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from onnxnorm.scaling.operand import Refusal
from onnxnorm.scaling.visit import Outcome, Visit

__all__ = ["LAWS", "Law", "Role", "law", "refuses"]

Role = Literal["transparent", "nonlinearity", "mixing", "other"]


@dataclass(frozen=True)
class Law:
    """A registered law, its role, and its reason if it always refuses."""

    apply: Callable[[Visit], Outcome]
    role: Role
    barrier: str | None = None


LAWS: dict[str, Law] = {}


def law(*operators: str, role: Role = "other") -> Callable[[Callable[[Visit], Outcome]], Callable[[Visit], Outcome]]:
    """Decorator that registers a law for operators of ONNX's own domain. Raises ValueError if one has a law already."""

    def register(function: Callable[[Visit], Outcome]) -> Callable[[Visit], Outcome]:
        for operator in operators:
            _register(operator, Law(function, role))
        return function

    return register


def refuses(reason: str, *operators: str, role: Role = "other") -> None:
    """Register operators that are barriers on purpose, with the reason why they are."""
    for operator in operators:
        _register(operator, Law(lambda _: Refusal(reason), role, reason))


def _register(operator: str, entry: Law) -> None:
    if operator in LAWS:
        raise ValueError(f"operator {operator} has two laws")
    LAWS[operator] = entry
