"""Tiny models from text.

`model` takes nodes in ONNX's textual syntax, inputs by shape and constants by value. `between` puts a piece of graph
between two mixing layers, so that what it reads carries scales, and what it writes may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

Array = NDArray[Any]
Shape = tuple[int | str | None, ...]

__all__ = ["Array", "Shape", "between", "feeds", "floats", "inferred", "model", "rand"]


def rand(*shape: int, seed: int = 0, dtype: DTypeLike = np.float32) -> Array:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def floats(values: Any) -> Array:
    """Numbers as float32."""
    return np.asarray(values, np.float32)


def model(
    body: str,
    inputs: Mapping[str, Shape] | None = None,
    constants: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = ("z",),
    *,
    opset: int = 21,
    dtype: int = TensorProto.FLOAT,
    input_types: Mapping[str, int] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model from nodes such as `y = Conv<group=2>(x, w, b)`, one after the other.

    A `str` or None in an input's shape leaves that size open. `constants` become initializers; lists of integers
    are int64.
    """
    graph = onnx.parser.parse_graph(f"g () => () {{ {body} }}".replace("<>", ""))
    for name, shape in (inputs or {"x": (2, 3, 8, 8)}).items():
        elem_type = (input_types or {}).get(name, dtype)
        graph.input.append(helper.make_tensor_value_info(name, elem_type, shape))
    for name, value in (constants or {}).items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    proto = helper.make_model(graph, opset_imports=opsets)
    proto.ir_version = max(8, helper.find_min_ir_version_for(opsets, ignore_unknown=True))
    known = inferred(proto)
    for value in proto.graph.output:
        kind = known.get(value.name, onnx.TypeProto())
        value.type.tensor_type.elem_type = kind.tensor_type.elem_type or dtype
    return proto


def inferred(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The types of all values, as far as shape inference tells."""
    graph = shape_inference.infer_shapes(proto, data_prop=True).graph
    return {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}


def between(
    body: str,
    shape: tuple[int, ...] = (2, 4, 6, 6),
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 21,
    inputs: Mapping[str, Shape] | None = None,
    input_types: Mapping[str, int] | None = None,
    dtype: DTypeLike = np.float32,
    domains: Sequence[str] = (),
    branches: int = 1,
    outputs: Sequence[str] = (),
    tail: str | None = None,
    batch: str | None = None,
) -> onnx.ModelProto:
    """`body` reads `a` of this shape and writes `b`; both stand next to a layer with weights, `b` before output `z`.

    Rank 2 and less is mixed by MatMul, more by 1x1 convolutions. With `branches` there are `a`, `a2`, `a3`, ..., each
    from a layer of its own. `outputs` are further graph outputs, `tail="none"` makes `b` itself an output. `batch`
    leaves the number of samples open, under this name.
    """
    held = dict(constants or {})
    front = []
    for index, branch in enumerate(["a", "a2", "a3", "a4"][:branches]):
        if len(shape) > 2:
            held[f"w_{branch}"] = rand(shape[1], 3, *[1] * (len(shape) - 2), seed=20 + index, dtype=dtype)
            held[f"b_{branch}"] = rand(shape[1], seed=30 + index, dtype=dtype)
            front.append(f"{branch} = Conv(x, w_{branch}, b_{branch})")
        else:
            held[f"w_{branch}"] = rand(3, shape[-1], seed=20 + index, dtype=dtype)
            front.append(f"{branch} = MatMul(x, w_{branch})")
    source: Shape = (shape[0], 3, *shape[2:]) if len(shape) > 2 else (*shape[:-1], 3)
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def build(end: str, output: str) -> onnx.ModelProto:
        return model(
            "\n".join([*front, body, end]),
            {"x": (batch or source[0], *source[1:]), **(inputs or {})},
            held,
            (output, *outputs),
            opset=opset,
            dtype=elem_type,
            input_types=input_types,
            domains=domains,
        )

    if tail == "none":
        return build("", "b")
    kind = inferred(build("", "b"))["b"]
    sizes = [dim.dim_value for dim in kind.tensor_type.shape.dim]
    if len(sizes) > 2:
        held["w_z"] = rand(3, sizes[1], *[1] * (len(sizes) - 2), seed=13, dtype=dtype)
        held["b_z"] = rand(3, seed=14, dtype=dtype)
        return build("z = Conv(b, w_z, b_z)", "z")
    held["w_z"] = rand(sizes[-1] if sizes else 1, 3, seed=13, dtype=dtype)
    return build("z = MatMul(b, w_z)", "z")


def feeds(proto: onnx.ModelProto, seed: int = 5, **sizes: int) -> dict[str, Array]:
    """Random inputs for a model; `sizes` fill the open ones by their names."""
    initialized = {tensor.name for tensor in proto.graph.initializer}
    found: dict[str, Array] = {}
    for index, value in enumerate(proto.graph.input):
        if value.name in initialized:
            continue
        tensor = value.type.tensor_type
        shape = [dim.dim_value or sizes.get(dim.dim_param, 2) for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        array = rand(*shape, seed=seed + index)
        found[value.name] = (array * 3).astype(dtype) if dtype.kind in "iu" else array.astype(dtype)
    return found
