"""Whether it is the same function, and the same graph."""

from onnxnorm.verification.compare import Comparison, compare
from onnxnorm.verification.fp16 import Fp16
from onnxnorm.verification.graphs import same_graph
from onnxnorm.verification.headroom import HeadroomMeter
from onnxnorm.verification.verdict import OutputVerdict, Verification
from onnxnorm.verification.verify import verify_models

__all__ = [
    "Comparison",
    "Fp16",
    "HeadroomMeter",
    "OutputVerdict",
    "Verification",
    "compare",
    "same_graph",
    "verify_models",
]
