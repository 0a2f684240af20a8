"""What ONNX Runtime is given, whoever drives it: the same threads, and batches of arrays or of photographs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.benchmarks.tasks import Given

__all__ = ["array_batches", "options", "photograph_batches"]


def array_batches(given: Given) -> list[Any]:
    """The preprocessed inputs, in memory; no more of the file is read than is wanted."""
    import numpy as np

    with open(given["arrays"], "rb") as stream:
        np.lib.format.read_magic(stream)
        (_, *sample), _, dtype = np.lib.format.read_array_header_1_0(stream)
        rows = np.fromfile(stream, dtype, given["images"] * int(np.prod(sample))).reshape(-1, *sample)
    return [rows[start : start + given["batch"]] for start in range(0, len(rows), given["batch"])]


def photograph_batches(given: Given) -> Iterator[Any]:
    """The same out of the photographs: each batch is decoded when it is asked for."""
    from tools.benchmarks.recipe import listed, stacked

    paths = listed(given["photos"])[: given["images"]]
    for start in range(0, len(paths), given["batch"]):
        yield stacked(paths[start : start + given["batch"]], given["recipe"])


def options(given: Given) -> Any:
    """Session options: the threads, and no words."""
    import onnxruntime

    found = onnxruntime.SessionOptions()
    found.intra_op_num_threads = given["threads"]
    found.log_severity_level = 4
    return found
