"""Description of the inputs that a model must be fed, and of those that get one value for all samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import OptionError

__all__ = [
    "LARGEST_VALUE",
    "InputSettings",
    "InputSpec",
    "OpenShape",
    "fits",
    "fixed_batch",
    "read_specs",
    "settled",
    "whole_batches",
    "with_batch_axes",
]

LARGEST_VALUE = 1 << 24
"""Bytes of the largest value that all samples may share; it is recorded in the statistics."""

Shape = tuple[int, ...]
OpenShape = tuple[int | None, ...]


@dataclass(frozen=True)
class InputSpec:
    """One graph input.

    Attributes:
        name: its name.
        shape: its shape, with None for every dimension that the model leaves open.
        dtype: its element type.
        batch: the axis of the samples; None if it has none, as a scalar.
        value: the value that all samples get, in the rank of the input; None if every sample has its own.
    """

    name: str
    shape: OpenShape
    dtype: np.dtype[np.generic]
    batch: int | None = 0
    value: NDArray[Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "batch", None)

    def __str__(self) -> str:
        dims = "x".join("?" if size is None else str(size) for size in self.shape) or "scalar"
        return f"{self.name} ({self.dtype} {dims})"

    @property
    def sample(self) -> OpenShape:
        """The shape of one sample, without the axis of the samples."""
        return tuple(side for axis, side in enumerate(self.shape) if axis != self.batch)

    @property
    def samples(self) -> int | None:
        """The number of samples that the model fixes for this input; None if it is open, or if all share one value."""
        return None if self.batch is None or self.value is not None else self.shape[self.batch]

    def shape_of(self, sample: Shape, samples: int) -> Shape:
        """The shape in which this many samples of a shape are fed."""
        return sample if self.batch is None else (*sample[: self.batch], samples, *sample[self.batch :])

    def repeated(self, samples: int) -> NDArray[Any]:
        """The value that all samples get, for this many of them."""
        assert self.value is not None
        shape = [own if size is None else size for own, size in zip(self.value.shape, self.shape, strict=True)]
        if self.batch is not None and self.shape[self.batch] is None:
            shape[self.batch] = samples
        return np.array(np.broadcast_to(self.value, shape), order="C")

    def given(self, value: Any) -> InputSpec:
        """The same input with one value for all samples: a number, a sample, or an array of the input's whole shape.

        Raises OptionError if the input cannot take it.
        """
        array = _converted(self, value)
        if array.nbytes > LARGEST_VALUE:
            raise OptionError(f"input {self} cannot take a value of more than {LARGEST_VALUE:,} bytes for all samples")
        whole = tuple(1 if axis == self.batch and side is None else side for axis, side in enumerate(self.shape))
        if array.size == 1 and None not in whole:
            array = array.reshape((1,) * len(whole))
        elif self.batch is not None and fits(array.shape, self.sample):
            array = np.expand_dims(array, self.batch)
        elif not fits(array.shape, whole):
            sides = ", ".join("any" if side is None else str(side) for side in self.sample)
            number = "" if None in whole else "a number or "
            raise OptionError(
                f"input {self} cannot take a value of shape {array.shape}; give {number}an array of shape ({sides})"
            )
        return replace(self, value=array)


@dataclass(frozen=True, eq=False)
class InputSettings:
    """What is known about inputs beyond the model: axes of samples, and values that all samples share, by name."""

    batch_axes: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.batch_axes or self.values)

    def joined(self, other: InputSettings) -> InputSettings:
        """These settings and others, which come first where both speak of one input."""
        return InputSettings({**self.batch_axes, **other.batch_axes}, {**self.values, **other.values})


def fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    """The batch size that the model's inputs fix, or None if they leave it open."""
    return next((spec.samples for spec in specs if spec.samples is not None), None)


def whole_batches(samples: int, fixed: int | None) -> int:
    """The number of samples, or the next multiple of a fixed batch size."""
    return -(-samples // fixed) * fixed if fixed else samples


def read_specs(specs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs of which every sample has its own value, which are read from DATA."""
    return tuple(spec for spec in specs if spec.value is None)


def fits(shape: Shape, expected: OpenShape) -> bool:
    """Whether a shape has the same axes as another one, and the same sizes where that fixes them."""
    return len(shape) == len(expected) and all(
        side in {None, actual} for side, actual in zip(expected, shape, strict=True)
    )


def settled(specs: Sequence[InputSpec], settings: InputSettings) -> tuple[InputSpec, ...]:
    """The inputs with the settings applied. Raises OptionError if there is no such input, axis or value."""
    named = {spec.name: spec for spec in specs}
    for flag, name in [*(("--batch-axis", n) for n in settings.batch_axes), *(("--input", n) for n in settings.values)]:
        if name not in named:
            raise OptionError(f"{flag} {name}: the model has no such input; it has {', '.join(named) or 'none'}")
    for name, axis in settings.batch_axes.items():
        rank = len(named[name].shape)
        if not -rank <= axis < rank:
            raise OptionError(f"--batch-axis {name}={axis}: input {named[name]} has {rank} axes, counted from 0")
        named[name] = replace(named[name], batch=axis % rank)
    for name, value in settings.values.items():
        named[name] = named[name].given(value)
    return tuple(named.values())


def with_batch_axes(specs: Sequence[InputSpec], symbols: Mapping[str, Sequence[str]]) -> tuple[InputSpec, ...]:
    """The inputs with the axis of the samples where it is certain; else it stays the first one.

    It is another axis than the first if that axis is the only one that has what the first input's first axis has: the
    same symbolic name, or the same fixed size. An axis without a name counts if it is the only open one, the first one
    is fixed to more than 1, and the first input's is open.

    Args:
        specs: the inputs.
        symbols: the symbolic names of the axes of each input, by its name; empty where there is none.
    """
    lead = next((spec for spec in specs if spec.shape), None)
    if lead is None:
        return tuple(specs)
    return tuple(replace(spec, batch=_batch_axis(spec, symbols[spec.name], lead, symbols[lead.name])) for spec in specs)


def _batch_axis(spec: InputSpec, names: Sequence[str], lead: InputSpec, lead_names: Sequence[str]) -> int:
    if spec is lead or not spec.shape or spec.shape[0] is None:
        return 0
    if lead.shape[0] is not None:
        same = [axis for axis, side in enumerate(spec.shape) if side == lead.shape[0]]
    elif lead_names[0] and lead_names[0] in names:
        same = [axis for axis, name in enumerate(names) if name == lead_names[0]]
    else:
        open_axes = [axis for axis, side in enumerate(spec.shape) if side is None]
        certain = spec.shape[0] > 1 and len(open_axes) == 1 and names[open_axes[0]] not in set(lead_names) - {""}
        same = open_axes if certain else []
    return same[0] if len(same) == 1 else 0


def _converted(spec: InputSpec, value: Any) -> NDArray[Any]:
    """The value as an array of the input's element type. Raises OptionError if that would change it, or cannot be."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufV" or array.dtype.hasobject:
            raise TypeError
        converted = array if array.dtype == spec.dtype else array.astype(spec.dtype)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"input {spec} cannot take {value!r}; give a number, or an array of numbers") from None
    exact = spec.dtype.kind not in "biu" or np.array_equal(converted, array)
    if not exact or not converted.size:
        raise OptionError(f"input {spec} cannot take {value!r}: it is not of type {spec.dtype}, or it is empty")
    return converted
