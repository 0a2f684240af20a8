"""Options for how many samples are read, how many at a time, and for inputs that are not read from DATA."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxnorm.errors import DataError, OptionError
from onnxnorm.model.inputs import LARGEST_VALUE, InputSettings
from onnxnorm.options import RUNNING, Options, option

__all__ = ["DEFAULT_BATCH", "BatchOptions", "InputOptions"]

DEFAULT_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """The number of samples in a batch and in all; None means the model's own batch size, and no limit."""

    batch_size: int | None = option(
        None, "Default: the model's own, else 8, or more if samples are small.", panel=RUNNING, least=1
    )
    limit: int | None = option(None, "Use at most this many samples.", panel=RUNNING, least=1)


@dataclass(frozen=True, kw_only=True)
class InputOptions(Options):
    """What is known about a model's inputs beyond the model and DATA; each a dict by input name, or texts NAME=VALUE.

    Attributes:
        input: one value for all samples: a number, which fills the input, or an array. DATA then holds the others.
        batch_axis: the axis of the samples, where it is not the first one and not found by itself.
    """

    input: Mapping[str, Any] | Sequence[str] | None = option(
        None,
        "One value of an input for all samples, such as a UNet's timestep: a number, a list such as [1,2], or a .npy "
        "file; may be repeated.",
        panel=RUNNING,
        metavar="NAME=VALUE",
        kind=list[str],
    )
    batch_axis: Mapping[str, int] | Sequence[str] | None = option(
        None,
        "The axis of an input that holds the samples, counted from 0, such as h0=1; may be repeated. Default: found by "
        "its name or size, else 0.",
        panel=RUNNING,
        metavar="NAME=K",
        kind=list[str],
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "input", _parsed("--input", self.input, _value))
        object.__setattr__(self, "batch_axis", _parsed("--batch-axis", self.batch_axis, _axis))

    @property
    def settings(self) -> InputSettings:
        """The same for a model."""
        assert not isinstance(self.input, Sequence)
        assert not isinstance(self.batch_axis, Sequence)
        return InputSettings(self.batch_axis or {}, self.input or {})


def _parsed(
    flag: str, given: Mapping[str, Any] | Sequence[str] | None, read: Callable[[str, Any], Any]
) -> Mapping[str, Any] | None:
    """Return what was given by input name. Raises OptionError if it is malformed, or names an input twice."""
    if not given:
        return None
    if isinstance(given, Mapping):
        return {name: read(f"{flag} {name}", value) for name, value in given.items()}
    found: dict[str, Any] = {}
    for text in [given] if isinstance(given, str) else given:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise OptionError(f"{flag} {text!r} is not of the form NAME=VALUE, such as timestep=500")
        if name in found:
            raise OptionError(f"{flag} names the input {name!r} twice; give it once")
        found[name] = read(f"{flag} {text}", value)
    return found


def _value(where: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower().endswith(".npy"):
        return _array(where, Path(value))
    try:
        return json.loads(value)
    except ValueError:
        raise OptionError(f"{where}: {value!r} is no number, no list such as [1,2], and no .npy file") from None


def _axis(where: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise OptionError(f"{where}: {value!r} is no axis; give a number, counted from 0") from None


def _array(where: str, path: Path) -> Any:
    from onnxnorm.data.arrays.npy import open_npy

    try:
        rows = open_npy(path)
    except DataError as error:
        raise OptionError(f"{where}: {error}") from error
    if int(np.prod(rows.shape, dtype=np.int64)) * rows.dtype.itemsize > LARGEST_VALUE:
        raise OptionError(f"{where}: {path} has more than the {LARGEST_VALUE:,} bytes that one value may have")
    return rows.whole(rows.dtype.newbyteorder("="))
