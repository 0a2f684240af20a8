"""Opens the batch of a graph, and checks that several samples at once give what each gives by itself."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Node
from onnxnorm.model.open_batch import with_open_batch
from onnxnorm.model.shapes import assumed_shapes, read_graph
from onnxnorm.runtime import Runtime
from tests.helpers.graphs import Array

__all__ = ["check_open", "fixed_at_one", "opened"]

SAMPLES = 3
_NORMALIZATIONS = {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}


def fixed_at_one(proto: onnx.ModelProto, side: int = 8) -> onnx.ModelProto:
    """A copy whose inputs hold one sample; sides that are open become `side`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    constants = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims if value.name not in constants else ()):
            dim.dim_value = 1 if axis == 0 else dim.dim_value or side
    return copy


def opened(proto: onnx.ModelProto) -> tuple[Model | None, Graph]:
    """The model with its batch open, if that is allowed, and the graph as it was."""
    model = Model.open(proto)
    graph = read_graph(model, assumed_shapes(model))
    return with_open_batch(model, graph), graph


def check_open(proto: onnx.ModelProto, seed: int = 0) -> bool:
    """Whether the batch can be opened; if so, every value of every sample is what it is alone, rounding aside."""
    model, graph = opened(proto)
    if model is None:
        return False
    assert model.digest() == Model.open(proto).digest()
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {
        spec.name: _drawn(random, (SAMPLES, *graph.shapes[spec.name][1:]), spec.dtype) for spec in graph.inputs
    }
    together = _values(model.to_proto(), graph, feeds)
    gain = max(_gain(node) for node in graph.nodes)
    for index in range(SAMPLES):
        alone = _values(proto, graph, {name: array[index : index + 1] for name, array in feeds.items()})
        # Kernels differ by the batch, and what one rounds can cancel elsewhere: the room is that of the largest number.
        largest = max(np.abs(np.nan_to_num(value, posinf=0, neginf=0)).max(initial=0) for value in alone.values())
        for name, value in alone.items():
            assert together[name].shape == (SAMPLES * len(value), *value.shape[1:]), name
            mine = together[name][index : index + 1]
            assert np.array_equal(np.isnan(mine), np.isnan(value)), name
            room = float(64 * np.finfo(np.float32).eps * largest * gain)
            np.testing.assert_allclose(mine, value, rtol=1e-5, atol=room, err_msg=name)
    return True


def _gain(node: Node) -> float:
    """By how much a normalization enlarges what rounding leaves of a value that does not vary: its variance is 0."""
    return float(node.attribute("epsilon", 1e-5)) ** -0.5 if node.op in _NORMALIZATIONS else 1.0


def _drawn(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    drawn = random.integers(0, 2, shape) if dtype.kind in "biu" else random.normal(size=shape)
    return drawn.astype(dtype)


def _values(proto: onnx.ModelProto, graph: Graph, feeds: dict[str, Array]) -> dict[str, Array]:
    """What nodes compute of the samples; sizes are left out, for they are no rows."""
    seen = onnx.ModelProto()
    seen.CopyFrom(proto)
    del seen.graph.output[:]
    names = [name for node in graph.nodes for name in node.outputs if name and name not in graph.constants]
    seen.graph.output.extend(helper.make_tensor_value_info(name, graph.types[name], None) for name in names)
    return Runtime("cpu", 1).session(seen, optimize=False).run(feeds)
