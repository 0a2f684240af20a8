"""Small networks with many kinds of operators, which the fuzzer damages; made by code, the same in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx
from onnx import numpy_helper, parser

__all__ = ["networks"]

_HEAD = '<ir_version: 8, opset_import: ["": 18, "local": 1]> g'

# The nodes in ONNX's text format, and the shapes of the weights; weights with integer values are given as lists.
_TEXTS: Mapping[str, tuple[str, Mapping[str, Sequence[int]]]] = {
    "chain": (
        """(float[N,3,8,8] x) => (float[N,2] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
            c = Conv<pads=[1,1,1,1]>(p, w2)  l = LeakyRelu<alpha=0.1>(c)  m = GlobalAveragePool(l)
            f = Flatten(m)  y = Gemm<transB=1>(f, w3, b3) }""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4, 3, 3), "w3": (2, 5), "b3": (2,)},
    ),
    "residual": (
        """(float[N,3,8,8] x) => (float[N,4,1,1] y) {
            a = Conv(x, w1)  n = BatchNormalization(a, s, b, mu, v)  r = Relu(n)
            c = Conv<pads=[1,1,1,1]>(r, w2)  d = Conv<group=4, pads=[1,1,1,1]>(r, w3)
            t = Add(c, d)  u = Add(t, r)  q = PRelu(u, k)  y = ReduceMean<keepdims=1>(q, axes) }""",
        {"w1": (4, 3, 3, 3), "s": (4,), "b": (4,), "mu": (4,), "v": (4,), "w2": (4, 4, 3, 3), "w3": (4, 1, 3, 3)}
        | {"k": (4, 1, 1), "axes": [2, 3]},
    ),
    "branches": (
        """(float[N,3,8,8] x) => (float[N,6,8,8] y, float[N,2,8,8] z) {
            a = Conv<pads=[1,1,1,1]>(x, w1)  r = Clip(a, low, high)
            first, second = Split<axis=1>(r, parts)  c = Concat<axis=1>(second, first, first)
            y = ConvTranspose<pads=[1,1,1,1]>(c, w2)  z = Mul(first, two)  }""",
        {"w1": (4, 3, 3, 3), "low": (), "high": (), "parts": [2, 2], "w2": (6, 6, 3, 3), "two": ()},
    ),
    "shapes": (
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv(x, w1)  r = Relu(a)  s = Shape(r)  i = Constant<value_ints=[0]>()  g = Gather(s, i)
            m = Constant<value_ints=[-1]>()  t = Concat<axis=0>(g, m)  f = Reshape(r, t)
            o = ConstantOfShape(side)  e = Expand(b1, wide)  h = ReduceSum<keepdims=0>(e, axes)
            j = MatMul(f, w2)  k = Add(j, h)  q = Cast<to=1>(o)  y = Mul(k, q) }""",
        {"w1": (4, 3, 3, 3), "w2": (144, 5), "b1": (5,), "side": [1, 1], "wide": [3, 5], "axes": [0]},
    ),
    "movement": (
        """(float[N,3,8,8] x) => (float[N,8,4,4] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1)  r = Relu(a)  t = Transpose<perm=[0,2,3,1]>(r)
            u = Transpose<perm=[0,3,1,2]>(t)  p = Pad<mode="reflect">(u, pads)  s = Slice(p, from, to, axes)
            d = DepthToSpace<blocksize=2>(s)  z = Resize<mode="nearest">(d, , factors)
            q = SpaceToDepth<blocksize=2>(z)  y = Conv(q, w2) }""",
        {"w1": (8, 3, 3, 3), "w2": (8, 8, 1, 1), "pads": [0, 0, 1, 1, 0, 0, 1, 1], "from": [1, 1], "to": [9, 9]}
        | {"axes": [2, 3], "factors": (4,)},
    ),
    "quantized": (
        """(float[N,3,8,8] x) => (float[N,4,6,6] y) {
            q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)
            w = DequantizeLinear<axis=0>(wq, sw)  a = Conv(d, w)  r = Relu(a)  y = Dropout(r) }""",
        {"sx": (), "zx": [], "sw": (4,), "wq": [4, 3, 3, 3]},
    ),
    "functions": (
        """(float[N,3,8,8] x) => (float[N,4,6,6] y) {
            a = Conv(x, w1)  r = local.act<slope=0.5>(a)  n = InstanceNormalization(r, s, b)  e = Softmax<axis=1>(n)
            y = local.twice(e) }
        <domain: "local", opset_import: ["": 18]> act<slope>(i) => (o) { o = LeakyRelu<alpha: float = @slope>(i) }
        <domain: "local", opset_import: ["": 18, "local": 1]> twice(i) => (o)
            { h = local.act<slope=1.0>(i)  o = Abs(h) }""",
        {"w1": (4, 3, 3, 3), "s": (4,), "b": (4,)},
    ),
    "control": (
        """(float[N,3,8,8] x, bool flag) => (float[N,4,6,6] y) {
            a = Conv(x, w1)  r = If(flag) <then_branch = one () => (float[N,4,6,6] t) { t = Relu(a) },
            else_branch = two () => (float[N,4,6,6] u) { u = Conv<kernel_shape=[1,1]>(a, w2) }>
            e = Einsum<equation="nchw,dc->ndhw">(r, w3)  y = LRN<size=3>(e) }""",
        {"w1": (4, 3, 3, 3), "w2": (4, 4, 1, 1), "w3": (4, 4)},
    ),
}


@cache
def networks() -> Mapping[str, onnx.ModelProto]:
    """Return the networks by name. They are shared: copy one before you change it."""
    made = {name: _model(text, weights) for name, (text, weights) in _TEXTS.items()}
    half = onnx.ModelProto()
    half.CopyFrom(made["chain"])
    for info in (*half.graph.input, *half.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in half.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    return made | {"half": half, "shared": _shared()}


def _model(text: str, weights: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    model = parser.parse_model(f"{_HEAD} {text}")
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        tensor = numpy_helper.from_array(_values(random, name, shape), name)
        model.graph.initializer.append(tensor)
    return model


def _values(random: np.random.Generator, name: str, shape: Sequence[int]) -> np.ndarray:
    if name == "wq":
        return random.integers(-99, 99, shape).astype(np.int8)
    if name == "zx":
        return np.array(128, np.uint8)
    if isinstance(shape, list):
        return np.array(shape, np.int64)
    if name == "factors":
        return np.array([1, 1, 0.5, 0.5], np.float32)
    values: np.ndarray = random.uniform(0.1, 1.0, shape).astype(np.float32)
    return np.asarray(values * (4 if name == "high" else 1), np.float32)


def _shared() -> onnx.ModelProto:
    """Return a network in which two convolutions share their weights, so that a rewrite clones them."""
    nodes = "a = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(a)  c = Conv<pads=[1,1,1,1]>(r, w)  s = Relu(c)  y = Conv(s, v)"
    return _model(f"(float[N,3,8,8] x) => (float[N,2,6,6] y) {{ {nodes} }}", {"w": (3, 3, 3, 3), "v": (2, 3, 3, 3)})
