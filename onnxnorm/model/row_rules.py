"""The rules of the law of the batch axis: one for each operator that leaves samples apart (`rows`).

A rule is asked about a node whose outputs have a first size of 1 for one sample, and reads it through a `Reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxnorm.model.constants import Constant
from onnxnorm.model.counts import Counts
from onnxnorm.model.graph import Graph, Node

__all__ = ["RULES", "SIZED", "Reading"]


@dataclass(frozen=True)
class Reading:
    """A node and what it reads; `rows` are the values that have rows so far, `counts` those that hold their number."""

    node: Node
    graph: Graph
    rows: set[str]
    counts: Counts

    def has(self, index: int) -> bool:
        """Whether there is such an input."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def has_rows(self, index: int) -> bool:
        """Whether an input has rows."""
        return self.has(index) and self.node.inputs[index] in self.rows

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an input that has rows, or is constant."""
        return self.graph.shapes[self.node.inputs[index]]

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return self.graph.shapes[self.node.outputs[0]]

    @property
    def reads_first_only(self) -> bool:
        """Whether the first input has rows, and no other."""
        others = range(1, len(self.node.inputs))
        return self.has_rows(0) and not any(self.has_rows(index) for index in others)

    def numbers(self, index: int, name: str = "") -> list[int] | None:
        """The whole numbers of an attribute, or of a constant input; None if it is left out."""
        given = self.node.attribute(name) if name else None
        if given is not None:
            whole = isinstance(given, Sequence) and all(isinstance(number, int) for number in given)
            return list(given) if whole else None
        constant = self.constant(index)
        return None if constant is None else [int(number) for number in constant.values().ravel()]

    def constant(self, index: int) -> Constant | None:
        """An input that is the same for all sizes that the model allows; None if it is left out, or is none."""
        constant = self.graph.constants.get(self.node.inputs[index]) if self.has(index) else None
        varies = constant is not None and constant.by_shape and any(None in spec.sample for spec in self.graph.inputs)
        return None if varies else constant

    def counts_first(self, index: int) -> bool:
        """Whether an input holds the number of samples as its first element, and nowhere else."""
        marks = self.counts.get(self.node.inputs[index]) if self.has(index) else None
        return marks is not None and marks.ndim == 1 and np.flatnonzero(marks).tolist() == [0]

    def spares_rows(self, axis: int) -> bool:
        """Whether an axis of the first input is not the first one."""
        return axis % len(self.shape()) != 0

    def is_spread(self, index: int) -> bool:
        """Whether an input meets each row of the output in the same way: it has rows itself, or is the same for all."""
        shape, rank = self.shape(index), len(self.out)
        if len(shape) != rank:
            return len(shape) < rank and not self.has_rows(index)
        return self.has_rows(index) or shape[0] == 1


Rule: TypeAlias = Callable[[Reading], bool]


def _element_by_element(reading: Reading) -> bool:
    """All inputs are broadcast to the shape of the output."""
    return all(reading.is_spread(index) for index, name in enumerate(reading.node.inputs) if name)


def _prelu(reading: Reading) -> bool:
    """Slopes are broadcast to the first input, which has the shape of the output."""
    slope, shape = reading.shape(1), reading.shape(0)
    fits = len(slope) <= len(shape) and all(a in {1, b} for a, b in zip(slope[::-1], shape[::-1], strict=False))
    return fits and reading.has_rows(0) and reading.is_spread(1)


def _within(reading: Reading) -> bool:
    """Only the first input has rows, and what is computed of a row is of that row by the operator's definition."""
    return reading.reads_first_only


def _one_output(reading: Reading) -> bool:
    """As `_within`, but other outputs are not per sample: positions counted over the batch, statistics, a mask."""
    trains = reading.node.attribute("training_mode", 0)
    return reading.reads_first_only and not trains and not any(reading.node.outputs[1:])


def _dropout(reading: Reading) -> bool:
    """It passes its input on, unless it is told to train."""
    trains = reading.numbers(2)
    return _one_output(reading) and (not reading.has(2) or trains == [0])


def _resize(reading: Reading) -> bool:
    """Scales that leave the batch as it is, or sizes of which the first is the number of samples."""
    index = 2 if reading.node.op == "Resize" and reading.node.opset >= 11 else 1
    if reading.node.attribute("axes") is not None or not reading.reads_first_only:
        return False
    if reading.node.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return False
    if reading.node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch" or len(reading.shape()) < 4:
        return False  # the scale of a side would be that of the batch; of fewer axes, the first is interpolated too
    if reading.has(3):
        return reading.counts_first(3)
    constant = reading.constant(index)
    return constant is not None and constant.size == len(reading.shape()) and float(constant.values().ravel()[0]) == 1.0


