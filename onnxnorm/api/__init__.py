"""The Python API: one function per command, of the same name. Models are paths or ModelProtos, data paths or arrays.

There are two pipelines: `calibrate` is `MODEL → trace → probe → (images → batches → session → moments) → STATS`, and
`rewrite` is `MODEL + STATS → trace → scales → rewrite → verify → OUT`. `normalize` runs one after the other.
"""

from onnxnorm.api.calibrate import calibrate
from onnxnorm.api.check import Checked, LayerMeans, check
from onnxnorm.api.export import export, export_thresholds
from onnxnorm.api.features import features
from onnxnorm.api.merge import merge
from onnxnorm.api.normalize import normalize
from onnxnorm.api.options import (
    CalibrationOptions,
    CheckOptions,
    NormalizeOptions,
    PlanOptions,
    ReportOptions,
    RewriteOptions,
    VerifyOptions,
)
from onnxnorm.api.plan import plan
from onnxnorm.api.report import Reported, write_report
from onnxnorm.api.restore import restore
from onnxnorm.api.rewrite import Rewritten, rewrite
from onnxnorm.api.verify import verify
from onnxnorm.exporting import Exported, ExportOptions
from onnxnorm.extraction import FeatureOptions, Features

__all__ = [
    "CalibrationOptions",
    "CheckOptions",
    "Checked",
    "ExportOptions",
    "Exported",
    "FeatureOptions",
    "Features",
    "LayerMeans",
    "NormalizeOptions",
    "PlanOptions",
    "ReportOptions",
    "Reported",
    "RewriteOptions",
    "Rewritten",
    "VerifyOptions",
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
