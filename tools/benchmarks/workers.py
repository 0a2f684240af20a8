"""The measured processes: `python -m tools.benchmarks.workers TASK ARGUMENTS`, arguments and report as JSON.

Times are of the call that is measured, without the start of Python and without imports, but for those that a library
leaves to its first call. `Clock` says what they mean.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import tools.benchmarks.drawing
import tools.benchmarks.peers
import tools.benchmarks.preparation
import tools.benchmarks.profile  # noqa: F401 - all register their tasks
from tools.benchmarks.clock import Clock
from tools.benchmarks.feeds import array_batches, options
from tools.benchmarks.tasks import TASKS, Given, Report, task


@task
def photos(given: Given) -> Report:
    """onnxnorm.calibrate from a folder of photographs."""
    return _calibrated(given, given["photos"], preset=given["preset"], size=given["size"])


@task
def arrays(given: Given) -> Report:
    """onnxnorm.calibrate from an array of preprocessed inputs."""
    return _calibrated(given, given["arrays"])


def _calibrated(given: Given, data: str, **words: Any) -> Report:
    import onnxnorm.api  # which the first call imports otherwise

    clock = Clock()
    found = onnxnorm.calibrate(
        given["model"],
        data,
        batch_size=given["batch"],
        limit=given["images"],
        threads=given["threads"],
        provider="cpu",
        measure=tuple(given.get("measure", ())),
        progress=clock.batch,
        **words,
    )
    assert found.images == given["images"], f"{found.images} images measured, expected {given['images']}"
    return clock.report(given)


@task
def bare(given: Given) -> Report:
    """Inference by ONNX Runtime alone, of all outputs."""
    import onnxruntime

    batches = array_batches(given)
    clock = Clock()
    session = onnxruntime.InferenceSession(given["model"], options(given), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for batch in batches:
        session.run(None, {name: batch})
        clock.batch()
    return clock.report(given)


@task
def decoding(given: Given) -> Report:
    """Reading and preprocessing photographs, and nothing else."""
    from onnxnorm.data.images.options import ImageOptions
    from onnxnorm.data.opening import open_data
    from onnxnorm.model.files import Model
    from onnxnorm.model.graph import input_specs

    clock = Clock()
    wanted = ImageOptions(preset=given["preset"], size=given["size"])
    dataset = open_data(given["photos"], input_specs(Model.open(given["model"])), wanted)
    done = 0
    for batch in dataset.batches(given["batch"], given["images"], given["threads"]):
        done += batch.count
        clock.batch()
    assert done == given["images"], f"{done} photographs read, expected {given['images']}"
    return clock.report(given)


@task
def plan(given: Given) -> Report:
    """onnxnorm.plan of a file, once it has done so with a small one."""
    import onnxnorm

    onnxnorm.plan(given["small"])
    begun = time.process_time()
    onnxnorm.plan(given["model"])
    return {"seconds": time.process_time() - begun}


@task
def rewrite(given: Given) -> Report:
    """onnxnorm.rewrite in memory, without verification, once it has done so with a small one."""
    import onnxnorm

    onnxnorm.rewrite(given["small"], given["small_statistics"], verify=False)
    begun = time.process_time()
    onnxnorm.rewrite(given["model"], given["statistics"], verify=False)
    return {"seconds": time.process_time() - begun}


@task
def nothing(given: Given) -> Report:  # noqa: ARG001
    """Import the library and what it loads lazily: what every other process holds, too."""
    import onnxnorm.api  # noqa: F401

    return {}


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](json.loads(sys.argv[2]))))
