"""Turns an image into one sample of a model's input.

`Preprocessing` is the complete recipe: nothing in it is left to a default, so that its record in the statistics file
says precisely what the network saw. `preprocessing_for` makes it from a preset, options and the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
from PIL import Image

from onnxnorm.data.images.decoding import Picture, Size, eight_bit
from onnxnorm.data.images.resizing import Resize, resized, scaled_size
from onnxnorm.errors import OptionError, StatisticsError

__all__ = ["DRAFT_GAP", "IMAGE_DTYPES", "Channels", "Layout", "Preprocessing", "channel_count"]

Channels = Literal["rgb", "bgr", "gray"]
Layout = Literal["nchw", "nhwc"]

DRAFT_GAP = 3
"""The usual `Preprocessing.draft`. Source: Pillow documentation, `Image.resize`, `reducing_gap`: with a gap of 3 the
result is in most cases indistinguishable from scaling in one step."""

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


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a sample: it is resized, then `(pixel / divisor - mean) / std` is computed.

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

    preset: str
    channels: Channels
    divisor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    resize: Resize
    layout: Layout
    dtype: np.dtype[Any]
    draft: int

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

    def __call__(self, picture: Picture | Image.Image) -> npt.NDArray[np.generic]:
        """Return one sample without batch axis, shape `(C, H, W)` or `(H, W, C)`, contiguous, in the model's dtype.

        Raises ValueError for a mode that does not define which value is white (32-bit integers, floats).
        """
        if isinstance(picture, Image.Image):
            picture = Picture.whole(eight_bit(picture))
        pixels = self._pixels(resized(picture, self.size, self.resize))
        return self._normalized(pixels).astype(self.dtype, copy=False)

    def least(self, full: Size) -> Size | None:
        """Return the least size at which an image of the size `full` may be decoded; None for its full size."""
        scaled = scaled_size(full, self.size, self.resize)
        return None if scaled is None or not self.draft else (self.draft * scaled[0], self.draft * scaled[1])

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
        """Return the recipe as plain values. A `draft` of 0 is left out, as in records older than that field."""
        draft = {"draft": self.draft} if self.draft else {}
        return {
            "preset": self.preset,
            "channels": self.channels,
            "divisor": self.divisor,
            "mean": list(self.mean),
            "std": list(self.std),
            "size": None if self.size is None else list(self.size),
            "resize": self.resize,
            "layout": self.layout,
            "dtype": str(self.dtype),
        } | draft

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Return the recipe that `to_json` wrote. Raises StatisticsError if the record is damaged."""
        try:
            if record["layout"] not in get_args(Layout) or record["channels"] not in get_args(Channels):
                raise ValueError("layout or channels")
            if record["resize"] not in get_args(Resize):
                raise ValueError("resize")
            size = record["size"]
            return cls(
                preset=str(record["preset"]),
                channels=record["channels"],
                divisor=float(record["divisor"]),
                mean=tuple(map(float, record["mean"])),
                std=tuple(map(float, record["std"])),
                size=None if size is None else (int(size[0]), int(size[1])),
                resize=record["resize"],
                layout=record["layout"],
                dtype=np.dtype(record["dtype"]),
                draft=int(record.get("draft", 0)),
            )
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


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
