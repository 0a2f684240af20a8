"""The law of the batch axis: each operator with a rule, twins that mix samples, and graphs that exporters write."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

import tests.corpus
from onnxnorm.errors import ModelError
from onnxnorm.model import open_batch
from onnxnorm.model.row_rules import RULES
from tests.corpus.case import CASES
from tests.helpers.graphs import floats, model, rand
from tests.helpers.open_batches import check_open, fixed_at_one, opened
from tests.helpers.random_graphs import networks

for corpus in pkgutil.iter_modules(tests.corpus.__path__):
    importlib.import_module(f"tests.corpus.{corpus.name}")

MAP, ROW = (1, 4, 6, 6), (1, 8)
UNARY = (
    "Abs Acos Asin Atan Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan "
    "Tanh ThresholdedRelu GlobalAveragePool GlobalLpPool GlobalMaxPool Softmax LogSoftmax Hardmax "
    "LpNormalization Dropout Flatten"
)
Constants = dict[str, Any]

# What each computes of the map `x`, or of the rows `v` if it reads these.
OPENS: dict[str, tuple[str, Constants]] = {
    **{name: (f"z = {name}(x)", {}) for name in UNARY.split()},
    **{name: (f"z = {name}(x, c)", {"c": rand(4, 1, 1)}) for name in ("Add", "Sub", "Mul", "Pow", "PRelu", "Div")},
    **{name: (f"y = {name}(x, c) z = Not(y)", {"c": floats(0.5)}) for name in ("Less", "Greater", "Equal")},
    "GreaterOrEqual": ("y = GreaterOrEqual(x, c) w = LessOrEqual(x, c) z = Xor(y, w)", {"c": rand(1, 4, 1, 1)}),
    "And": ("y = IsNaN(x) w = IsInf(x) u = And(y, w) t = Or(u, y) z = Cast<to=1>(t)", {}),
    "BitShift": ('y = Cast<to=12>(x) u = BitShift<direction="LEFT">(y, c) z = Cast<to=1>(u)', {"c": np.uint32(2)}),
    "Where": ("y = Less(x, c) z = Where(y, x, c)", {"c": rand(1, 4, 6, 6)}),
    "Clip": ("z = Clip(x, c, d)", {"c": floats(-1), "d": floats(1)}),
    "Mod": ("z = Mod<fmod=1>(x, c)", {"c": floats(0.3)}),
    **{name: (f"y = Neg(x) z = {name}(x, y)", {}) for name in ("Max", "Min", "Mean", "Sum")},
    "Conv": ("z = Conv(x, w, b)", {"w": rand(5, 4, 3, 3), "b": rand(5)}),
    "ConvTranspose": ("z = ConvTranspose(x, w)", {"w": rand(4, 2, 3, 3)}),
    "AveragePool": ("z = AveragePool<kernel_shape=[2,2]>(x)", {}),
    "LpPool": ("z = LpPool<kernel_shape=[2,2]>(x)", {}),
    "MaxPool": ("z = MaxPool<kernel_shape=[2,2]>(x)", {}),
    "LRN": ("z = LRN<size=3>(x)", {}),
    "InstanceNormalization": ("z = InstanceNormalization(x, c, c)", {"c": rand(4)}),
    "GroupNormalization": ("z = GroupNormalization<num_groups=2>(x, c, c)", {"c": rand(4)}),
    "LayerNormalization": ("z = LayerNormalization(x, c)", {"c": rand(6)}),
    "BatchNormalization": ("z = BatchNormalization(x, c, c, c, d)", {"c": rand(4), "d": floats([1, 2, 3, 4])}),
    "DepthToSpace": ("z = DepthToSpace<blocksize=2>(x)", {}),
    "SpaceToDepth": ("z = SpaceToDepth<blocksize=2>(x)", {}),
    "Resize": ("z = Resize(x, , s)", {"s": floats([1, 1, 2, 2])}),
    "Resize to sizes": (
        "s = Shape(x) n = Slice(s, o, i) t = Concat<axis=0>(n, h) z = Resize(x, , , t)",
        {"o": [0], "i": [1], "h": [4, 9, 9]},
    ),
    "Dropout that is told not to train": ("z = Dropout(x, r, t)", {"r": floats(0.5), "t": np.bool_(False)}),
    "PRelu with slopes of its own": ("y = Neg(x) z = PRelu(x, y)", {}),
    "TopK": ("z, y = TopK(x, k)", {"k": [2]}),
    "ArgMax": ("y = ArgMax<axis=1>(x) z = Cast<to=1>(y)", {}),
    "ArgMin": ("y = ArgMin<axis=2, keepdims=0>(x) z = Cast<to=1>(y)", {}),
    "Split": ("y, z = Split<axis=1>(x, k)", {"k": [1, 3]}),
    "Gather": ("z = Gather<axis=1>(x, k)", {"k": [[3, 0], [1, 1]]}),
    "CumSum": ("z = CumSum(x, k)", {"k": np.int64(2)}),
    **{
        f"Reduce{name}": (f"z = Reduce{name}<keepdims=0>(x, k)", {"k": [1, -1]})
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    "Unsqueeze": ("y = Unsqueeze(x, k) w = Relu(y) z = Squeeze(w, k)", {"k": [1]}),
    "Squeeze": ("y = GlobalAveragePool(x) z = Squeeze(y, k)", {"k": [2, -1]}),
    "Concat": ("y = Neg(x) z = Concat<axis=2>(x, y)", {}),
    "Slice": ("z = Slice(x, o, i, k)", {"o": [1, -2], "i": [9, 9], "k": [1, 3]}),
    "Slice backwards": ("z = Slice(x, o, i, k, s)", {"o": [-1], "i": [-99], "k": [1], "s": [-2]}),
    "Transpose": ("y = Transpose<perm=[0,2,3,1]>(x) z = MatMul(y, w)", {"w": rand(4, 5)}),
    "Pad": ("z = Pad(x, p)", {"p": [0, 1, 0, 2, 0, 0, 1, 1]}),
    "Pad with a number": ("z = Pad(x, p, c)", {"p": [0, 1, 0, 2, 0, 0, 1, 1], "c": floats(3)}),
    "Tile": ("z = Tile(x, k)", {"k": [1, 2, 1, 3]}),
    "Expand": ("y = GlobalMaxPool(x) z = Expand(y, k)", {"k": [1, 4, 5, 5]}),
    "Expand as": ("y = GlobalMaxPool(x) s = Shape(x) z = Expand(y, s)", {}),
    "Gemm without a bias": ("z = Gemm(v, w)", {"w": rand(8, 3)}),
    "Gemm": ("z = Gemm<transB=1>(v, w, c)", {"w": rand(3, 8), "c": rand(1, 3)}),
    "MatMul": ("z = MatMul(v, w)", {"w": rand(8, 3)}),
    "MatMul of a stack by a matrix": ("y = Reshape(x, k) z = MatMul(y, w)", {"k": [1, 4, 36], "w": rand(36, 3)}),
    "MatMul of two": ("y = Transpose<perm=[0,1,3,2]>(x) z = MatMul(x, y)", {}),
    "MatMul from the left": ("z = MatMul(w, x)", {"w": rand(5, 6)}),
    "Reshape of one": ("y = Reshape(x, k) z = MatMul(y, w)", {"k": [1, -1], "w": rand(144, 3)}),
    "Reshape of all": ("y = Reshape(x, k) z = Reshape(y, j)", {"k": [1, 2, 2, 36], "j": [-1, 144]}),
    "Reshape": ("z = Reshape(x, k)", {"k": [0, 2, -1]}),
    "Reshape, zeros are zeros": ("z = Reshape<allowzero=1>(x, k)", {"k": [1, 8, 18]}),
    "Reshape to a count": (
        "s = Shape(x) n = Gather(s, o) m = Unsqueeze(n, i) t = Concat<axis=0>(m, r) z = Reshape(x, t)",
        {"o": np.int64(0), "i": [0], "r": [-1]},
    ),
    "Reshape to sides": (
        "s = Shape(x) n = Gather(s, o) m = Unsqueeze(n, i) t = Concat<axis=0>(r, m) z = Reshape(x, t)",
        {"o": np.int64(1), "i": [0], "r": [-1, 36]},
    ),
    "Slice of nothing": ("s = Shape(x) n = Slice(s, k, k) z = Reshape(x, n)", {"k": np.zeros(0, np.int64)}),
    "Shape from the second axis": (
        "s = Shape<start=1>(x) t = Concat<axis=0>(r, s) z = Reshape(x, t)",
        {"r": [-1]},
    ),
}

MIXES: dict[str, tuple[str, Constants]] = {
    "softmax over samples": ("z = Softmax<axis=0>(x)", {}),
    "softmax over samples, counted from the end": ("z = Softmax<axis=-4>(x)", {}),
    "mean over samples": ("z = ReduceMean(x, k)", {"k": [0]}),
    "mean over all": ("z = ReduceMean(x)", {}),
    "sum along samples": ("z = CumSum(x, k)", {"k": np.int64(0)}),
    "largest sample": ("z = ReduceMax(x, k)", {"k": [-4]}),
    "normalized over all": ("z = LayerNormalization<axis=0>(x, c)", {"c": rand(4, 6, 6)}),
    "normalized by a norm over samples": ("z = LpNormalization<axis=0>(x)", {}),
    "best sample": ("y = ArgMax(x) z = Cast<to=1>(y)", {}),
    "another sample in each place": ("y = Concat<axis=0>(x, x) z = Relu(y)", {}),
    "a row beside the samples": ("z = Concat<axis=1>(x, c)", {"c": rand(1, 2, 6, 6)}),
    "first sample": ("z = Gather<axis=0>(x, k)", {"k": [0]}),
    "first sample, by default": ("z = Gather(x, k)", {"k": [0]}),
    "first of all": ("z = Slice(x, o, i)", {"o": [0], "i": [1]}),
    "padded samples": ("z = Pad(x, p)", {"p": [1, 0, 0, 0, 0, 0, 0, 0]}),
    "samples moved on by padding": ("z = Pad(x, p)", {"p": [1, 0, 0, 0, -1, 0, 0, 0]}),
    "samples moved on along named axes": ("z = Pad(x, p, , k)", {"p": [0, 1, 0, -1], "k": [2, 0]}),
    "padded along named axes": ("z = Pad(x, p, , k)", {"p": [0, 1], "k": [2]}),
    "turned": ("z = Transpose<perm=[1,0,2,3]>(x)", {}),
    "turned where axes are as long": ("y = GlobalMaxPool(x) z = Transpose<perm=[2,1,0,3]>(y)", {}),
    "reversed": ("y = Transpose(x) z = Transpose(y)", {}),
    "no batch left": ("y = Squeeze(x) z = Relu(y)", {}),
    "batch put in front": ("z = Unsqueeze(x, k)", {"k": [0]}),
    "channels into the batch": ("z = Reshape(x, k)", {"k": [-1, 6, 6]}),
    "flat": ("z = Flatten<axis=0>(x)", {}),
    "channels are samples": ("z = Flatten<axis=2>(x)", {}),
    "samples repeated": ("z = Tile(x, k)", {"k": [2, 1, 1, 1]}),
    "sizes that are fixed": ("z = Resize(x, , , t)", {"t": [1, 4, 9, 9]}),
    "scales of named axes": ("z = Resize<axes=[2, 3]>(x, , s)", {"s": floats([2, 2])}),
    "cropped": (
        'z = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)',
        {"r": floats([0, 0, 0, 0, 1, 1, 1, 1]), "s": floats([1, 1, 2, 2])},
    ),
    "resized along all of three axes": (
        'y = Reshape(x, k) z = Resize<mode="linear">(y, , s)',
        {"k": [1, 4, 36], "s": floats([1, 1, 2])},
    ),
    "more samples by scale": ("z = Resize(x, , s)", {"s": floats([2, 1, 1, 1])}),
    "positions over the batch": ("y, i = MaxPool<kernel_shape=[2,2]>(x) z = Cast<to=1>(i)", {}),
    "training": ("z, m, n = BatchNormalization<training_mode=1>(x, c, c, c, d)", {"c": rand(4), "d": floats([1] * 4)}),
    "dropout that trains": ("z = Dropout(x, r, t)", {"r": floats(0.5), "t": np.bool_(True)}),
    "weights of the samples": ("y = Transpose<perm=[0,2,1,3]>(x) z = Conv(x, y)", {}),
    "one matrix for another": ("y = Transpose<perm=[0,1]>(v) w = MatMul(c, y) z = MatMul(v, w)", {"c": rand(8, 1)}),
    "matrix of samples": ("z = Gemm<transA=1>(v, w)", {"w": rand(1, 3)}),
    "matrix of samples, turned": ("y = ReduceMean(v, k) z = Gemm<transA=1>(y, w)", {"k": [1], "w": rand(1, 3)}),
    "samples as the second matrix": ("z = Gemm(c, v)", {"c": rand(1, 1)}),
    "samples as a matrix of a stack": ("z = MatMul(v, w)", {"w": rand(1, 8, 3)}),
    "samples as the second matrix of a stack": (
        "y = ReduceMean<keepdims=0>(x, k) z = MatMul(c, y)",
        {"k": [1, 2], "c": rand(1, 1, 1)},
    ),
    "expanded to more axes": ("z = Expand(x, k)", {"k": [1, 1, 4, 6, 6]}),
    "slopes that are rows": ("z = PRelu(x, v)", {}),
    "as many as samples": ("s = Shape(x) y = Cast<to=1>(s) n = Gather(y, k) z = Mul(x, n)", {"k": np.int64(0)}),
    "computed from the count": ("s = Shape(x) t = Mul(s, k) z = Reshape(x, t)", {"k": [1, 1, 1, 1]}),
    "picked by the count": (
        "s = Shape(x) n = Gather(s, o) p = Gather(t, n) z = Reshape(x, p)",
        {"o": np.int64(0), "t": [[1, 4, 36], [1, 4, 36], [2, 4, 18]]},
    ),
    "count in a second place": ("s = Shape(x) t = Gather(s, k) z = Reshape(x, t)", {"k": [0, 1, 2, 3, 0]}),
    "size of all": ("s = Size(x) y = Cast<to=1>(s) z = Div(x, y)", {}),
    "random": ("y = RandomNormalLike(x) z = Add(x, y)", {}),
    "random of its own": ("y = RandomNormal<shape=[1,4,6,6]>() z = Add(x, y)", {}),
    "quantized over the batch": ("y, s, p = DynamicQuantizeLinear(x) z = DequantizeLinear(y, s, p)", {}),
    "no rule": ('z = Einsum<equation="nchw->nhcw">(x)', {}),
    "rank of another": ("z = Add(v, x)", {}),
    "slopes of the samples": ("z = PRelu(c, x)", {"c": rand(1, 4, 6, 6)}),
    "slopes of more axes": ("z = PRelu(v, c)", {"c": rand(1, 1, 1, 8)}),
    "expanded to a shape of fewer axes": ("y = Unsqueeze(v, k) s = Shape(v) z = Expand(y, s)", {"k": [1]}),
    "sides of the whole by one scale": (
        "s = Shape(x) n = Slice(s, o, i) t = Concat<axis=0>(n, h) "
        'z = Resize<keep_aspect_ratio_policy="not_larger">(x, , , t)',
        {"o": [0], "i": [1], "h": [4, 9, 12]},
    ),
    "interpolated along all of few axes": ('z = Resize<mode="linear">(v, , s)', {"s": floats([1, 2])}),
    "bounds of the samples": ("y = ReduceMin<keepdims=0>(x, k) z = Clip(y, y)", {"k": [1, 2, 3]}),
    "nothing": ("e = Slice(x, o, o, i) z = Reshape<allowzero=1>(e, t)", {"o": [2], "i": [1], "t": [1, 6, 0]}),
    "size of the sizes": (
        "s = Shape(x) n = Slice(s, o, i) m = Shape(n) t = Concat<axis=0>(m, r) z = Reshape(x, t)",
        {"o": [0], "i": [1], "r": [-1]},
    ),
    "axes that are what they are put between": (
        "s = Shape(x) n = Slice(s, o, i) m = Unsqueeze(n, n) t = Squeeze(m, i) z = Reshape(x, t)",
        {"o": [0], "i": [1]},
    ),
    "axes that are the count": (
        "s = Shape(x) n = Slice(s, o, i) y = Unsqueeze(c, n) z = Mul(x, y)",
        {"o": [0], "i": [1], "c": rand(4, 1)},
    ),
}


def built(body: str, constants: Constants, opset: int = 21) -> onnx.ModelProto:
    """A graph of the map `x`, the rows `v`, or both."""
    read = {word for word in body.replace("(", " ").replace(")", " ").replace(",", " ").split() if word in {"x", "v"}}
    shapes = {"x": MAP, "v": (1, 6) if "x" in read else ROW}
    return model(body, {name: shapes[name] for name in sorted(read, reverse=True)}, constants, opset=opset)


@pytest.mark.parametrize("name", OPENS)
def test_each_sample_alone(name: str) -> None:
    assert check_open(built(*OPENS[name]))


@pytest.mark.parametrize("name", MIXES)
def test_samples_that_mix(name: str) -> None:
    assert opened(built(*MIXES[name]))[0] is None


@pytest.mark.parametrize("name", ["softmax over samples", "mean over all", "sum along samples", "size of all"])
def test_the_comparison_would_see_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_batch, "mixing_node", lambda graph: None)
    with pytest.raises(AssertionError):
        check_open(built(*MIXES[name]))


def test_every_rule_has_a_case() -> None:
    tried = {node.op_type for body, constants in OPENS.values() for node in built(body, constants).graph.node}
    newer, older = {"RMSNormalization", "Swish"}, {"Upsample"}
    assert set(RULES) - newer - older <= tried


@pytest.mark.parametrize(
    ("body", "constants", "opset", "opens"),
    [
        ("z = Upsample(x, s)", {"s": floats([1, 1, 2, 2])}, 9, True),
        ("z = Resize(x, s)", {"s": floats([1, 1, 2, 2])}, 10, True),
        ("z = Softmax(x)", {}, 11, True),
        ("z = Softmax<axis=0>(x)", {}, 11, False),
        ("z = Slice<starts=[1], ends=[3], axes=[1]>(x)", {}, 9, True),
        ("z = Slice<starts=[0], ends=[1]>(x)", {}, 9, False),
        ("z = Softmax<axis=-1>(x)", {}, 12, True),
        ("z = ReduceMean<axes=[2, 3]>(x)", {}, 9, True),
        ("z = ReduceMean<axes=[-1]>(x)", {}, 10, False),
        ("z = ReduceMean<axes=[-1]>(x)", {}, 11, True),
        ("z = Resize(x, r, s)", {"r": floats([]), "s": floats([1, 1, 2, 2])}, 11, True),
        ("z = Resize(x, r, s)", {"r": floats([]), "s": floats([1, 1, 2, 2])}, 12, True),
        ("z = ReduceMean<axes=[2, 3]>(x)", {}, 13, True),
        ("z = ReduceMean<axes=[0]>(x)", {}, 13, False),
        ("z = Pad<pads=[0,0,1,1,0,0,1,1]>(x)", {}, 10, True),
        ("z = Unsqueeze<axes=[-4]>(x)", {}, 9, False),
        ("z = Relu(x)", {}, 8, False),
    ],
)
def test_older_operators(body: str, constants: Constants, opset: int, opens: bool) -> None:
    assert check_open(built(body, constants, opset)) is opens


@pytest.mark.parametrize(
    "body",
    ["z = Pad<pads=1>(x, p)", 'z = Pad<pads="one">(x, p)', 'z = Pad<pads=["1", "2"]>(x, p)', "z = Pad(x, e)"],
)
def test_attributes_that_mean_nothing_are_no_crash(body: str) -> None:
    assert opened(built(body, {"p": [0] * 8, "e": np.zeros(0, np.int64)}))[0] is None


def test_a_node_that_nobody_can_read_is_passed_over() -> None:
    proto = built("y = Shape(x) w = Add(x, x) z = Relu(x)", {})
    for node in proto.graph.node[:2]:
        node.output[0] = ""
    assert opened(proto)[0] is not None


def test_what_the_file_claims_is_not_believed() -> None:
    proto = model("y = here.Squash(x) z = Relu(y)", {"x": MAP}, domains=["here"])
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, MAP))
    assert opened(proto)[0] is None


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("h = Slice(s, o, i) q = Sub(h, d) z = ReduceMean(x, q)", {"o": [2], "i": [3], "d": [222]}),
        ("h = Slice(s, o, i) q = Sub(h, d) z = Slice(x, l, m, q)",
         {"o": [2], "i": [3], "d": [222], "l": [0], "m": [1]}),
        ("h = Slice(s, o, i) q = Div(h, d) t = Concat<axis=0>(q, r) z = Tile(x, t)",
         {"o": [2], "i": [3], "d": [224], "r": [1, 1, 1]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", ["h", 224])
def test_what_follows_from_a_size_counts_where_that_is_fixed(body: str, constants: Constants, side: int | str) -> None:
    proto = model(f"s = Shape(x) {body}", {"x": (1, 2, side, 3)}, constants)
    assert (opened(proto)[0] is not None) is (side == 224)


def test_two_inputs_open_together() -> None:
    assert check_open(model("y = Conv(x, w) z = Add(y, u)", {"x": MAP, "u": (1, 4, 6, 6)}, {"w": rand(4, 4, 1, 1)}))


def test_the_batch_gets_a_name_of_its_own() -> None:
    proto = model("z = Relu(x)", {"x": (1, 4, "samples", "samples_")})
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("z", 1, (1, 4, "samples", "samples_")))
    copy, _ = opened(proto)
    assert copy is not None
    dims = copy.proto.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["samples__", 4, "samples", "samples_"]
    assert copy.proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "samples__"
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("name", CASES)
def test_corpus(name: str) -> None:
    case = CASES[name]
    with nullcontext() if case.runs else suppress(ModelError):
        check_open(fixed_at_one(case.build()))


def test_most_of_the_corpus_opens() -> None:
    found = [opened(fixed_at_one(case.build()))[0] is not None for case in CASES.values()]
    assert sum(found) > 0.8 * len(found)


@settings(max_examples=60)
@given(networks())
def test_random_graphs(proto: onnx.ModelProto) -> None:
    check_open(fixed_at_one(proto))
