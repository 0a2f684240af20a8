"""One draw: a graph that grows while the shapes of its values are known from running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Draw", "Drawn", "IllegalDrawError", "Step", "draw_graph", "run"]

Array = NDArray[Any]
Step = Callable[["Draw", str], str]

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
SIZES = {"n": 1, "h": 6, "w": 5}
"""The calibrated sizes of open dimensions, by their symbolic names."""
SAFE = frozenset({"Abs", "Add", "Concat", "Identity", "Neg", "Relu", "Reshape", "Transpose"})
"""Steps behind values without elements."""


class IllegalDrawError(Exception):
    """What was drawn is no legal graph, or the runtime does not have it."""


@dataclass
class Draw:
    """A graph while it grows.

    Attributes:
        random: where all choices come from.
        opset: the opset.
        dims: the shape of the input; a name leaves a size open.
    """

    random: np.random.Generator
    opset: int
    dims: tuple[int | str, ...]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    inexact: bool = False

    def one(self, *choices: Any) -> Any:
        """One of several things."""
        return choices[int(self.random.integers(len(choices)))]

    def integer(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(self.random.integers(low, high + 1))

    def chance(self, share: float = 0.5) -> bool:
        """Whether something with this probability happens."""
        return bool(self.random.random() < share)

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def ints(self, *values: int) -> str:
        """A constant vector of int64."""
        return self.const(values, np.int64)

    def weights(self, *shape: int) -> str:
        """A constant of normally distributed numbers."""
        return self.const(self.random.standard_normal(shape))

    def positive(self, *shape: int) -> str:
        """A constant of numbers from 0.5 to 2."""
        return self.const(self.random.uniform(0.5, 2, shape))

    def op(self, op: str, *inputs: str, outs: int = 1, **attributes: Any) -> str:
        """A node; the name of its first output."""
        return self.many(op, *inputs, outs=outs, **attributes)[0]

    def many(self, op: str, *inputs: str, outs: int, **attributes: Any) -> list[str]:
        """A node; the names of its outputs."""
        names = [f"v{len(self.nodes)}_{k}" for k in range(outs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), names, **given))
        return names

    def value(self, name: str) -> Array:
        """A value for the calibrated sizes, from a run. Raises IllegalDrawError if the graph cannot be run."""
        if name in self.constants:
            return self.constants[name]
        if name not in self.known:
            self.known[name] = run(self.model(name), self.feed({}))[name]
        return self.known[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value for the calibrated sizes."""
        return self.value(name).shape

    def conv(self, filters: int | None = None) -> str:
        """A new layer that reads the input."""
        filters = filters or self.one(2, 3, 4, 4, 6)
        channels = self.dims[1] if len(self.dims) > 2 else self.dims[-1]
        if len(self.dims) == 2:
            return self.op("MatMul", "x", self.weights(int(channels), filters))
        ones = [1] * (len(self.dims) - 2)
        return self.op("Conv", "x", self.weights(filters, int(channels), *ones), self.weights(filters))

    def feed(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
        """Random inputs for these sizes of open dimensions; others have the calibrated ones."""
        shape = [(SIZES | dict(sizes))[dim] if isinstance(dim, str) else dim for dim in self.dims]
        return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The model as it is, with these outputs."""
        held = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        source = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.dims)
        graph = helper.make_graph(self.nodes, "g", [source], [], held)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        proto.ir_version = max(8, helper.find_min_ir_version_for(proto.opset_import))
        known = onnx.shape_inference.infer_shapes(proto).graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*known.value_info, *known.output)}
        for value in graph.output:
            value.type.tensor_type.elem_type = types.get(value.name) or TensorProto.FLOAT
        proto.graph.CopyFrom(graph)
        return proto


@dataclass(frozen=True)
class Drawn:
    """A finished graph: the model, feeds at several sizes (the calibrated one first), and how exactly it computes."""

    proto: onnx.ModelProto
    feeds: Sequence[Mapping[str, Array]]
    operators: tuple[str, ...]
    inexact: bool


def run(proto: onnx.ModelProto, feed: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs of a model. Raises IllegalDrawError if the runtime does not run it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        results = session.run(None, dict(feed))
    except Exception as error:
        raise IllegalDrawError(str(error)) from error
    return dict(zip([value.name for value in proto.graph.output], results, strict=True))


def draw_graph(seed: int, catalog: Mapping[str, Step], only: str | None = None) -> Drawn:
    """The graph of a seed; `only` names the operator in its middle. Raises IllegalDrawError if it is none."""
    random = np.random.default_rng(seed)
    names = sorted(catalog)
    rank = int(random.choice([2, 3, 4, 4, 4, 4, 5]))
    sides: tuple[int | str, ...] = ("h", "w", 4)
    spatial = [side if random.random() < 0.8 else 4 for side in sides[: rank - 2]]
    draw = Draw(random, int(random.choice(OPSETS)), ("n" if random.random() < 0.9 else 2, 3, *spatial))
    value = draw.conv()
    if draw.chance(0.3):
        value = draw.op("Relu", value)
    steps = [names[k] for k in random.integers(len(names), size=draw.one(1, 2, 2, 3))]
    if only:
        steps[len(steps) // 2] = only
    for step in steps:
        if not draw.value(value).size and step not in SAFE:
            raise IllegalDrawError(f"the runtime may crash in {step} without elements")
        try:
            value = catalog[step](draw, value)
        except (IndexError, ValueError) as error:
            raise IllegalDrawError(f"{step} does not fit {draw.shape(value)}") from error
        if draw.value(value).dtype != np.float32 or draw.value(value).size > 20_000:
            raise IllegalDrawError("no small value of float32")
    proto = draw.model(*_ended(draw, value))
    feeds = [draw.feed({})]
    for seed_of, sizes in enumerate(_other_sizes(draw), 1):
        feeds.append(draw.feed(sizes, seed_of))
    return Drawn(proto, feeds, tuple(node.op_type for node in draw.nodes), draw.inexact)


def _ended(draw: Draw, value: str) -> list[str]:
    """A layer behind a value, or the value itself, as the output."""
    shape = draw.shape(value)
    kind = draw.one("conv", "conv", "matmul", "none")
    if 0 in shape or not shape or kind == "none":
        return [draw.op("Identity", value)]
    if kind == "conv" and 3 <= len(shape) <= 5:
        ones = [1] * (len(shape) - 2)
        return [draw.op("Conv", value, draw.weights(2, shape[1], *ones), draw.weights(2))]
    return [draw.op("MatMul", value, draw.weights(shape[-1], 2))]


def _other_sizes(draw: Draw) -> list[dict[str, int]]:
    names = [dim for dim in draw.dims if isinstance(dim, str)]
    sizes: list[dict[str, int]] = []
    if "n" in names:
        sizes += [{"n": 2}, {"n": 3}, {"n": 5}, {"n": 7}]
    for h, w in ((12, 10), (7, 5), (6, 6), (5, 6), (9, 8), (8, 4)):
        sizes.append({name: size for name, size in (("h", h), ("w", w), ("n", draw.one(1, 2))) if name in names})
    return [size for size in sizes if any(SIZES[name] != value for name, value in size.items())]
