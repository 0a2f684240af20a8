"""The measured processes: `python -m benchmarks.workers TASK ARGUMENTS`, arguments and report as JSON.

Times are of the call that is measured, without the start of Python and its imports. `ms` is the time per image once it
runs: from the end of the first batch to the end, over the images in between; `seconds` is the whole call.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import benchmarks.preparation  # noqa: F401 - registers its tasks
from benchmarks.tasks import TASKS, Given, Report, task


class Clock:
    """Reads the time when the call begins, when its first batch is done and when all is done."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.first: float | None = None

    def batch(self, *_: object) -> None:
        """A batch is done."""
        self.first = self.first or time.perf_counter()

    def report(self, given: Given) -> Report:
        """The times, for all images that were to be measured."""
        ended = time.perf_counter()
        images, batch = given["images"], given["batch"]
        running = (ended - (self.first or self.begun)) / (images - batch)
        return {"ms": running * 1000, "seconds": ended - self.begun, "images": images}


@task
def photos(given: Given) -> Report:
    """onnxnorm.calibrate from a folder of photographs."""
    return _calibrated(given, given["photos"], preset=given["preset"], size=given["size"])


@task
def arrays(given: Given) -> Report:
    """onnxnorm.calibrate from an array of preprocessed inputs."""
    return _calibrated(given, given["arrays"])


def _calibrated(given: Given, data: str, **options: Any) -> Report:
    import onnxnorm

    clock = Clock()
    found = onnxnorm.calibrate(
        given["model"],
        data,
        batch_size=given["batch"],
        limit=given["images"],
        threads=given["threads"],
        provider="cpu",
        progress=clock.batch,
        **options,
    )
    assert found.images == given["images"], f"{found.images} images measured, expected {given['images']}"
    return clock.report(given)


@task
def bare(given: Given) -> Report:
    """Inference by ONNX Runtime alone, of all outputs."""
    import onnxruntime

    batches = _batches(given)
    clock = Clock()
    session = onnxruntime.InferenceSession(given["model"], _options(given), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for batch in batches:
        session.run(None, {name: batch})
        clock.batch()
    return clock.report(given)


@task
def decoding(given: Given) -> Report:
    """Reading and preprocessing photographs, and nothing else."""
    from onnxnorm.calibration.image_options import ImageOptions
    from onnxnorm.calibration.sources import open_data
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs

    clock = Clock()
    options = ImageOptions(preset=given["preset"], size=given["size"])
    dataset = open_data(given["photos"], input_specs(Model.open(given["model"])), options)
    done = 0
    for batch in dataset.batches(given["batch"], given["images"], given["threads"]):
        done += batch.count
        clock.batch()
    assert done == given["images"], f"{done} photographs read, expected {given['images']}"
    return clock.report(given)


@task
def minmax(given: Given) -> Report:
    """ONNX Runtime's MinMax calibrator."""
    return _peer(given, "MinMax")


@task
def percentile(given: Given) -> Report:
    """ONNX Runtime's Percentile calibrator. It keeps all activations to the end, so only the whole can be timed."""
    report = _peer(given, "Percentile")
    return report | {"ms": report["collecting"] / given["images"] * 1000}


def _peer(given: Given, method: str) -> Report:
    import onnxruntime
    from onnxruntime.quantization import calibrate

    clock = Clock()
    reader = _reader(given, clock)
    with tempfile.TemporaryDirectory() as folder:
        augmented = os.path.join(folder, "augmented.onnx")
        chosen = calibrate.CalibrationMethod[method]
        calibrator = calibrate.create_calibrator(given["model"], given["operators"], augmented, chosen)
        options = _options(given)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # as it chooses itself
        calibrator.infer_session = onnxruntime.InferenceSession(augmented, options, providers=["CPUExecutionProvider"])
        collecting = time.perf_counter()
        calibrator.collect_data(reader)
        calibrator.compute_data()
        return clock.report(given) | {"collecting": time.perf_counter() - collecting}


def _reader(given: Given, clock: Clock) -> Any:
    """Hands batches to ONNX Runtime's calibrators, and notes when the second one is asked for."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    batches = _batches(given)
    name = onnx.load(given["model"], load_external_data=False).graph.input[0].name

    def feeds() -> Iterator[Any]:
        for batch in batches:
            yield {name: batch}
            clock.batch()

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = feeds()

        def get_next(self) -> Any:
            return next(self.feeds, None)

    return Reader()


def _batches(given: Given) -> list[Any]:
    """The preprocessed inputs, in memory."""
    import numpy as np

    with open(given["arrays"], "rb") as stream:  # no more of it than is wanted
        np.lib.format.read_magic(stream)
        (_, *sample), _, dtype = np.lib.format.read_array_header_1_0(stream)
        rows = np.fromfile(stream, dtype, given["images"] * int(np.prod(sample))).reshape(-1, *sample)
    return [rows[start : start + given["batch"]] for start in range(0, len(rows), given["batch"])]


def _options(given: Given) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given["threads"]
    options.log_severity_level = 4
    return options


@task
def plan(given: Given) -> Report:
    """onnxnorm.plan of a file, once it has done so with a small one."""
    import onnxnorm

    onnxnorm.plan(given["small"])
    begun = time.perf_counter()
    onnxnorm.plan(given["model"])
    return {"seconds": time.perf_counter() - begun}


@task
def rewrite(given: Given) -> Report:
    """onnxnorm.rewrite in memory, without verification, once it has done so with a small one."""
    import onnxnorm

    onnxnorm.rewrite(given["small"], given["small_statistics"], verify=False)
    begun = time.perf_counter()
    onnxnorm.rewrite(given["model"], given["statistics"], verify=False)
    return {"seconds": time.perf_counter() - begun}


@task
def nothing(given: Given) -> Report:  # noqa: ARG001
    """Import the library and what it loads lazily: what every other process holds, too."""
    import onnxnorm.api  # noqa: F401

    return {}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](json.loads(sys.argv[2]))))
