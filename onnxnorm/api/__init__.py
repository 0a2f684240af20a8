"""The verbs, with the same words as the commands: models as paths or ModelProto, data as paths or arrays.

Two journeys: `MODEL → trace → probe → (images → batches → session → moments) → STATS` is `calibrate`, and
`MODEL + STATS → trace → scales → rewrite → verify → OUT` is `rewrite`; `normalize` is one after the other.
"""

from onnxnorm.api.calibrate import calibrate
from onnxnorm.api.merge import merge
from onnxnorm.api.normalize import normalize
from onnxnorm.api.options import (
    CalibrationOptions,
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

__all__ = [
    "CalibrationOptions",
    "NormalizeOptions",
    "PlanOptions",
    "ReportOptions",
    "Reported",
    "RewriteOptions",
    "Rewritten",
    "VerifyOptions",
    "calibrate",
    "merge",
    "normalize",
    "plan",
    "restore",
    "rewrite",
    "verify",
    "write_report",
]
