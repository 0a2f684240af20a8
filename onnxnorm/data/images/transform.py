"""A preprocessing of the user's own: a function that takes an image and returns a sample."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnorm.data.images.decoding import DecodedImage, Size, eight_bit
from onnxnorm.errors import DataError, OptionError, StatisticsError
from onnxnorm.model.inputs import InputSpec, fits

__all__ = ["Transform", "TransformLike", "function_of", "transform_for"]

TransformLike = str | Callable[[Image.Image], Any]
"""`module:function`, or the function itself."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NAME = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True)
class Transform:
    """Samples are what a function returns for an image, upright and in mode RGB or L.

    Attributes:
        name: where the function is, as `module:function`.
        digest: of the source code of its module, so that another version of it is not taken for the same.
        spec: the model's input; None in a record that was read.
        given: the function, if it was given itself, and not by its name.
    """

    name: str
    digest: str
    spec: InputSpec | None = field(default=None, compare=False)
    given: Callable[[Image.Image], Any] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def function(self) -> Callable[[Image.Image], Any]:
        """The function; in another process it is imported again."""
        return function_of(self.given or self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Transform, (self.name, self.digest, self.spec, self.given)

    def __call__(self, decoded: DecodedImage | Image.Image) -> npt.NDArray[Any]:
        """Return one sample. Raises DataError if the function fails, or returns no sample of the model's input."""
        image = decoded.image if isinstance(decoded, DecodedImage) else eight_bit(decoded)
        try:
            result = self.function(image)
            if hasattr(result, "detach") and hasattr(result, "cpu"):
                result = result.detach().cpu()  # a tensor of PyTorch
            sample = np.asarray(result)
        except Exception as error:
            said = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise DataError(f"the transform {self.name} raised {type(error).__name__}: {said}") from error
        assert self.spec is not None
        if sample.ndim == len(self.spec.sample) + 1 and sample.shape[0] == 1:
            sample = sample[0]
        if sample.dtype.kind not in "biufV" or not fits(sample.shape, self.spec.sample) or not sample.size:
            sides = ", ".join("any" if side is None else str(side) for side in self.spec.sample)
            raise DataError(
                f"the transform {self.name} returned {type(result).__name__} of shape {sample.shape}, but input "
                f"{self.spec.name!r} takes a sample of shape ({sides})"
            )
        if self.spec.dtype.kind in "biu" and not np.can_cast(sample.dtype, self.spec.dtype, "same_kind"):
            raise DataError(
                f"the transform {self.name} returned {sample.dtype}, but input {self.spec.name!r} takes "
                f"{self.spec.dtype}; convert it in the function"
            )
        return np.ascontiguousarray(sample, self.spec.dtype)

    @property
    def most(self) -> int | None:
        """The most pixels that an image may have: as many as decoding allows, for the function may scale it down."""
        return None

    def least(self, full: Size) -> Size | None:
        """Images are decoded at their full size."""
        del full
        return None

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None if samples may differ."""
        if self.spec is None or None in self.spec.sample:
            return None
        return int(np.prod(self.spec.sample, dtype=np.int64)) * self.spec.dtype.itemsize  # type: ignore[arg-type]

    def describe(self) -> str:
        """Return a description in one line."""
        return f"transform {self.name} makes them"

    def to_json(self) -> dict[str, Any]:
        """Return what identifies the function."""
        return {"transform": self.name, "digest": self.digest}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Transform:
        """Return what `to_json` recorded, for its description. Raises StatisticsError if the record is damaged."""
        name, digest = record["transform"], record.get("digest")
        if not isinstance(name, str) or not isinstance(digest, str):
            raise StatisticsError("the record of the transform is damaged; calibrate again")
        return cls(name, digest)


def transform_for(spec: InputSpec, transform: TransformLike) -> Transform:
    """Return the transform that makes samples of an input. Raises OptionError if there is no such function."""
    if not isinstance(transform, str):
        if not callable(transform):
            raise OptionError(f"--transform {transform!r} is no function and no MODULE:FUNCTION")
        name = getattr(transform, "__qualname__", type(transform).__qualname__)
        return Transform(f"{transform.__module__}:{name}", _digest(transform), spec, transform)
    return Transform(transform, _digest(function_of(transform)), spec)


def function_of(transform: TransformLike) -> Callable[[Image.Image], Any]:
    """Return the function itself. Raises OptionError if there is no such function."""
    return _imported(transform) if isinstance(transform, str) else transform


def _imported(name: str) -> Callable[[Image.Image], Any]:
    """Import a function from the current folder, or from what is installed. Raises OptionError if that fails."""
    module_name, _, attribute = name.partition(":")
    if not _NAME.fullmatch(name) or module_name.endswith(".py"):
        hint = " (without .py, and with dots for folders)" if ".py" in name or "/" in name else ""
        raise OptionError(f"--transform {name!r} is not of the form MODULE:FUNCTION, such as prepare:sample{hint}")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        said = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise OptionError(
            f"--transform {name}: module {module_name} cannot be imported ({type(error).__name__}: {said}); it must "
            "lie in the current folder, or be installed"
        ) from error
    finally:
        if here in sys.path:
            sys.path.remove(here)
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise OptionError(f"--transform {name}: module {module_name} has no {attribute}") from None
    if not callable(found):
        raise OptionError(f"--transform {name}: {attribute} is no function; it is a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _digest(function: Any) -> str:
    """Digest of the source code of the function's module, or of the function itself where that is all there is.

    One that is not found by its name alone also counts by its code and by what it is bound to: the numbers of a
    closure, the arguments of a `partial`, the steps of a `Compose`.
    """
    sources = (_source(thing) for thing in (inspect.getmodule(function), function, type(function)))
    text = next(filter(None, sources), "") + _bound(function)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16] if text else ""


def _bound(function: Any) -> str:
    """What a function is bound to, in words; empty for one at the top of a module."""
    code = getattr(function, "__code__", None)
    if code is None:
        return _ADDRESS.sub("", repr(function))
    if "<" not in function.__qualname__:
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return _ADDRESS.sub("", repr((code.co_code, code.co_names, code.co_consts, function.__defaults__, cells)))


def _source(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""
