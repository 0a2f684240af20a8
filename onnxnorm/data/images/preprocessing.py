"""Turns an image into one sample of a model's input.

`Preprocessing` is the complete recipe: nothing in it is left to a default, so that its record in the statistics file
says precisely what the network saw. `preprocessing_for` makes it from a preset, options and the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnorm.data.images.decoding import DecodedImage, Size, eight_bit
from onnxnorm.data.images.resizing import Resize, resized, scaled_size
from onnxnorm.data.images.transform import Transform
from onnxnorm.errors import OptionError, StatisticsError

__all__ = [
    "DRAFT_GAP",
    "IMAGE_DTYPES",
    "MOST_UNRESIZED",
    "Channels",
    "Layout",
    "Preprocessing",
    "Recipe",
    "channel_count",
    "recipe_from_json",
]

Channels = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]

DRAFT_GAP = 3
"""The usual `Preprocessing.draft`. Source: Pillow documentation, `Image.resize`, `reducing_gap`: with a gap of 3 the
result is in most cases indistinguishable from scaling in one step."""

MOST_UNRESIZED = 1 << 25
"""The most pixels of an image that is not resized: in float32, in colour, 400 MB; and networks take far more for it."""

IMAGE_DTYPES: tuple[np.dtype[Any], ...] = (
    np.dtype(np.float32),
    np.dtype(np.float16),
    np.dtype(np.float64),
    np.dtype(ml_dtypes.bfloat16),
    np.dtype(np.uint8),
)


def channel_count(channels: Channels) -> int:
    """Return the number of channels: 1 for gray, else 3."""
    return 1 if channels == "gray" else 3


def _one_of(kind: Any) -> Callable[[str], str]:
    """Return what reads one of the values of a Literal type."""

    def read(value: str) -> str:
        if value not in get_args(kind):
            raise ValueError(f"{value!r} is none of {', '.join(get_args(kind))}")
        return value

    return read


def _read_numbers(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _read_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    return None if size is None else (int(size[0]), int(size[1]))


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a sample: it is resized, then `(pixel / divisor - mean) / std` is computed.

    The record in a statistics file has an entry for each field, which says how it is read (`read`). A field that is
    added later needs a default, which older records do not have.

    Attributes:
        preset: name of the preset that the recipe started from; for information only.
        channels: the order of the channels.
        divisor: divides pixels of 0..255.
        mean: one number per channel, in the order of `channels`.
        std: one number per channel, in the order of `channels`.
        size: (height, width) in pixels; None if images keep their own size.
        resize: how an image is brought to the size.
        layout: the order of the axes of the sample.
        dtype: the dtype of the sample.
        draft: a JPEG may be decoded at a fraction of its size that is at least `draft` times, in both directions, the
            size that it is then scaled to; 0: it is decoded at its full size.
    """

    preset: str = field(metadata={"read": str})
    channels: Channels = field(metadata={"read": _one_of(Channels)})
    divisor: float = field(metadata={"read": float})
    mean: tuple[float, ...] = field(metadata={"read": _read_numbers})
    std: tuple[float, ...] = field(metadata={"read": _read_numbers})
    size: tuple[int, int] | None = field(metadata={"read": _read_size})
    resize: Resize = field(metadata={"read": _one_of(Resize)})
    layout: Layout = field(metadata={"read": _one_of(Layout)})
    dtype: np.dtype[Any] = field(metadata={"read": np.dtype})
    draft: int = field(default=0, metadata={"read": int})

    def __post_init__(self) -> None:
        count = channel_count(self.channels)
        if len(self.mean) != count or len(self.std) != count:
            raise OptionError(f"mean {self.mean} and std {self.std} need {count} number(s), one per channel")
        if self.draft < 0:
            raise OptionError(f"draft {self.draft} must be a factor, or 0")
        if self.dtype not in IMAGE_DTYPES:
            raise OptionError(f"images cannot become {self.dtype}; give preprocessed .npy or .npz arrays instead")
        if self.dtype == np.uint8 and not self._keeps_pixels():
            raise OptionError(
                "the model's input is uint8, which holds no normalized pixels; use --preset raw, no --mean or --std"
            )

    def __call__(self, decoded: DecodedImage | Image.Image) -> npt.NDArray[np.generic]:
        """Return one sample without batch axis, shape `(C, H, W)` or `(H, W, C)`, contiguous, in the model's dtype.

        Raises ValueError for a mode that does not define which value is white (32-bit integers, floats).
        """
        if isinstance(decoded, Image.Image):
            decoded = DecodedImage.whole(eight_bit(decoded))
        pixels = self._pixels(resized(decoded, self.size, self.resize))
        return self._normalized(pixels).astype(self.dtype, copy=False)

    def least(self, full: Size) -> Size | None:
        """Return the least size at which an image of the size `full` may be decoded; None for its full size."""
        scaled = scaled_size(full, self.size, self.resize)
        return None if scaled is None or not self.draft else (self.draft * scaled[0], self.draft * scaled[1])

    @property
    def most(self) -> int | None:
        """The most pixels that an image may have; None if it is resized, so that they are not all in the sample."""
        return MOST_UNRESIZED if self.size is None or self.resize == "none" else None

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of one sample; None if images keep their own size."""
        if self.size is None:
            return None
        return self.size[0] * self.size[1] * channel_count(self.channels) * self.dtype.itemsize

    def describe(self) -> str:
        """Return a description in one line."""
        unit = f"{self.channels.upper()}/{self.divisor:g}" if self.divisor != 1 else f"{self.channels.upper()} 0..255"
        parts = [unit]
        if any(self.mean):
            parts.append(f"mean {_numbers(self.mean)}")
        if any(value != 1 for value in self.std):
            parts.append(f"std {_numbers(self.std)}")
        parts.append(self._describe_size())
        return f"{self.preset}: {', '.join(parts)}, {self.layout.upper()} {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain values. Defaults are left out, as in records older than those fields."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: str(value) if isinstance(value, np.dtype) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value != _DEFAULTS.get(name, MISSING)
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Return the recipe that `to_json` wrote. Raises StatisticsError if the record is damaged."""
        try:
            readers = {item.name: item.metadata["read"] for item in fields(cls)}
            return cls(**{name: read(record[name]) for name, read in readers.items() if name in record})
        except (LookupError, TypeError, ValueError, ArithmeticError, OptionError) as error:
            raise StatisticsError(f"the record of the preprocessing is damaged ({error!r}); calibrate again") from error

    def _keeps_pixels(self) -> bool:
        return self.divisor == 1 and not any(self.mean) and all(value == 1 for value in self.std)

    def _pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the pixels in the order of `channels` and `layout`, in a contiguous array."""
        mode = "L" if self.channels == "gray" else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        pixels = pixels.reshape(image.height, image.width, channel_count(self.channels))
        if self.channels == "bgr":
            pixels = pixels[:, :, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "nchw" else pixels)

    def _normalized(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Return `(pixels / divisor - mean) / std` in float32, or the pixels themselves if that changes nothing.

        Steps that would change nothing are left out.
        """
        if self._keeps_pixels():
            return pixels
        # With channels last, whole rows are computed with repeated numbers; three at a time would be five times slower.
        values = pixels.astype(np.float32).reshape(len(pixels), -1)
        if self.divisor != 1:
            values /= np.float32(self.divisor)
        if any(self.mean):
            values -= self._repeated(self.mean, values.shape)
        if any(value != 1 for value in self.std):
            values /= self._repeated(self.std, values.shape)
        return values.reshape(pixels.shape)

    def _repeated(self, numbers: tuple[float, ...], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return numbers per channel in a shape that broadcasts to `(C, H * W)` or to `(H, W * C)`."""
        values = np.asarray(numbers, np.float32)
        return values[:, None] if self.layout == "nchw" else np.tile(values, shape[1] // len(numbers))

    def _describe_size(self) -> str:
        if self.size is None:
            return "at its own size"
        size = f"{self.size[0]}x{self.size[1]}"
        return f"squashed to {size}" if self.resize == "squash" else f"shortest side to {size}"


Recipe = Preprocessing | Transform
"""How an image becomes a sample."""


def recipe_from_json(record: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a statistics file records. Raises StatisticsError if the record is damaged."""
    return Transform.from_json(record) if "transform" in record else Preprocessing.from_json(record)


_DEFAULTS = {item.name: item.default for item in fields(Preprocessing)}


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
