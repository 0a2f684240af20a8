"""Statistics of the networks of the corpus."""

from __future__ import annotations

import numpy as np

from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.model.files import Model
from onnxnorm.statistics import Statistics
from tests.corpus import Case, feeds

__all__ = ["calibrated"]


def calibrated(model: Model, case: Case, seed: int = 0) -> Statistics:
    """Statistics on nine random samples, in batches of four."""
    samples = feeds(model.proto, 10 if case.name == "fixed_batch" else 9, seed)
    if case.name == "fixed_batch":
        samples = {name: np.concatenate([array] * 4) for name, array in samples.items()}
    size = None if case.name == "fixed_batch" else 4
    return calibrate_model(model, samples, CalibrationOptions(batch_size=size, provider="cpu", filters=case.filters))
