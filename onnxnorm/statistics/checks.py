"""Checks of what a statistics file says beside its arrays: types, finite numbers, shapes, nesting.

The readers of `Statistics` rely on them, so a file that passes them causes no other error than a StatisticsError.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.input_records import settings_from_record

__all__ = ["check_header", "check_prints", "check_row", "parse_header"]

_DEEPEST = 20  # levels of objects and lists in the header; onnxnorm writes five
_MOST = 1 << 53  # images and positions are counted exactly in float64 up to here
_LARGEST_SIDE = 1 << 31
_SHARD = re.compile(r"\d{1,15}/\d{1,15}")
_TEXTS = ("model", "version", "filters")


def parse_header(text: str) -> dict[str, Any]:
    """Return the header of a statistics file. Raises ValueError unless it is a flat enough object of finite numbers.

    Only the ranges of inputs may be infinite: a mask may hold infinities.
    """
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    inputs = header.get("inputs")
    if isinstance(inputs, dict):
        inputs = {name: item for name, item in inputs.items() if name != "ranges"}
    _check_plain(header | {"inputs": inputs})
    return header


def check_header(header: Mapping[str, Any]) -> None:
    """Raise ValueError unless the fields of a header, other than the table of values, are as onnxnorm writes them."""
    for name in _TEXTS:
        _expect(isinstance(header[name], str), f"{name!r} is no text")
    _expect(header["filters"] in {"conv", "all"}, "'filters' is neither 'conv' nor 'all'")
    _expect(header.get("weighting", "position") in {"position", "image"}, "'weighting' is neither of its two values")
    _expect(isinstance(header.get("complete", True), bool), "'complete' is neither true nor false")
    _expect(isinstance(header["shapes"], dict), "'shapes' is no object")
    for name, shape in header["shapes"].items():
        sides = shape if isinstance(shape, list) else [-1]
        _expect(all(_is_count(side, _LARGEST_SIDE) for side in sides), f"the shape of input {name!r} is none")
    _expect(isinstance(header["skipped"], list), "'skipped' is no list")
    for entry in header["skipped"]:
        pair = isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)
        _expect(pair, "'skipped' holds something else than pairs of name and reason")
    _check_inputs(header["inputs"])


def check_row(row: object, seen: set[tuple[str, str]]) -> None:
    """Raise ValueError unless a row of the table of values has a name, a measure and counts.

    Args:
        row: the row.
        seen: names and measures of the rows before it; its own are added.
    """
    _expect(isinstance(row, dict), "an entry of 'values' is no object")
    assert isinstance(row, dict)
    name, measure = row["name"], row["measure"]
    _expect(isinstance(name, str) and isinstance(measure, str), "an entry of 'values' has no name or measure")
    _expect((name, measure) not in seen, f"the value {name!r} is there twice")
    seen.add((name, measure))
    _expect(_is_count(row["images"], _MOST), f"the number of images of {name!r} is none")
    for part in ("weight", "weight_squares"):
        # A value that had no rows on any image, as where a detector found nothing, has the weight 0.
        fits = _is_number(row[part]) and (row[part] > 0 or row[part] == row["images"] == 0)
        _expect(fits, f"{part!r} of {name!r} is no positive number")
    histogram = row.get("histogram")
    if histogram is not None:
        _expect(isinstance(histogram, dict), f"the histogram of {name!r} is no object")
        whole = all(_is_count(histogram[part], 1 << 62) for part in ("bits", "positions", "start"))
        _expect(whole, f"the histogram of {name!r} has counts that are no whole numbers")


def check_prints(digests: object, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless every source has fingerprints: two hashes of 64 bits for each file."""
    _expect(isinstance(digests, list) and all(isinstance(digest, str) for digest in digests), "'files' is no list")
    assert isinstance(digests, list)
    for index in range(len(digests)):
        prints = arrays[f"files.{index}"]
        fits = prints.ndim == 2 and prints.shape[1] == 2 and prints.dtype == np.uint64
        _expect(fits, "the fingerprints of its files have another type or shape")


def _check_inputs(inputs: object) -> None:
    _expect(isinstance(inputs, dict), "'inputs' is no object")
    assert isinstance(inputs, dict)
    preprocessing = inputs.get("preprocessing")
    _expect(preprocessing is None or isinstance(preprocessing, dict), "'preprocessing' is no object")
    for group in ("ranges", "forecast_spreads"):
        _expect(isinstance(inputs.get(group, {}), dict), f"{group!r} is no object")
    for name, limits in inputs.get("ranges", {}).items():
        whole = isinstance(limits, dict) and limits.keys() == {"mean", "std", "low", "high"}
        numbers = whole and all(isinstance(limit, float) or _is_number(limit) for limit in limits.values())
        _expect(numbers, f"the range of input {name!r} is none")
    for share, error in inputs.get("forecast_spreads", {}).items():
        _expect(
            re.fullmatch(r"[01]?\.\d+|[01]", share) is not None and _is_number(error) and 0 <= error <= 100,
            "a forecast is none",
        )
    settings_from_record(inputs.get("given"))
    sources = inputs.get("sources", [])
    _expect(isinstance(sources, list) and all(isinstance(source, dict) for source in sources), "'sources' is no list")
    for source in sources:
        shards = source.get("shards", ["0/1"])
        _expect(isinstance(shards, list) and all(map(_is_shard, shards)), "a shard of its sources is not I/N")
        _expect(isinstance(source.get("digest", ""), str), "the digest of a source is no text")


def _check_plain(value: object, levels: int = _DEEPEST) -> None:
    """Raise ValueError if a number is too large for float64, or if objects and lists are nested too deeply."""
    if isinstance(value, (dict, list)):
        if levels == 0:
            raise ValueError("its header is nested too deeply")
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, levels - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("its header holds a number that is not finite")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_count(value: object, most: int, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_shard(shard: object) -> bool:
    if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
        return False
    index, count = map(int, shard.split("/"))
    return index < count


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
