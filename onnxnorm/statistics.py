"""What calibration hands to rewriting: mergeable moments of per-image means, as plain data, and their file.

For channel c of a measured value, image i contributes its mean `m[i, c]` over the positions of that image, with a
weight `w[i]`: the number of positions, so that the weighted mean is the mean over all images *and positions* (or 1, so
that all images count the same). Kept are sums only, in float64, so that batches, shards and runs add up in any order::

    mean = Σ w m / Σ w          variance of the mean = n / (n - 1) * Σ w² (m - mean)² / (Σ w)²

The standard error is that of a ratio of sums over independent images (Cochran, Sampling Techniques, 1977, section 6.4).
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from onnxnorm.errors import StatisticsError
from onnxnorm.provenance import Prints, joined_prints, joined_sources

__all__ = ["MEANS", "MEASURES", "Moments", "Statistics", "Value", "Weighting"]

FORMAT = "1"
Weighting = Literal["position", "image"]
MEANS = ("mean", "mean_abs")
MEASURES = ("rms",)  # what can be measured beside the means
Floats = NDArray[np.float64]

_NOISE = float(np.finfo(np.float32).eps)
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Moments:
    """Sums over images for one measured value; arrays have shape `(channels,)`.

    `images` counts images, `weight` is Σ w (with positions as weights: how many positions), `weight_squares` Σ w²,
    `total` Σ w m, `square_total` Σ w² m, `squares` Σ w² m², and `largest` the largest single activation seen.
    """

    images: int
    weight: float
    weight_squares: float
    total: Floats = field(repr=False)
    square_total: Floats = field(repr=False)
    squares: Floats = field(repr=False)
    largest: Floats = field(repr=False)

    @classmethod
    def of(cls, means: NDArray[Any], largest: NDArray[Any], weights: NDArray[Any]) -> Moments:
        """Moments of a batch: per-image means and maxima `(n, channels)`, weights `(n,)`."""
        m, w = means.astype(np.float64), weights.astype(np.float64)[:, np.newaxis]
        squares = w * w
        return cls(
            images=len(m),
            weight=float(w.sum()),
            weight_squares=float(squares.sum()),
            total=(w * m).sum(axis=0),
            square_total=(squares * m).sum(axis=0),
            squares=(squares * m * m).sum(axis=0),
            largest=largest.astype(np.float64).max(axis=0),
        )

    def __add__(self, other: Moments) -> Moments:
        """Moments of both together."""
        return Moments(
            images=self.images + other.images,
            weight=self.weight + other.weight,
            weight_squares=self.weight_squares + other.weight_squares,
            total=self.total + other.total,
            square_total=self.square_total + other.square_total,
            squares=self.squares + other.squares,
            largest=np.maximum(self.largest, other.largest),
        )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.total)

    @property
    def mean(self) -> Floats:
        """Mean activation per channel."""
        return self.total / self.weight

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which channels have a mean that stands out from the rounding noise of the largest one, and from 0."""
        size = np.abs(self.mean)
        return np.asarray(size > max(_NOISE * size.max(initial=0.0), _SMALLEST))

    @property
    def standard_error(self) -> Floats:
        """Standard error of the mean per channel; NaN for a single image."""
        if self.images < 2:
            return np.full(self.channels, np.nan)
        mean = self.mean
        spread = self.squares - 2 * mean * self.square_total + mean * mean * self.weight_squares
        variance = np.maximum(spread, 0) / self.weight**2 * (self.images / (self.images - 1))
        return np.asarray(np.sqrt(variance), np.float64)


@dataclass(frozen=True)
class Value:
    """A measured value: its name in the graph and what was averaged, `mean`, `mean_abs` or `mean_square`."""

    name: str
    measure: str


