"""What a law is given, an operand, and what it may answer: a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from onnxnorm.errors import ModelError
from onnxnorm.model.constants import Constant
from onnxnorm.scaling.slots import Ids

__all__ = ["Operand", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """Why a node is a barrier."""

    reason: str


class Operand(NamedTuple):
    """An input of a node. A walk makes several for each: tuples are made in a fraction of a dataclass's time.

    Attributes:
        name: name of the value.
        position: which input of the node it is.
        ids: its slots, which broadcast against it.
        shape: its shape; None if that is not known.
        constant: the constant, if it is one.
    """

    name: str
    position: int
    ids: Ids
    shape: tuple[int, ...] | None
    constant: Constant | None

    @property
    def rank(self) -> int:
        """Number of axes; that of the slots if the shape is unknown."""
        return self.ids.ndim if self.shape is None else len(self.shape)

    @property
    def uniform(self) -> bool:
        """Whether all elements have the same slot."""
        return self.ids.size == 1

    def axis(self, number: int) -> int:
        """The axis of this number, which counts from the end if it is negative.

        Raises:
            ModelError: if the value is a single number.
        """
        if not self.rank:
            raise ModelError(
                f"value {self.name!r} is a single number, and a node that reads it works along its axis {number}; "
                "correct the model, and export it again"
            )
        return number % self.rank
