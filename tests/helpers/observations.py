"""Per-image means as calibration sees them: of the demo network's filters on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.step import prepare
from onnxnorm.data.batches import Batch
from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Value

Floats = NDArray[np.float64]


MODELS = Path(__file__).parents[2] / "models"


VALUE = Value("a", "mean")


def photographs() -> Floats:
    """Means of the demo network's filters on 20 crops of each of its photographs, `(960, 240)`."""
    rng = np.random.default_rng(0)
    crops = []
    for path in sorted((MODELS / "images").glob("*.jpg")):
        image = np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1) / 255
        for _ in range(20):
            y, x = (rng.integers(0, side - 63) for side in image.shape[1:])
            crops.append(image[:, y : y + 64, x : x + 64])
    calibration = prepare(
        Model.open(MODELS / "demo_vgg.onnx"), {"input": (1, 3, 64, 64)}, CalibrationOptions(), Runtime("cpu")
    )
    found = [calibration.step(Batch({"input": crop[None]}, 1, ("crop",))).values() for crop in crops]
    return np.array([np.concatenate([moments.mean for moments in means]) for means in found])
