"""Statistics files that were tampered with are refused as they are read, and `merge` writes nothing before the end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Statistics
from tests.helpers.commands import run
from tests.helpers.statistics import rewritten, statistics

FIELDS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "a model in numbers": (("model",), 1),
    "unknown filters": (("filters",), "some"),
    "an unknown weighting": (("weighting",), 3),
    "complete in words": (("complete",), "yes"),
    "shapes in a list": (("shapes",), [1, 2]),
    "a shape of text": (("shapes", "x"), "123"),
    "a negative side": (("shapes", "x"), [1, -3]),
    "a side of infinity": (("shapes", "x"), [1e400]),
    "skipped in numbers": (("skipped",), [[1, 2]]),
    "inputs in a list": (("inputs",), []),
    "preprocessing in words": (("inputs", "preprocessing"), "unit"),
    "sources in words": (("inputs", "sources"), "a"),
    "shards of nothing": (("inputs", "sources", 0, "shards"), ["0/0"]),
    "shards in words": (("inputs", "sources", 0, "shards"), ["first"]),
    "a digest in numbers": (("inputs", "sources", 0, "digest"), 3),
    "a range in words": (("inputs", "ranges"), {"x": {"mean": "a", "std": 1, "low": 0, "high": 1}}),
    "a forecast of infinity": (("inputs", "forecast_spreads"), {"0.5": 1e400}),
    "a forecast in words": (("inputs", "forecast_spreads"), {"half": 1}),
    "infinite images": (("values", 0, "images"), 1e400),
    "images that are true": (("values", 0, "images"), True),
    "half an image": (("values", 0, "images"), 1.5),
    "an infinite weight": (("values", 0, "weight"), 1e400),
    "a weight in words": (("values", 0, "weight"), "40"),
    "a value without a name": (("values", 0, "name"), None),
    "an infinite histogram": (("values", 0, "histogram"), {"bits": 5, "positions": 1e400, "start": 0}),
    "a value that is no object": (("values", 0), "relu"),
    "files in numbers": (("files",), [1]),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_another_type(name: str, tmp_path: Path) -> None:
    path, value = FIELDS[name]

    def change(header: dict[str, Any], _: dict[str, Any]) -> None:
        place: Any = header
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    rewritten(change)(tmp_path / "s")
    with pytest.raises(StatisticsError, match="is not a statistics file"):
        Statistics.load(tmp_path / "s")


def test_a_value_twice(tmp_path: Path) -> None:
    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        header["values"].append(header["values"][0])
        arrays.update({f"2.{key[2:]}": array for key, array in arrays.items() if key.startswith("0.")})

    rewritten(change)(tmp_path / "s")
    with pytest.raises(StatisticsError, match="there twice"):
        Statistics.load(tmp_path / "s")


def test_a_header_that_is_nested_too_deeply(tmp_path: Path) -> None:
    for depth in (50, 100_000):
        save_file({"a": np.zeros(1)}, tmp_path / "s", {"onnxnorm": '{"a": ' + "[" * depth + "]" * depth + "}"})
        with pytest.raises(StatisticsError, match="nested too deeply"):
            Statistics.load(tmp_path / "s")


def test_moments_whose_errors_overflow(tmp_path: Path) -> None:
    def change(_: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["0.squares"] = arrays["0.squares"] * 0 + 1e308
        arrays["0.total"] = arrays["0.total"] * 1e300

    rewritten(change)(tmp_path / "s")
    with pytest.raises(StatisticsError, match="beyond the range of numbers"):
        Statistics.load(tmp_path / "s")


def test_the_range_of_an_input_may_be_infinite(tmp_path: Path) -> None:
    def change(header: dict[str, Any], _: dict[str, Any]) -> None:
        header["inputs"]["ranges"] = {"mask": {"mean": -1e400, "std": float("nan"), "low": -1e400, "high": 0.0}}

    rewritten(change)(tmp_path / "s")
    assert Statistics.load(tmp_path / "s").inputs["ranges"]["mask"]["high"] == 0.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s")
    with pytest.raises(StatisticsError, match="not in a regular file"):
        Statistics.load(tmp_path / "s")


def test_merge_leaves_nothing_behind_that_it_cannot_show(tmp_path: Path) -> None:
    """The record of the preprocessing is damaged, which shows only when it is described."""
    for seed, source in enumerate("ab"):
        statistics(seed, source, inputs={"preprocessing": {"preset": "unit"}, "sources": []}).save(tmp_path / source)
    failed = run("merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "c")
    assert failed.code == 1
    assert "the record of the preprocessing is damaged" in failed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert "bug" not in failed.err
