"""Checks whether arrays of preprocessed samples fit the inputs of a model.

An array has the shape (N, *input shape without batch), in the model's own layout and dtype, and is fed unchanged. For
an input whose samples are on another axis, it may have them on that axis too. Where there are several inputs, the array
of one of them may also hold one value that all samples share: a number, or a sample without an axis for samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.inputs import InputSpec, fits

__all__ = ["check_dtype", "check_fit", "equal_length", "quoted_names", "samples_axis", "shared_names", "shared_value"]


def check_fit(spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    """Raise DataError if an array of this shape and dtype cannot be fed unchanged to the input `spec`."""
    expected = spec.sample
    if spec.batch is None:
        raise DataError(
            f"input {spec} has no batch axis, so it cannot be fed from an array of samples; give it one value for all "
            f"samples: --input {spec.name}=VALUE"
        )
    if not shape or not fits(shape[1:], expected):
        sample = ", ".join("any" if side is None else str(side) for side in expected)
        one = _where_shared(spec)
        raise DataError(
            f"{where}: its shape is {shape}, but input {spec.name!r} takes (N, {sample}); "
            f"arrays hold N preprocessed samples in the model's own layout{one}"
        )
    if 0 in shape:
        raise DataError(f"{where}: its shape is {shape}; it must hold at least one sample")
    check_dtype(spec, dtype, where)


def check_dtype(spec: InputSpec, dtype: np.dtype[Any], where: str) -> None:
    """Raise DataError if the elements of an array cannot be fed unchanged to the input `spec`."""
    if not _same_dtype(dtype, spec.dtype):
        raise DataError(
            f"{where}: its dtype is {dtype}, but input {spec.name!r} takes {spec.dtype}; "
            f"preprocess as the model expects, and save with array.astype({str(spec.dtype)!r})"
        )


def samples_axis(spec: InputSpec, shape: tuple[int, ...]) -> int:
    """The axis of the samples in an array: the first one, or that of the input if the array fits only so.

    Raises DataError if it fits both ways, for the same number of samples.
    """
    own = spec.batch
    if not own or len(shape) != len(spec.shape):
        return 0
    first, other = fits(shape[1:], spec.sample), fits(shape[:own] + shape[own + 1 :], spec.sample)
    if first and other and shape[0] == shape[own] > 1:
        raise DataError(
            f"an array of shape {shape} for input {spec.name!r} may have its samples on axis 0 or on axis {own}, "
            f"which are not the same; give another number of samples at a time than {shape[0]}"
        )
    return own if other and not first else 0


def shared_names(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """The inputs whose arrays, of these shapes, hold one value for all samples; none if there is only one input.

    An array in the whole shape of an input is one value if the other arrays hold another number of samples.
    """
    if len(specs) < 2:
        return frozenset()
    shared = {s.name for s in specs if s.batch is None or not shapes[s.name] or fits(shapes[s.name], s.sample)}
    whole = {s.name for s in specs if s.samples is not None and fits(shapes[s.name], s.shape)} - shared
    left = [spec for spec in specs if spec.name not in shared | whole]
    counts = {shapes[spec.name][samples_axis(spec, shapes[spec.name])] for spec in left}
    return frozenset(shared | {s.name for s in specs if s.name in whole and counts and s.samples not in counts})


def shared_value(spec: InputSpec, array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """The value of an input that all samples share. Raises DataError if an array does not hold one."""
    try:
        value = spec.given(array).value
    except OptionError as error:
        raise DataError(
            f"{where}: input {spec} takes one value for all samples, not an array of shape {array.shape}; give one "
            f"that is a single number, or --input {spec.name}=VALUE"
        ) from error
    assert value is not None
    return value


def _where_shared(spec: InputSpec) -> str:
    """How to give an input whose samples are not on the first axis, as the end of a message."""
    if not spec.batch:
        return ""
    return f"; axis {spec.batch} of the input holds its samples (--batch-axis), or --input {spec.name}=VALUE serves all"


def _same_dtype(actual: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Compare dtypes without byte order. NumPy stores bfloat16 and similar types as void bytes of the same length."""
    if actual.kind == expected.kind == "V" and actual.names is None:
        return actual == expected or (actual.type is np.void and actual.itemsize == expected.itemsize)
    return actual.newbyteorder("=") == expected


def equal_length(lengths: Mapping[str, int], where: str) -> int:
    """Return the number of samples. Raises DataError unless all arrays have the same."""
    if len(set(lengths.values())) != 1:
        raise DataError(f"{where}: its arrays differ in the number of samples ({dict(lengths)}); they must be equal")
    return next(iter(lengths.values()))


def quoted_names(specs: Sequence[InputSpec]) -> str:
    """Return the names of inputs, quoted for messages."""
    return ", ".join(repr(spec.name) for spec in specs)
