"""The verbs, with the same words as the commands: models as paths or ModelProto, data as paths or arrays.

Two journeys: `MODEL → trace → probe → (images → batches → session → moments) → STATS` is `calibrate`, and
`MODEL + STATS → trace → scales → rewrite → verify → OUT` is `rewrite`; `normalize` is one after the other.
"""

from onnxnorm.api.changing import Rewritten, normalize, restore, rewrite
from onnxnorm.api.common import ImageWords
from onnxnorm.api.measuring import calibrate, merge, plan
from onnxnorm.api.reporting import Reported, write_report
from onnxnorm.api.verifying import verify

__all__ = [
    "ImageWords",
    "Reported",
    "Rewritten",
    "calibrate",
    "merge",
    "normalize",
    "plan",
    "restore",
    "rewrite",
    "verify",
    "write_report",
]
