"""The settings of inputs as plain values, which a statistics file holds."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.inputs import LARGEST_VALUE, InputSettings, InputSpec

__all__ = ["described", "settings_from_record", "settings_record"]


def settings_record(specs: Sequence[InputSpec], settings: InputSettings) -> dict[str, Any] | None:
    """Return the settings of a model with these inputs in plain values; None if there are none."""
    if not settings:
        return None
    values = {spec.name: _record(spec.value) for spec in specs if spec.value is not None}
    return {"values": values, "batch_axes": dict(sorted(settings.batch_axes.items()))}


def settings_from_record(record: object) -> InputSettings:
    """Return the settings that `settings_record` recorded. Raises ValueError, LookupError or TypeError if damaged."""
    if record is None:
        return InputSettings()
    if not isinstance(record, Mapping):
        raise TypeError("the record of inputs is no object")
    axes = record["batch_axes"]
    if not isinstance(axes, Mapping) or not all(type(axis) is int and 0 <= axis < 64 for axis in axes.values()):
        raise ValueError("an axis of samples is none")
    return InputSettings(dict(axes), {name: _read(entry) for name, entry in record["values"].items()})


def described(record: Mapping[str, Any] | None) -> str:
    """Return the record in words, in one line; empty without one."""
    if not record:
        return ""
    numbers = [f"{name} = {_words(entry)} for all samples" for name, entry in record["values"].items()]
    return ", ".join([*numbers, *(f"samples of {name} on axis {axis}" for name, axis in record["batch_axes"].items())])


def _words(entry: Mapping[str, Any]) -> str:
    return str(entry["number"]) if "number" in entry else "an array of shape " + "x".join(map(str, entry["shape"]))


def _record(value: NDArray[Any]) -> dict[str, Any]:
    """One number if all are the same and finite, else the bytes."""
    head: dict[str, Any] = {"dtype": str(value.dtype), "shape": list(value.shape)}
    first = value.reshape(-1)[0]
    if (value == first).all() and math.isfinite(first):
        number = first.item()
        return head | {"number": number if isinstance(number, (bool, int)) else float(number)}
    little = value if value.dtype.kind == "V" else value.astype(value.dtype.newbyteorder("<"))
    return head | {"base64": base64.b64encode(little.tobytes()).decode()}


def _read(entry: Mapping[str, Any]) -> NDArray[Any]:
    shape = tuple(entry["shape"])
    dtype = np.dtype(getattr(ml_dtypes, entry["dtype"], entry["dtype"]))
    if not all(type(side) is int and side > 0 for side in shape) or math.prod(shape) * dtype.itemsize > LARGEST_VALUE:
        raise ValueError(f"the shape {shape} of an input is none")
    if dtype.hasobject:
        raise ValueError(f"the type {dtype} of an input is none")
    if "number" in entry:
        return np.full(shape, entry["number"], dtype)
    stored = dtype if dtype.kind == "V" else dtype.newbyteorder("<")
    return np.frombuffer(base64.b64decode(entry["base64"], validate=True), stored).reshape(shape).astype(dtype)
