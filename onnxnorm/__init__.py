"""Rescale a convolutional network so that every filter's mean activation is 1 and its output stays the same.

::

    statistics = onnxnorm.calibrate("vgg16.onnx", "photos/", preset="caffe")
    print(onnxnorm.plan("vgg16.onnx", statistics))
    onnxnorm.rewrite("vgg16.onnx", statistics, "normalized.onnx")
    onnxnorm.verify("vgg16.onnx", "normalized.onnx", "other-photos/", preset="caffe").same

Importing this package loads no runtime and no image library; the first call loads them.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnxnorm.errors import (
    BatchWarning,
    CheckpointWarning,
    DataError,
    DataWarning,
    InputError,
    MemoryShortageError,
    MemoryWarning,
    ModelError,
    OnnxnormError,
    OptionError,
    ProviderError,
    ProviderWarning,
    StatisticsError,
    VerificationError,
)
from onnxnorm.version import VERSION as __version__  # noqa: N811 - its public name

# ONNX Runtime sends telemetry unless this is set before it is imported: in a run of more than some seconds it looks up
# a host, and writes into the home folder. A value that is set already stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from onnxnorm.api import (
        CalibrationOptions,
        Checked,
        CheckOptions,
        Exported,
        ExportOptions,
        FeatureOptions,
        Features,
        LayerMeans,
        NormalizeOptions,
        PlanOptions,
        Reported,
        ReportOptions,
        RewriteOptions,
        Rewritten,
        VerifyOptions,
        calibrate,
        check,
        export,
        export_thresholds,
        features,
        merge,
        normalize,
        plan,
        restore,
        rewrite,
        verify,
        write_report,
    )
    from onnxnorm.calibration.calibrate import Interrupted, Progress
    from onnxnorm.rewriting.restore import Restored
    from onnxnorm.scaling.plan import Plan
    from onnxnorm.statistics import Statistics
    from onnxnorm.verification.verdict import Verification

__all__ = [
    "BatchWarning",
    "CalibrationOptions",
    "CheckOptions",
    "Checked",
    "CheckpointWarning",
    "DataError",
    "DataWarning",
    "ExportOptions",
    "Exported",
    "FeatureOptions",
    "Features",
    "InputError",
    "Interrupted",
    "LayerMeans",
    "MemoryShortageError",
    "MemoryWarning",
    "ModelError",
    "NormalizeOptions",
    "OnnxnormError",
    "OptionError",
    "Plan",
    "PlanOptions",
    "Progress",
    "ProviderError",
    "ProviderWarning",
    "ReportOptions",
    "Reported",
    "Restored",
    "RewriteOptions",
    "Rewritten",
    "Statistics",
    "StatisticsError",
    "Verification",
    "VerificationError",
    "VerifyOptions",
    "__version__",
    "calibrate",
    "check",
    "export",
    "export_thresholds",
    "features",
    "merge",
    "normalize",
    "plan",
    "restore",
    "rewrite",
    "verify",
    "write_report",
]

_HOMES = {
    "CalibrationOptions": "onnxnorm.api",
    "CheckOptions": "onnxnorm.api",
    "Checked": "onnxnorm.api",
    "ExportOptions": "onnxnorm.api",
    "Exported": "onnxnorm.api",
    "FeatureOptions": "onnxnorm.api",
    "Features": "onnxnorm.api",
    "Interrupted": "onnxnorm.calibration.calibrate",
    "LayerMeans": "onnxnorm.api",
    "NormalizeOptions": "onnxnorm.api",
    "Plan": "onnxnorm.scaling.plan",
    "PlanOptions": "onnxnorm.api",
    "Progress": "onnxnorm.calibration.calibrate",
    "ReportOptions": "onnxnorm.api",
    "Reported": "onnxnorm.api",
    "Restored": "onnxnorm.rewriting.restore",
    "RewriteOptions": "onnxnorm.api",
    "Rewritten": "onnxnorm.api",
    "Statistics": "onnxnorm.statistics",
    "Verification": "onnxnorm.verification.verdict",
    "VerifyOptions": "onnxnorm.api",
    "calibrate": "onnxnorm.api",
    "check": "onnxnorm.api",
    "export": "onnxnorm.api",
    "export_thresholds": "onnxnorm.api",
    "features": "onnxnorm.api",
    "merge": "onnxnorm.api",
    "normalize": "onnxnorm.api",
    "plan": "onnxnorm.api",
    "restore": "onnxnorm.api",
    "rewrite": "onnxnorm.api",
    "verify": "onnxnorm.api",
    "write_report": "onnxnorm.api",
}


def __getattr__(name: str) -> Any:
    if name == "torch":  # a package of its own, and no part of `from onnxnorm import *`, where it would hide PyTorch
        return import_module("onnxnorm.torch")
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxnorm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