def _along(default: int) -> Rule:
    """A rule for what runs along the axis `axis`, or from it to the last, as older operators do."""

    def rule(reading: Reading) -> bool:
        return reading.reads_first_only and reading.spares_rows(int(reading.node.attribute("axis", default)))

    return rule


def _cumulated(reading: Reading) -> bool:
    axes = reading.numbers(1)
    return reading.reads_first_only and axes is not None and all(reading.spares_rows(axis) for axis in axes)


def _axes_named(name: str, index: int) -> Rule:
    """A rule for operators with axes, in an attribute or an input; without them all axes are meant."""

    def rule(reading: Reading) -> bool:
        axes, rank = reading.numbers(index, name), max(len(reading.shape()), len(reading.out))
        if not axes or (reading.node.opset < 11 and min(axes) < 0):  # which had no meaning then
            return False
        return reading.reads_first_only and all(axis % rank for axis in axes)

    return rule


def _concat(reading: Reading) -> bool:
    axis = int(reading.node.attribute("axis", 1))
    return all(reading.has_rows(index) for index in range(len(reading.node.inputs))) and reading.spares_rows(axis)


def _slice(reading: Reading) -> bool:
    starts, axes = reading.numbers(1, "starts"), reading.numbers(3, "axes")
    if reading.has(3) and axes is None:
        return False
    known = axes if axes is not None else list(range(len(starts or ())))
    return reading.reads_first_only and starts is not None and all(reading.spares_rows(axis) for axis in known)


def _transpose(reading: Reading) -> bool:
    order = reading.node.attribute("perm")
    return bool(order) and order[0] == 0


def _flatten(reading: Reading) -> bool:
    axis = int(reading.node.attribute("axis", 1))
    return axis % len(reading.shape()) == 1 and axis != len(reading.shape())


def _pad(reading: Reading) -> bool:
    pads = reading.numbers(1, "pads")
    if not pads or not reading.reads_first_only or reading.has(3):
        return False
    return pads[0] == 0 and pads[len(pads) // 2] == 0


def _repeated(reading: Reading) -> bool:
    """Tile and Expand, whose outputs have one row: they repeat along other axes."""
    if not reading.reads_first_only or len(reading.out) != len(reading.shape()):
        return False
    if reading.node.inputs[1] in reading.counts:
        return reading.node.op == "Expand" and reading.counts_first(1) and reading.shape(1) == (len(reading.out),)
    return reading.constant(1) is not None


def _gemm(reading: Reading) -> bool:
    plain = reading.reads_first_only and not reading.node.attribute("transA", 0)
    return plain and (not reading.has(2) or reading.is_spread(2))


def _matmul(reading: Reading) -> bool:
    """Rows of a matrix by a matrix that is the same for all, or a stack of matrices."""
    left, right = len(reading.shape(0)), len(reading.shape(1))
    if left == right == 2:
        return reading.reads_first_only
    return len(reading.out) >= 3 and min(left, right) >= 2 and all(reading.is_spread(index) for index in (0, 1))


def _reshape(reading: Reading) -> bool:
    """Elements stay in order, so a first axis of 1 for one sample is one row for each, unless a size of 1 is computed.

    A stored 1 can be opened.
    """
    target = reading.graph.constants.get(reading.node.inputs[1])
    if target is None or not reading.reads_first_only:
        return False
    if reading.node.inputs[1] in reading.counts:
        return reading.counts_first(1)
    return not target.by_shape or int(target.values()[0]) in {0, -1}


SIZED = {"Reshape", "Resize", "Expand"}
"""The operators that may read the number of samples."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("Abs", "Acos", "Add", "And", "Asin", "Atan", "BitShift", "Cast", "Ceil", "Celu", "Cos", "Div"),
            *("Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish"),
            *("Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish"),
            *("Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
            *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh"),
            *("ThresholdedRelu", "Where", "Xor", "Cosh"),
        ),
        _element_by_element,
    ),
    **dict.fromkeys(
        (
            *("AveragePool", "Clip", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool"),
            *("GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "SpaceToDepth"),
        ),
        _within,
    ),
    **dict.fromkeys(("BatchNormalization", "MaxPool"), _one_output),
    "PRelu": _prelu,
    "Dropout": _dropout,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _along(-1)),  # 1 before opset 13, which spares rows as well
    **dict.fromkeys(("LayerNormalization", "LpNormalization", "RMSNormalization", "TopK"), _along(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin", "Gather", "Split"), _along(0)),
    "CumSum": _cumulated,
    **dict.fromkeys(
        (
            *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
            *("ReduceProd", "ReduceSum", "ReduceSumSquare", "Squeeze", "Unsqueeze"),
        ),
        _axes_named("axes", 1),
    ),
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Pad": _pad,
    **dict.fromkeys(("Tile", "Expand"), _repeated),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Reshape": _reshape,
}
