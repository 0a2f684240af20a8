"""What a refit does, on a CPU: the original's file runs with the rewritten model's constants, handed in by name.

Without graph optimizations, which would fold constants of the file before they are replaced.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxnorm

MODELS = Path(__file__).parents[2] / "models"
DEMO = MODELS / "demo_vgg.onnx"


def refitted(original: Path, weights: onnx.ModelProto, sample: NDArray[np.float32]) -> bytes:
    """The output of the original when its initializers are replaced by those of the same names."""
    options = plain()
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in weights.graph.initializer}
    held = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in values.items()}  # while the session lives
    for name, value in held.items():
        options.add_initializer(name, value)
    return output(ort.InferenceSession(str(original), options, providers=["CPUExecutionProvider"]), sample)


def plain() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def output(session: ort.InferenceSession, sample: NDArray[np.float32]) -> bytes:
    (found,) = session.run(None, {"input": sample})
    return bytes(np.asarray(found).tobytes())


@pytest.mark.parametrize("power_of_two", [True, False])
def test_the_original_with_constants_by_name_is_the_rewritten_network(tmp_path: Path, power_of_two: bool) -> None:
    path = tmp_path / "rewritten.onnx"
    onnxnorm.normalize(DEMO, MODELS / "images", path, preset="unit", limit=8, power_of_two=power_of_two)
    sample = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    original, rewritten = (
        ort.InferenceSession(str(file), plain(), providers=["CPUExecutionProvider"]) for file in (DEMO, path)
    )
    constants = onnx.load(path)
    assert refitted(DEMO, constants, sample) == output(rewritten, sample)
    assert (output(rewritten, sample) == output(original, sample)) == power_of_two

    # The check can fail: with one constant left out, it is another network.
    kept = [tensor for tensor in constants.graph.initializer if tensor.name != "conv3_1.weight"]
    del constants.graph.initializer[:]
    constants.graph.initializer.extend(kept)
    assert refitted(DEMO, constants, sample) != output(rewritten, sample)
