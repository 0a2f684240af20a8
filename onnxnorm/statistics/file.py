"""The statistics file: a safetensors file with the arrays of all moments, and everything else as JSON in its metadata.

Each field of `Moments` is written in float64 as `INDEX.FIELD`, `largest` and `smallest` only where they were measured.
The counts of a histogram are written as `INDEX.histogram`, in the smallest unsigned type that holds them, and only for
the bins in use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from onnxnorm.atomic import write_atomically
from onnxnorm.errors import StatisticsError
from onnxnorm.statistics.checks import check_header, check_prints, check_row, parse_header
from onnxnorm.statistics.histograms import BITS, Histogram
from onnxnorm.statistics.moments import Moments, Value

__all__ = ["Content", "read_content"]

FORMAT = "1"
_SUMS = tuple(part for part in fields(Moments) if part.name != "histogram")

_LARGEST_ERROR = 1e100  # relative; forecasts square it

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Content:
    """The content of a statistics file.

    Attributes:
        header: plain values by name.
        values: the moments of every measured value.
        files: fingerprints of files, shape `(files, 2)`, by the digest of their source.
    """

    header: Mapping[str, Any]
    values: Mapping[Value, Moments]
    files: Mapping[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        arrays: dict[str, NDArray[Any]] = {f"files.{i}": prints for i, prints in enumerate(self.files.values())}
        table = []
        for index, (value, moments) in enumerate(self.values.items()):
            row: dict[str, Any] = {"name": value.name, "measure": value.measure}
            for part in _SUMS:
                item = getattr(moments, part.name)
                if isinstance(item, np.ndarray):
                    arrays[f"{index}.{part.name}"] = item
                elif item is not None:
                    row[part.name] = item
            if moments.histogram is not None:
                histogram = moments.histogram
                row["histogram"] = {"bits": BITS, "positions": histogram.positions, "start": histogram.start}
                arrays[f"{index}.histogram"] = histogram.narrow()
            table.append(row)
        header = {"format": FORMAT} | dict(self.header) | {"values": table, "files": list(self.files)}
        return save(arrays, {"onnxnorm": json.dumps(header)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically. Raises StatisticsError if it cannot be written."""
        write_atomically(Path(path), self.to_bytes(), StatisticsError, "statistics ")


def read_content(path: str | os.PathLike[str], build: Callable[[Content], T]) -> T:
    """Read a file and return `build(content)`.

    Raises StatisticsError if the file does not exist, or if it is not a statistics file that `build` accepts.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise StatisticsError(f"statistics {path} are not in a regular file; write them to one first")
    try:
        with safe_open(path, framework="numpy") as stream:
            header = parse_header((stream.metadata() or {})["onnxnorm"])
            arrays = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise StatisticsError(f"statistics {path} have format {header['format']}, expected {FORMAT}; measure again")
        check_header(header)
        check_prints(header.get("files", []), arrays)
        seen: set[tuple[str, str]] = set()
        for row in header["values"]:
            check_row(row, seen)
        values = {
            Value(row["name"], row["measure"]): _moments(row, arrays, index)
            for index, row in enumerate(header["values"])
        }
        files = {digest: arrays[f"files.{index}"] for index, digest in enumerate(header.get("files", []))}
        return build(Content(header, values, files))
    except FileNotFoundError:
        raise StatisticsError(f"statistics {path} do not exist; make them with onnxnorm calibrate") from None
    except MemoryError as error:
        raise StatisticsError(f"statistics {path} need more memory than there is; use a larger machine") from error
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise StatisticsError(
            f"{path} is not a statistics file of onnxnorm ({error}); make one with onnxnorm calibrate"
        ) from error


def _moments(row: Mapping[str, Any], arrays: Arrays, index: int) -> Moments:
    """Return the moments of one row of the table. Raises ValueError, TypeError or KeyError if they are invalid."""
    parts: dict[str, Any] = {}
    sums: list[NDArray[Any]] = []
    for part in _SUMS:
        key = f"{index}.{part.name}"
        if key in arrays:
            parts[part.name] = arrays[key]
            sums.append(arrays[key])
        elif part.type != "Floats | None":
            parts[part.name] = row[part.name]
    expected = sum(part.type == "Floats" for part in _SUMS) + sum(name in parts for name in ("largest", "smallest"))
    kinds = {(array.shape, array.dtype.str) for array in sums}
    if len(sums) != expected or len(kinds) != 1 or sums[0].ndim != 1 or sums[0].dtype != np.float64:
        raise ValueError(f"the arrays of {row['name']!r} do not fit each other")
    moments = Moments(**parts, histogram=_histogram(row, arrays, index, len(sums[0])))
    # A value that had no rows on any image, such as the crops of a detector that found nothing, is a sum of nothing.
    measured = moments.images >= 1 and moments.weight > 0
    nothing = moments.images == 0 and moments.weight == 0 and not any(array.any() for array in sums)
    if not ((measured or nothing) and all(np.isfinite(array).all() for array in sums)):
        raise ValueError(f"the moments of {row['name']!r} are not those of any images")
    with np.errstate(all="ignore"):
        errors = moments.standard_error if moments.images > 1 else moments.mean
        sound = np.isfinite(moments.mean).all() and np.isfinite(errors).all()
        if not sound or np.nan_to_num(moments.relative_error).max(initial=0.0) > _LARGEST_ERROR:
            raise ValueError(f"the moments of {row['name']!r} are beyond the range of numbers")
    return moments


def _histogram(row: Mapping[str, Any], arrays: Arrays, index: int, channels: int) -> Histogram | None:
    """Return the histogram of a row; None if it has none, as in files older than histograms."""
    entry = row.get("histogram")
    if entry is None:
        return None
    counts = arrays[f"{index}.histogram"]
    if entry["bits"] != BITS or counts.ndim != 2 or len(counts) != channels:
        raise ValueError(f"the histogram of {row['name']!r} has other bins or channels than it should")
    return Histogram.widened(int(entry["positions"]), int(entry["start"]), counts)