@dataclass(frozen=True)
class Statistics:
    """Moments of every measured value of one model over one set of images.

    `model` is the digest of the model, `shapes` the input shapes of one sample, `filters` which layers were measured,
    `inputs` describes where the images came from and how they were preprocessed, `skipped` lists name and reason.
    `weighting` says what each image counts for: its positions, or one. `complete` is False after an interruption.
    `files` are fingerprints of the files by the digest of their source.
    """

    model: str
    version: str
    filters: str
    shapes: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, Any]
    skipped: tuple[tuple[str, str], ...]
    values: Mapping[Value, Moments] = field(repr=False)
    weighting: Weighting = "position"
    complete: bool = True
    files: Mapping[str, Prints] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        channels = sum(moments.channels for moments in self.means.values())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        skipped += "" if self.complete else " (incomplete: the run was interrupted)"
        return f"statistics of {channels:,} channels in {len(self.means)} values over {self.images:,} images{skipped}"

    @property
    def means(self) -> dict[Value, Moments]:
        """The values without what was measured beside their means."""
        return {value: moments for value, moments in self.values.items() if value.measure in MEANS}

    @property
    def images(self) -> int:
        """Number of images measured."""
        return max((moments.images for moments in self.values.values()), default=0)

    def __add__(self, other: Statistics) -> Statistics:
        """Statistics over the images of both. Raises StatisticsError if they do not belong together."""
        for name, mine, theirs in (
            ("model", self.model, other.model),
            ("preprocessing", self.inputs.get("preprocessing"), other.inputs.get("preprocessing")),
            ("filters", self.filters, other.filters),
            ("weighting", self.weighting, other.weighting),
            ("measured values", set(self.values), set(other.values)),
        ):
            if mine != theirs:
                raise StatisticsError(f"these statistics differ in their {name}, so they cannot be merged")
        sources = joined_sources(
            self.inputs.get("sources", []), other.inputs.get("sources", []), self.files, other.files
        )
        return replace(
            self,
            inputs=dict(self.inputs) | {"sources": sources},
            skipped=self.skipped + other.skipped,
            complete=self.complete and other.complete,
            files=joined_prints(self.files, other.files),
            values={value: moments + other.values[value] for value, moments in self.values.items()},
        )

    def check_model(self, digest: str) -> None:
        """Raise StatisticsError unless they were measured on the model with this digest."""
        if self.model != digest:
            raise StatisticsError(
                f"the statistics were measured on another model (digest {self.model[:12]}, this one {digest[:12]}); "
                "calibrate this model"
            )

    @classmethod
    def merged(cls, parts: Iterable[Statistics]) -> Statistics:
        """All of these together."""
        return reduce(lambda left, right: left + right, parts)

    def to_bytes(self) -> bytes:
        """The contents of a statistics file (safetensors)."""
        arrays: dict[str, NDArray[Any]] = {f"files.{i}": prints for i, prints in enumerate(self.files.values())}
        table = []
        for index, (value, moments) in enumerate(self.values.items()):
            numbers = {"name": value.name, "measure": value.measure}
            for part in fields(Moments):
                item = getattr(moments, part.name)
                if isinstance(item, np.ndarray):
                    arrays[f"{index}.{part.name}"] = item
                else:
                    numbers[part.name] = item
            table.append(numbers)
        header = {
            "format": FORMAT,
            "model": self.model,
            "version": self.version,
            "filters": self.filters,
            "weighting": self.weighting,
            "complete": self.complete,
            "images": self.images,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "inputs": self.inputs,
            "skipped": self.skipped,
            "values": table,
            "files": list(self.files),
        }
        return save(arrays, {"onnxnorm": json.dumps(header)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a statistics file, atomically. Raises StatisticsError if it cannot be written."""
        target = Path(path)
        temporary = target.absolute().parent / f".onnxnorm-{secrets.token_hex(8)}"
        try:
            try:
                temporary.write_bytes(self.to_bytes())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StatisticsError(f"cannot write statistics {target}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read a statistics file. Raises StatisticsError if it is missing or not one."""
        try:
            with safe_open(path, framework="numpy") as stream:
                header = json.loads((stream.metadata() or {})["onnxnorm"])
                arrays = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
            if header["format"] != FORMAT:
                raise StatisticsError(
                    f"statistics {path} have format {header['format']}, expected {FORMAT}; measure again"
                )
            return cls(
                model=header["model"],
                version=header["version"],
                filters=header["filters"],
                shapes={name: tuple(shape) for name, shape in header["shapes"].items()},
                inputs=header["inputs"],
                skipped=tuple((name, reason) for name, reason in header["skipped"]),
                values={
                    Value(row["name"], row["measure"]): _moments(row, arrays, index)
                    for index, row in enumerate(header["values"])
                },
                weighting=header.get("weighting", "position"),
                complete=header.get("complete", True),
                files={digest: arrays[f"files.{index}"] for index, digest in enumerate(header.get("files", []))},
            )
        except FileNotFoundError:
            raise StatisticsError(f"statistics {path} do not exist; make them with onnxnorm calibrate") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise StatisticsError(
                f"{path} is not a statistics file of onnxnorm ({error}); make one with onnxnorm calibrate"
            ) from error


def _moments(row: Mapping[str, Any], arrays: Mapping[str, Floats], index: int) -> Moments:
    """The moments of one row of the table. Raises ValueError, TypeError or KeyError if they make no sense."""
    parts: dict[str, Any] = {}
    found: list[Floats] = []
    for part in fields(Moments):
        key = f"{index}.{part.name}"
        if key in arrays:
            parts[part.name] = arrays[key]
            found.append(arrays[key])
        else:
            parts[part.name] = row[part.name]
    wanted = sum(part.type == "Floats" for part in fields(Moments))
    kinds = {(array.ndim, len(array), array.dtype.str) for array in found if array.ndim}
    if len(found) != wanted or len(kinds) != 1 or found[0].ndim != 1 or found[0].dtype != np.float64:
        raise ValueError(f"the arrays of {row['name']!r} do not fit each other")
    moments = Moments(**parts)
    if not (moments.images >= 1 and moments.weight > 0 and all(np.isfinite(array).all() for array in found)):
        raise ValueError(f"the moments of {row['name']!r} are not those of any images")
    return moments
