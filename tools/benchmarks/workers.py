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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Given = dict[str, Any]
Report = dict[str, Any]

TASKS: dict[str, Callable[[Given], Report]] = {}


def task(function: Callable[[Given], Report]) -> Callable[[Given], Report]:
    """Register a task under the function's name."""
    TASKS[function.__name__] = function
    return function


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
        calibrator.infer_session = onnxruntime.InferenceSession(
            augmented, options, providers=["CPUExecutionProvider"]
        )
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

    rows = np.load(given["arrays"])[: given["images"]]
    return [rows[start : start + given["batch"]] for start in range(0, len(rows), given["batch"])]


def _options(given: Given) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given["threads"]
    options.log_severity_level = 4
    return options


@task
def preprocess(given: Given) -> Report:
    """Write the preprocessed inputs of a folder of photographs as one array."""
    import numpy as np

    from onnxnorm.calibration.image_options import ImageOptions
    from onnxnorm.calibration.sources import open_data
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs

    options = ImageOptions(preset=given["preset"], size=given["size"])
    dataset = open_data(given["photos"], input_specs(Model.open(given["model"])), options)
    rows = [next(iter(batch.feeds.values())) for batch in dataset.batches(1)]
    np.save(given["arrays"], np.concatenate(rows))
    return {"images": len(rows)}


@task
def random_statistics(given: Given) -> Report:
    """Calibrate once on random arrays, to have statistics."""
    import numpy as np

    import onnxnorm

    rows = np.random.default_rng(16).standard_normal((2, 3, 224, 224)).astype(np.float32) * 50
    onnxnorm.calibrate(given["model"], [rows], provider="cpu").save(given["statistics"])
    return {}


@task
def synthetic(given: Given) -> Report:
    """Write a synthetic network, with invented statistics for it."""
    import numpy as np
    import onnx

    from benchmarks.graphs import network
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs
    from onnxnorm.model.shapes import read_graph, sample_shapes
    from onnxnorm.scaling import find_layers, trace
    from onnxnorm.scaling.filters import sites_of
    from onnxnorm.statistics import Moments, Statistics, Value

    proto = network(given["family"], given["nodes"])
    onnx.save(proto, given["model"])
    model = Model.open(given["model"])
    shapes = sample_shapes(input_specs(model))
    graph = read_graph(model, shapes)
    rng = np.random.default_rng(0)
    values = {}
    for site in sites_of(find_layers(trace(graph))):
        means = rng.uniform(0.1, 5, (4, graph.shapes[site.value][site.axis]))
        values[Value(site.value, site.measure)] = Moments.of(means, means + 5, np.full(4, 256))
    Statistics(model.digest(), "invented", "conv", shapes, {}, (), values).save(given["statistics"])
    return {"nodes": len(proto.graph.node)}


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
def sparse(given: Given) -> Report:
    """Write a sparse .npy file of zeros, `(rows, 3, 512, 512)`, and a network of one convolution for it."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    shape = (given["rows"], 3, 512, 512)
    with Path(given["arrays"]).open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + 4 * int(np.prod(shape, dtype=np.int64)))
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "weight", "bias"], ["conv"], "conv", strides=[8, 8]),
            helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        ],
        "one convolution",
        [helper.make_tensor_value_info("input", 1, ["N", *shape[1:]])],
        [helper.make_tensor_value_info("relu", 1, None)],
        [
            numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "weight"),
            numpy_helper.from_array(np.ones(4, np.float32), "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), given["model"])
    return {}


@task
def nothing(given: Given) -> Report:  # noqa: ARG001
    """Import the library and what it loads lazily: what every other process holds, too."""
    import onnxnorm.api  # noqa: F401

    return {}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](json.loads(sys.argv[2]))))
