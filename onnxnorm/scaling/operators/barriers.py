"""Operators that are barriers on purpose, each with its reason. An operator that no module names is a barrier too.

Source: the specification of ONNX's operators, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from onnxnorm.scaling.laws import law, refuses
from onnxnorm.scaling.visit import Outcome, Visit

refuses(
    "scaling its input does not just scale its output",
    *("Elu", "Gelu", "HardSwish", "LogSoftmax", "Mish", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh"),
    role="nonlinearity",
)
refuses(
    "scaling its input does not just scale its output",
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log"),
    *("Round", "Sin", "Sinh", "Tan"),
)
refuses("it multiplies one element more at each place, so that each has another power of the scale", "CumProd")
refuses("it takes the logarithm of a sum", "ReduceLogSum", "ReduceLogSumExp")
refuses("as ONNX defines it, it adds 1e-9 to the standard deviation that it divides by", "MeanVarianceNormalization")
refuses("it follows a recurrence over time", "LinearAttention")
refuses("it joins its input with that of earlier steps, a state", "CausalConvWithState")
refuses("it computes with quantized integers", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
refuses("it reads the bits of its input", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")
refuses("it computes with truth values", "And", "Not", "Or", "Xor")
refuses("it runs a subgraph, and scales are not followed into it", "If", "Loop", "Scan", "SequenceMap")
refuses(
    "it handles sequences or optional values, into which scales are not followed",
    *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
    *("SequenceLength", "SplitToSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
)
refuses(
    "it handles text or files",
    *("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "ImageDecoder"),
)
refuses("it computes where a GridSample reads", "AffineGrid")
refuses(
    "it makes values of its own",
    *("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"),
    *("MelWeightMatrix", "Range"),
)
refuses("it writes one of two numbers, where an index points", "OneHot")
refuses("it is a constant, which others read as such; of text or sparse values, it is left alone", "Constant")
refuses(
    "it is random",
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"),
)
refuses("it is a loss", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")


@law("Shape", "Size")
def reads_shape(visit: Visit) -> Outcome:
    """It reads a shape and no values, so it pins nothing."""
    return visit.unscaled("it is a shape, not a value")


@law("EyeLike", "RandomNormalLike", "RandomUniformLike")
def made_in_a_shape(visit: Visit) -> Outcome:
    """It makes values of its own, of a shape that it reads, so it pins nothing in front of it."""
    return visit.unscaled("it makes values of its own")
