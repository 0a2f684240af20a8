"""Broken and hostile models are refused with a ModelError as they are opened or read, at once and in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.evaluation import MOST_ELEMENTS
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from tests.helpers.model_files import move_out, network

FLOAT = TensorProto.FLOAT


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    """A model from `x` (1, 3) to `y`."""
    x, y = (helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in (("x", [1, 3]), ("y", None)))
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("own", 1)])


def relu() -> onnx.NodeProto:
    return helper.make_node("Relu", ["x"], ["y"], name="r")


def renamed(proto: onnx.ModelProto, name: bytes, to: bytes) -> bytes:
    """The serialized model with a name replaced by bytes of the same length."""
    assert len(name) == len(to)
    return proto.SerializeToString().replace(name, to)


def functions(*bodies: list[str]) -> onnx.ModelProto:
    """A model that calls function `f0`; each body is the list of functions that it calls."""
    proto = model(helper.make_node("f0", ["x"], ["y"], domain="own"))
    for index, body in enumerate(bodies):
        nodes, last = [], "a"
        for step, callee in enumerate(body):
            domain = "own" if callee.startswith("f") else ""
            nodes.append(helper.make_node(callee, [last], [f"v{step}"], domain=domain))
            last = f"v{step}"
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        proto.functions.append(helper.make_function("own", f"f{index}", ["a"], [last], nodes, opsets))
    return proto


@pytest.mark.parametrize("name", ["the_node", "the_value", "the_weight"])
def test_names_that_are_not_utf_8(name: str, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((1, 3), np.float32), "the_weight")
    nodes = [
        helper.make_node("Mul", ["x", "the_weight"], ["the_value"], name="the_node"),
        helper.make_node("Relu", ["the_value"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(renamed(model(*nodes, tensors=(weight,)), name.encode(), b"\xff" * len(name)))
    with pytest.raises(ModelError, match="is not UTF-8"):
        Model.open(path)


def test_an_attribute_that_an_operator_requires() -> None:
    with pytest.raises(ModelError, match="Einsum node 'e' lacks the attribute 'equation'"):
        onnxnorm.plan(model(helper.make_node("Einsum", ["x"], ["y"], name="e")))


def test_an_attribute_of_a_wrong_type() -> None:
    with pytest.raises(ModelError, match="Einsum node 'e' has an attribute 'equation' of a type"):
        onnxnorm.plan(model(helper.make_node("Einsum", ["x"], ["y"], name="e", equation=3)))


def test_functions_that_call_themselves() -> None:
    for proto in (functions(["f0"]), functions(["f1"], ["Relu", "f0"])):
        with pytest.raises(ModelError, match="calls itself"):
            Model.open(proto)


def test_functions_that_expand_without_end() -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match="expand to more than"):
        Model.open(functions(*([f"f{index + 1}"] * 2 for index in range(28)), ["Relu"]))
    with pytest.raises(ModelError, match="levels"):
        Model.open(functions(*([f"f{index + 1}"] for index in range(300)), ["Relu"]))
    assert time.monotonic() - start < 30  # a hang, not a speed


def test_functions_that_end_are_read() -> None:
    planned = onnxnorm.plan(functions(["f1", "f1"], ["Relu"]))
    assert (planned.filters, planned.nothing) == (0, "the model has no convolutions to normalize")


def test_many_initializers_with_a_name_twice() -> None:
    proto = model(relu())
    for index in range(60_000):
        proto.graph.initializer.add(name=f"w{min(index, 59_998)}", data_type=FLOAT, dims=[0])
    start = time.monotonic()
    with pytest.raises(ModelError, match="two initializers called 'w59998'"):
        Model.open(proto)
    assert time.monotonic() - start < 30  # a hang, not a speed: pair by pair it took longer


def test_values_with_a_name_twice() -> None:
    w = numpy_helper.from_array(np.ones(3, np.float32), "w")
    for name in ("x", "v", "w"):
        nodes = [helper.make_node("Abs", ["x"], ["v"]), helper.make_node("Neg", ["v"], [name])]
        with pytest.raises(ModelError, match=f"two values called '{name}'"):
            Model.open(model(*nodes, relu(), tensors=(w,)))


@pytest.mark.parametrize("bulky", [False, True])
def test_a_tensor_with_data_in_two_fields(bulky: bool) -> None:
    values = np.ones((64, 64) if bulky else (1, 3), np.float32)
    for field in ("float_data", "int32_data"):
        tensor = numpy_helper.from_array(values, "w")
        getattr(tensor, field).extend([2] * values.size)
        with pytest.raises(ModelError, match="data in several places"):
            Model.open(model(relu(), tensors=(tensor,)))
        with pytest.raises(ModelError, match="data in several places"):
            Model.open(model(helper.make_node("Constant", [], ["c"], value=tensor), relu()))


def test_a_tensor_with_data_in_a_field_of_another_type() -> None:
    for size in (2, 4096):  # in the graph, and beside it
        tensor = TensorProto(name="w", data_type=FLOAT, dims=[2 * size], double_data=[1.0] * size)
        with pytest.raises(ModelError, match=r"does not use|holds"):
            Model.open(model(relu(), tensors=(tensor,)))


def outside(tensor: TensorProto, location: str) -> TensorProto:
    move_out(tensor, {"location": location})
    return tensor


def tensor_of(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32), name)


def in_an_attribute(location: str) -> onnx.ModelProto:
    value = outside(tensor_of(), location)
    return model(helper.make_node("ConstantOfShape", ["s"], ["c"], value=value), relu())


def in_a_sparse_initializer(location: str) -> onnx.ModelProto:
    proto = model(relu())
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor_of(), indices, [4]))
    outside(proto.graph.sparse_initializer[0].values, location)
    return proto


def in_a_subgraph(location: str) -> onnx.ModelProto:
    y = helper.make_tensor_value_info("z", FLOAT, [1])
    body = helper.make_graph([helper.make_node("Relu", ["w"], ["z"])], "b", [], [y], [outside(tensor_of(), location)])
    return model(helper.make_node("If", ["c"], ["d"], then_branch=body, else_branch=body), relu())


def in_a_function(location: str) -> onnx.ModelProto:
    proto = functions(["Relu"])
    proto.functions[0].node.append(helper.make_node("Constant", [], ["k"], value=outside(tensor_of(), location)))
    return proto


PLACES = [in_an_attribute, in_a_sparse_initializer, in_a_subgraph, in_a_function]


@pytest.mark.parametrize("build", PLACES)
def test_external_data_anywhere_stays_in_the_folder(
    build: Callable[[str], onnx.ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(b"1234")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model" / "m.onnx"
    for location in ("secret", "../secret", str(tmp_path / "secret")):
        path.write_bytes(build(location).SerializeToString())
        with pytest.raises(ModelError, match=r"missing|outside|another file"):
            Model.open(path)


def test_external_data_of_a_subgraph_in_the_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(np.ones(1, np.float32).tobytes())
    path = tmp_path / "m.onnx"
    path.write_bytes(in_a_subgraph("data").SerializeToString())
    assert tmp_path / "data" in Model.open(path).files


@pytest.mark.parametrize("location", ["a\0b", "a" * 5000])
def test_external_data_at_a_name_that_no_file_can_have(location: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(relu(), tensors=(outside(tensor_of(), location),)).SerializeToString())
    with pytest.raises(ModelError, match="cannot be a file"):
        Model.open(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        Model.open(tmp_path / "m.onnx")


def test_what_is_computed_is_limited() -> None:
    """A few bytes that describe a constant of gigabytes: it is not evaluated, and nor is what follows from it."""
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    for side, known in ((1 << 14, False), (1 << 6, True)):
        assert (side * side <= MOST_ELEMENTS) == known
        shape = numpy_helper.from_array(np.array([side, side]), "shape")
        nodes = [
            helper.make_node("Expand", ["one", "shape"], ["large"]),
            helper.make_node("ReduceSum", ["large"], ["sum"]),
            helper.make_node("Mul", ["x", "sum"], ["y"]),
        ]
        graph = read_graph(Model.open(model(*nodes, tensors=(one, shape))), {"x": (1, 3)})
        assert ("large" in graph.constants, "sum" in graph.constants) == (known, known)
        onnxnorm.plan(model(*nodes, tensors=(one, shape)))


# Runs a command in little more address space than it has: 1 GB.
IN_LITTLE = """
import resource, sys
from pathlib import Path
import onnxnorm, onnxnorm.api
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
print(onnxnorm.plan(sys.argv[1]).filters)
onnxnorm.features(sys.argv[1], "a," + sys.argv[2], sys.argv[1] + ".cut")
"""
LONG = {
    "Range": "e = Range(zero, n, one) c = Cast<to=1>(e)",
    "ConstantOfShape": "e = ConstantOfShape(big) c = Gather(e, zero)",
    "Concat": "e = Concat<axis=0>(big, big) "
    + " ".join(f"e{i} = Concat<axis=0>({f'e{i - 1}' if i else 'e'}, {f'e{i - 1}' if i else 'e'})" for i in range(30)),
    "Concat of channels": " ".join(
        f"e{i} = Concat<axis=1>({f'e{i - 1}' if i else 'a'}, {f'e{i - 1}' if i else 'a'})" for i in range(24)
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space so")
@pytest.mark.parametrize("long", LONG)
def test_values_of_gigabytes_are_never_written_out(long: str, tmp_path: Path) -> None:
    """A few nodes describe them; shape inference would write out those with one axis, and a walk those that move."""
    head = '<ir_version: 8, opset_import: ["": 18]> g (float[1, 1, 8, 8] x) => (float[1, 2, 6, 6] z)'
    proto = onnx.parser.parse_model(f"{head} {{ a = Conv(x, w) {LONG[long]} z = Relu(a) }}")
    numbers: dict[str, object] = {"zero": 0, "one": 1, "n": 2**31, "big": [2**31]}
    constants = numbers | {"w": np.ones((2, 1, 3, 3), np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    onnx.save(proto, tmp_path / "m.onnx")
    last = proto.graph.node[-2].output[0]
    command = [sys.executable, "-c", IN_LITTLE, str(tmp_path / "m.onnx"), last]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("2\n", "")


@pytest.mark.parametrize(
    ("node", "known"),
    [
        ('Einsum<equation="ab,cd->">(k, k)', True),
        ('Einsum<equation="ab,cd,ef,gh,ij,kl->">(k, k, k, k, k, k)', False),
        ("MatMul(k, k)", True),
        ("Resize(image, , factors)", False),
        ("ReduceMax(k)", True),
        ("Range(zero, many, one)", False),
    ],
)
def test_what_computing_takes_is_limited(node: str, known: bool) -> None:
    """The reference implementation would take hours for what a runtime computes at once."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> g (float[1] x) => (float[1] y) {{ c = {node} y = Relu(x) }}"""
    )
    values = {"k": np.ones((64, 64)), "image": np.ones((1, 1, 64, 64)), "factors": [1, 1, 9, 9]}
    for name, value in (values | {"zero": 0, "one": 1, "many": 2**22}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    assert ("c" in read_graph(Model.open(proto), {"x": (1,)}).constants) == known


@pytest.mark.parametrize("axes", [32, 33, 80])
def test_values_of_very_many_axes(axes: int) -> None:
    shape = numpy_helper.from_array(np.ones(axes, np.int64) * ([-1] + [1] * (axes - 1)), "shape")
    proto = model(
        helper.make_node("Reshape", ["x", "shape"], ["v"]), helper.make_node("Relu", ["v"], ["y"]), tensors=(shape,)
    )
    stored = model(relu(), tensors=(TensorProto(name="w", data_type=FLOAT, dims=[1] * axes, float_data=[1]),))
    for one, what in ((proto, "value 'v'"), (stored, "initializer 'w'")):
        with nullcontext() if axes == 32 else pytest.raises(ModelError, match=f"{what} has {axes} axes, of which"):
            onnxnorm.plan(one)


@pytest.mark.parametrize(("times", "free"), [(3, 2), (90, 0)])
def test_a_value_that_is_squared_very_often_is_pinned(times: int, free: int) -> None:
    """Its scale would be the one it began with, to a power of more digits than any type holds."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["v0"])]
    nodes += [helper.make_node("Mul", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(times)]
    weights = {"w": np.ones((2, 3, 1), np.float32), "k": np.ones((1, 2, 1), np.float32)}
    tensors = tuple(numpy_helper.from_array(value, name) for name, value in weights.items())
    proto = model(*nodes, helper.make_node("Conv", [f"v{times}", "k"], ["y"]), tensors=tensors)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, [1, 3, 9]))
    planned = onnxnorm.plan(proto)
    assert (planned.free, planned.filters) == (free, 3)


def test_parameters_that_are_not_one_number_for_each_channel() -> None:
    """Shape inference does not look at them."""
    w = numpy_helper.from_array(np.ones((4, 3, 3), np.float32), "w")
    b = numpy_helper.from_array(np.ones(4, np.float32), "b")
    layer = helper.make_node("Conv", ["x", "w"], ["c"])
    for node in (
        helper.make_node("BatchNormalization", ["c", "b", "b", "b", "w"], ["y"]),
        helper.make_node("InstanceNormalization", ["c", "w", "b"], ["y"]),
        helper.make_node("InstanceNormalization", ["b", "c", "b"], ["y"]),
    ):
        proto = model(layer, node, tensors=(w, b))
        proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, [1, 3, 9]))
        with suppress(ModelError):
            assert onnxnorm.plan(proto).free == 0


def test_a_value_of_more_elements_than_can_be_counted() -> None:
    starts, ends = (numpy_helper.from_array(np.array([number]), name) for number, name in ((0, "from"), (1, "to")))
    w = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Slice", ["c", "from", "to"], ["y"])]
    proto = model(*nodes, tensors=(w, starts, ends))
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, [1, 3, 8, 2**62]))
    assert onnxnorm.plan(proto).free == 0


@pytest.mark.parametrize("channels", [1 << 16, 10_000_000])
def test_channels_that_no_weights_are_stored_for(channels: int) -> None:
    shape = numpy_helper.from_array(np.array([channels, 3, 1]), "shape")
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["w"]), helper.make_node("Conv", ["x", "w"], ["c"])]
    proto = model(*nodes, helper.make_node("Relu", ["c"], ["y"]), tensors=(shape,))
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", FLOAT, [1, 3, 9]))
    with nullcontext() if channels < 1 << 20 else pytest.raises(ModelError, match="the graph has more than 2,097"):
        onnxnorm.plan(proto)


def test_many_computed_constants_share_one_limit() -> None:
    one = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    shape = numpy_helper.from_array(np.array([1 << 10, 1 << 10]), "shape")
    nodes = [helper.make_node("Expand", ["one", "shape"], [f"large{index}"]) for index in range(9)]
    graph = read_graph(Model.open(model(*nodes, relu(), tensors=(one, shape))), {"x": (1, 3)})
    assert sum(name.startswith("large") for name in graph.constants) == MOST_ELEMENTS >> 20


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), KeyError("k"), TypeError("t"), OverflowError("o")])
def test_the_boundary_names_what_is_wrong(error: Exception) -> None:
    with (
        pytest.raises(
            ModelError, match=r"^the graph (needs more memory|is nested too deeply|cannot be read)"
        ) as caught,
        model_errors("the graph"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_the_boundary_lets_our_own_errors_pass() -> None:
    with pytest.raises(ModelError, match=r"^mine$"), model_errors("the graph"):
        raise ModelError("mine")


def test_random_damage_never_looks_like_a_bug() -> None:
    """Bytes of a model that were changed at random: read, or refused, and some of both."""
    generator = np.random.default_rng(0)
    ends: Counter[str] = Counter()
    whole = np.frombuffer(network().SerializeToString(), np.uint8)
    for _ in range(300):
        damaged = whole.copy()
        places = np.concatenate([generator.integers(0, 300, 2), generator.integers(len(whole) - 300, len(whole), 2)])
        damaged[places] = generator.integers(0, 256, len(places))
        proto = onnx.ModelProto()
        try:
            proto.ParseFromString(damaged.tobytes())
        except Exception:  # noqa: BLE001 - protobuf's own refusal; the error differs between its versions
            continue
        try:
            onnxnorm.plan(proto)
        except onnxnorm.OnnxnormError:
            ends["refused"] += 1
        else:
            ends["read"] += 1
    assert min(ends["refused"], ends["read"]) > 10
