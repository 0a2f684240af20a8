"""The parameters and buffers of a module: which constant is which of them, and putting values into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.torch.installed import load_torch

__all__ = ["State", "evaluating"]

Array = NDArray[np.generic]


class State:
    """The parameters and buffers of a module by name; a shared one has several names."""

    def __init__(self, module: Any) -> None:
        self.tensors: dict[str, Any] = dict(module.named_parameters(remove_duplicate=False))
        self.tensors |= dict(module.named_buffers(remove_duplicate=False))

    def name_of(self, constant: str, values: Array, used: frozenset[str]) -> str | None:
        """The name of the parameter or buffer that a constant of the exported model is; None if it is none of them.

        It is looked up by name, and must hold the same values. If the exporter gave it another name, it is the only
        one with these values, unless these are but one number, which may be a coincidence.

        Args:
            constant: the constant's name.
            values: its values.
            used: names of all constants of the model.
        """
        if constant in self.tensors:
            return constant if _holds(self.tensors[constant], values) else None
        if values.size < 2 or (values == values.flat[0]).all():
            return None
        matching = {
            id(tensor): name for name, tensor in self.tensors.items() if name not in used and _holds(tensor, values)
        }
        return next(iter(matching.values())) if len(matching) == 1 else None

    def entangled(self, name: str) -> str | None:
        """Another tensor that lies in the same memory, so that the two cannot change each by itself; None if none does.

        A tensor that repeats its elements is entangled with itself. The names of one shared tensor are not: whoever
        reads it reads the same.
        """
        tensor = self.tensors[name]
        if any(stride == 0 and side > 1 for stride, side in zip(tensor.stride(), tensor.shape, strict=True)):
            return name
        start, stop = _span(tensor)
        for other, candidate in self.tensors.items():
            if candidate is not tensor and candidate.device == tensor.device:
                first, last = _span(candidate)
                if first < stop and start < last:
                    return other
        return None

    @contextmanager
    def replaced(self, values: Mapping[str, Array]) -> Iterator[None]:
        """Put values into tensors, by name; if the block raises anything, put the old ones back."""
        torch = load_torch()
        kept = {name: self.tensors[name].detach().clone() for name in values}
        try:
            with torch.no_grad():
                for name, array in values.items():
                    self.tensors[name].copy_(torch.from_numpy(np.array(array)))
            yield
        except BaseException:
            with torch.no_grad():
                for name, tensor in kept.items():
                    self.tensors[name].copy_(tensor)
            raise


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put a module into evaluation mode, without gradients, and each part of it back into its own mode at the end."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with load_torch().no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _holds(tensor: Any, values: Array) -> bool:
    """Whether a tensor has the shape, the type and the values of an array."""
    if tuple(tensor.shape) != values.shape or str(tensor.dtype) != f"torch.{values.dtype}":
        return False
    mine = tensor.detach().cpu().numpy()
    if np.array_equal(mine, values):
        return True
    return values.dtype.kind == "f" and np.array_equal(mine, values, equal_nan=True)  # slower


def _span(tensor: Any) -> tuple[int, int]:
    """The addresses between which a tensor's elements lie; an empty one lies nowhere."""
    if not tensor.numel():
        return (0, 0)
    reach = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size()
