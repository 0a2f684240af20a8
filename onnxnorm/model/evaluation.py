"""Constants that nodes compute from other constants, evaluated with ONNX's reference implementation when asked for.

Few bytes can describe much: an `Expand` of one number to a billion costs a model a hundred bytes. So what all computed
constants of a graph hold together is limited, and what computing them takes: `Evaluator` treats what goes beyond as not
constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.model.boundary import model_errors
from onnxnorm.model.constants import Constant
from onnxnorm.model.graph import Node
from onnxnorm.model.tensors import tensor_dtype

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

__all__ = ["MOST_ELEMENTS", "Evaluator", "evaluate"]

# Operators whose outputs are never constant; and one that the reference implementation lacks.
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_UNKNOWN = {"Scatter"}
# The first opset that the reference implementation has; the part that is used here did not change since earlier ones.
_IMPLEMENTED_FROM = {"DequantizeLinear": 19}

MOST_ELEMENTS = 1 << 23
"""Elements that the computed constants of a graph may have in any case, together."""
# The reference implementation runs these element by element, in Python; each counts as many.
_LOOPS = {"Resize", "Upsample", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "Col2Im", "Det"}
_LOOPS |= {"AveragePool", "LpPool", "MaxPool", "MaxRoiPool", "MaxUnpool", "RoiAlign", "GridSample", "LRN"}
_LOOPS |= {"GRU", "LSTM", "RNN", "NonMaxSuppression", "DFT", "STFT"}
_SCATTERS = {"GatherND", "ScatterElements", "ScatterND"}  # and for these each index
_LOOP, _INDEX = 1 << 10, 1 << 6
_PRODUCTS = {"Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"}
_MULTIPLICATIONS, _TERMS = 32, 4  # of matrices, and of Einsum: as many take as long as an element
_TIMES_STORED = 4  # and this many times the elements of the constants that the file itself holds


def evaluate(node: Node, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run one node, without subgraphs, with ONNX's reference implementation on inputs given by name.

    Returns its outputs in order.

    Raises ModelError if the node is not legal, or not implemented there.
    """
    with model_errors(f"{node.op} node {node.label!r}"):
        return _evaluated(node, inputs)


def _evaluated(node: Node, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    proto = onnx.NodeProto(op_type=node.proto.op_type, domain=node.domain, attribute=node.proto.attribute)
    names = {name: f"in{place}" for place, name in enumerate(inputs)}
    proto.input.extend(names.get(name, name) for name in node.inputs)
    outputs = [f"out{place}" if name else "" for place, name in enumerate(node.outputs)]
    proto.output.extend(outputs)
    opset = max(node.opset, _IMPLEMENTED_FROM.get(node.op, 1))
    evaluator = _evaluator(proto.SerializeToString(), opset, tuple(_elem_type(array) for array in inputs.values()))
    feeds = {names[name]: array for name, array in inputs.items()}
    return [np.asarray(result) for result in evaluator.run([name for name in outputs if name], feeds)]


@lru_cache(maxsize=256)  # a network has many nodes that differ in their names alone
def _evaluator(node: bytes, opset: int, types: tuple[int, ...]) -> ReferenceEvaluator:
    """What runs a serialized node, whose inputs and outputs are called in0, in1, ... and out0, out1, ..."""
    proto = onnx.NodeProto.FromString(node)
    feeds = [onnx.helper.make_tensor_value_info(f"in{place}", kind, None) for place, kind in enumerate(types)]
    results = [onnx.helper.make_tensor_value_info(name, 0, None) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "one node", feeds, results)
    from onnx.reference import ReferenceEvaluator  # reads the schemas of all operators when it is imported

    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))


def _elem_type(array: NDArray[Any]) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype)


def _cost(node: Node, shapes: Mapping[str, tuple[int, ...]], written: int) -> int:
    """How many elements could be computed in the time that a node takes; at least those that it writes."""
    read = [math.prod(shapes.get(name, ())) for name in node.inputs if name]
    if node.op in _LOOPS:
        return (sum(read) + written) * _LOOP
    if node.op == "Range":
        return written * _INDEX
    if node.op in _SCATTERS:
        return sum(read[1:]) * _INDEX + written
    if node.op in _PRODUCTS:
        return max(written, math.isqrt(math.prod(read[:2]) * written) // _MULTIPLICATIONS)
    if node.op == "Einsum":
        terms = str(node.attribute("equation")).replace(" ", "").partition("->")[0].split(",")
        sizes: dict[str, int] = {}
        for term, name in zip(terms, node.inputs, strict=False):
            sizes |= dict(zip(term, shapes.get(name, ()), strict=False))
        return max(written, (math.prod(read) if "." in "".join(terms) else math.prod(sizes.values())) // _TERMS)
    return written


class Evaluator:
    """Finds the computed constants of one graph, and keeps account of their size."""

    def __init__(self, stored: Mapping[str, Constant]) -> None:
        self.left = MOST_ELEMENTS + _TIMES_STORED * sum(math.prod(constant.shape) for constant in stored.values())

    def computed(
        self,
        node: Node,
        shapes: Mapping[str, tuple[int, ...]],
        types: Mapping[str, int],
        constants: Mapping[str, Constant],
    ) -> dict[str, Constant]:
        """The outputs of a node as constants, if its inputs are constants or it reads only shapes.

        They are left out if they are too large to be computed.
        """
        op = node.proto.op_type
        if node.domain or op in _RANDOM | _UNKNOWN or op == "Constant" or node.captured():
            return {}
        inputs = [name for name in node.inputs if name]
        # A ConstantOfShape has one value for every shape, and Expand repeats its first input.
        deciding = {"ConstantOfShape": [], "Expand": inputs[:1]}.get(op, inputs)
        by_shape = op in {"Shape", "Size"} or any(name in constants and constants[name].by_shape for name in deciding)
        if op in {"Shape", "Size"} and inputs and inputs[0] in shapes:
            shape = shapes[inputs[0]]
            arrays: Callable[[], dict[str, NDArray[Any]]] = lambda: {inputs[0]: np.broadcast_to(np.float32(0), shape)}  # noqa: E731
        elif inputs and all(name in constants for name in inputs):
            held = [constants[name] for name in inputs]
            arrays = lambda: {constant.name: constant.values() for constant in held}  # noqa: E731
        else:
            return {}
        outputs = [name for name in node.outputs if name]
        known = {name: shapes[name] for name in outputs if name in shapes and name in types}
        size = _cost(node, shapes, sum(math.prod(shape) for shape in known.values()))
        if size > self.left:
            return {}
        self.left -= size
        run = cache(lambda: evaluate(node, arrays()))
        reason = f"is computed by {node.op} node {node.label!r}"
        computed: dict[str, Constant] = {}
        for position, name in enumerate(outputs):
            if name in known:
                read = lambda position=position: run()[position]  # noqa: E731
                dtype = tensor_dtype(types[name])
                computed[name] = Constant(name, shapes[name], dtype, "computed", node.index, reason, read, by_shape)
        return computed
