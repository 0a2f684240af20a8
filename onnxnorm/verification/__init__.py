"""Whether it is the same function, and the same graph."""

from onnxnorm.verification.compare import Comparison, compare
from onnxnorm.verification.graphs import same_graph
from onnxnorm.verification.verify import Verification, verify_models

__all__ = ["Comparison", "Verification", "compare", "same_graph", "verify_models"]
