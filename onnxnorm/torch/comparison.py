"""Whether a module returns the same as before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import VerificationError
from onnxnorm.torch.installed import load_torch

__all__ = ["TOLERANCES", "difference", "run"]

Arrays = list[NDArray[Any]]

TOLERANCES = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-10}
"""How far outputs may differ by rounding, relative to their largest magnitude."""


def run(module: Any, feeds: Iterable[Mapping[str, NDArray[Any]]], device: Any) -> list[Arrays]:
    """What a module returns for each batch: all tensors in it, in order."""
    torch = load_torch()
    found = []
    for feed in feeds:
        returned = module(*(torch.as_tensor(np.array(array)).to(device) for array in feed.values()))
        found.append([_array(tensor) for tensor in _tensors(returned)])
    return found


def difference(
    before: Sequence[Arrays], after: Sequence[Arrays], scales: Sequence[NDArray[np.float64] | None] = ()
) -> float:
    """The largest difference of any floating-point output, relative to its largest magnitude over all batches.

    Args:
        before: what the module returned, for each batch.
        after: what it returns now.
        scales: by what each output was multiplied on purpose; None or absent for one that was kept.

    Raises:
        VerificationError: if an output is not finite, or the outputs are not as many or not of the shapes as before.
    """
    worst = 0.0
    for position in range(max(map(len, before), default=0)):
        pairs = [(old[position], new[position]) for old, new in zip(before, after, strict=True)]
        if pairs[0][0].dtype.kind != "f":  # labels, which rounding can tip over
            continue
        scale = scales[position] if position < len(scales) else None
        size = max(float(np.abs(old.astype(np.float64)).max(initial=0)) for old, _ in pairs)
        for old, new in pairs:
            if old.shape != new.shape:
                raise VerificationError(
                    f"output {position} has the shape {new.shape} now, and had {old.shape}; the module is as it was"
                )
            error = np.abs(old - new / (1 if scale is None else scale)).max(initial=0)
            if not np.isfinite(error) and np.isfinite(size):
                raise VerificationError(f"output {position} is not finite any more; the module is as it was")
            worst = max(worst, float(error) / size if size else float(error))
    return worst


def _array(tensor: Any) -> NDArray[Any]:
    """The values of a tensor; NumPy has no bfloat16."""
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    return array


def _tensors(value: Any) -> Iterator[Any]:
    """Every tensor in what a module returns, in the order of the exported model's outputs."""
    if hasattr(value, "is_floating_point"):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
