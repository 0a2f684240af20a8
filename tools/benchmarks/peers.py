"""ONNX Runtime's own calibrators, driven as `quantize_static` drives them: create, collect, compute.

`operators` are those whose tensors are calibrated; None stands for all that `quantize_static` takes by default.
`feed` is `photos` or `arrays`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tools.benchmarks.clock import Clock
from tools.benchmarks.feeds import array_batches, options, photograph_batches
from tools.benchmarks.tasks import Given, Report, task


@task
def minmax(given: Given) -> Report:
    """The MinMax calibrator."""
    return _calibrated(given, "MinMax")


@task
def percentile(given: Given) -> Report:
    """The Percentile calibrator. It keeps all activations to the end, so only the whole collection can be timed."""
    report = _calibrated(given, "Percentile")
    return report | {key: report["collecting"][key] / given["images"] * 1000 for key in ("ms", "cpu")}


def _calibrated(given: Given, method: str) -> Report:
    import onnx
    from onnxruntime.quantization import calibrate

    name = onnx.load(given["model"], load_external_data=False).graph.input[0].name
    batches = photograph_batches(given) if given["feed"] == "photos" else iter(array_batches(given))
    _set_threads(calibrate, given)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        calibrator = calibrate.create_calibrator(
            given["model"],
            given["operators"] or _by_default(),
            os.path.join(folder, "augmented.onnx"),
            calibrate.CalibrationMethod[method],
        )
        begun, begun_cpu = time.perf_counter(), time.process_time()
        calibrator.collect_data(_reader(name, batches, clock))
        calibrator.compute_data()
        collecting = {"ms": time.perf_counter() - begun, "cpu": time.process_time() - begun_cpu}
        return {**clock.report(given), "collecting": collecting}


def _reader(name: str, batches: Iterator[Any], clock: Clock) -> Any:
    """Hands over one batch a call; the one before is done when the next is asked for."""
    from onnxruntime.quantization.calibrate import CalibrationDataReader

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


def _by_default() -> list[str]:
    """The operator types that `quantize_static` calibrates when it is not told any."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def _set_threads(calibrate: Any, given: Given) -> None:
    """Let calibrators open the session that they open anyway, without graph optimizations, on as many threads."""
    import onnxruntime

    def create_inference_session(self: Any) -> None:
        chosen = options(given)
        chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.infer_session = onnxruntime.InferenceSession(
            self.augmented_model_path, chosen, providers=["CPUExecutionProvider"]
        )

    calibrate.CalibraterBase.create_inference_session = create_inference_session
