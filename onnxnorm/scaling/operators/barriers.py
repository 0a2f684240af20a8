"""Operators that are barriers on purpose, each with its reason. What is named nowhere is a barrier too."""

from __future__ import annotations

from onnxnorm.scaling.laws import Outcome, Visit, law, refuses

refuses(
    "it is not positively homogeneous",
    *("Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LogSoftmax", "Mish", "Selu", "Shrink", "Sigmoid", "Softmax"),
    *("Softplus", "Softsign", "Swish", "Tanh"),
    role="bends",
)
refuses(
    "it is not positively homogeneous",
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Mod"),
    *("Pow", "Reciprocal", "Round", "Sin", "Sinh", "Sqrt", "Tan"),
    *("LRN", "MeanVarianceNormalization", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"),
)


@law("Shape", "Size")
def reads_shape(visit: Visit) -> Outcome:
    """Reads no values, so it pins nothing."""
    del visit
    return ()
