"""Models: ModelProtos with wrong fields, edges, types, shapes, functions and external data, and damaged bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
from onnx.external_data_helper import set_external_data

import onnxnorm
from tools.fuzz.demands import demand_much
from tools.fuzz.messages import damage_message, messages_in
from tools.fuzz.mutations import ODD_INTEGERS, damage_bytes, pick
from tools.fuzz.networks import networks
from tools.fuzz.target import Files, Target

__all__ = ["TARGET", "damage_model", "model_files"]

MODEL, DATA = "model.onnx", "weights.bin"


@cache
def _seeds() -> Mapping[str, Files]:
    inside = {name: {MODEL: proto.SerializeToString()} for name, proto in networks().items()}
    return inside | {"outside": _outside()}


def _outside() -> Files:
    """Return a model with external data."""
    proto = onnx.ModelProto()
    proto.CopyFrom(networks()["chain"])
    data = b""
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        set_external_data(tensor, DATA, len(data), len(raw))
        tensor.ClearField("raw_data")
        data += raw
    return {MODEL: proto.SerializeToString(), DATA: data}


def model_files(random: np.random.Generator, files: Files) -> Files:
    """Return the files of a model, damaged field by field, and sometimes byte by byte."""
    proto = onnx.ModelProto.FromString(files[MODEL])
    damage_model(random, proto)
    content = proto.SerializeToString()
    kind = int(random.integers(12))
    if kind == 0:
        content = damage_bytes(random, content)
    elif kind == 1:
        content = _without_utf8(random, proto, content)
    changed = dict(files) | {MODEL: content}
    if DATA in changed and random.integers(3) == 0:
        changed[DATA] = changed[DATA][: int(random.integers(len(changed[DATA])))]
    return changed


def damage_model(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Change 1 to 4 things in a model."""
    for _ in range(int(random.integers(1, 5))):
        if random.integers(3):
            damage_message(random, proto)
        else:
            pick(random, _CHANGES)(random, proto)


def _rewire(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Let an input or output of a node be another value."""
    nodes = [item for item in messages_in(proto) if isinstance(item, onnx.NodeProto)]
    values = [value for node in nodes for value in (*node.input, *node.output)]
    ends = [(edges, at) for node in nodes for edges in (node.input, node.output) for at in range(len(edges))]
    if ends:
        edges, at = pick(random, ends)
        edges[at] = pick(random, values)


def _reshape(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Change the dimensions of a tensor; sometimes so that its size stays the same."""
    tensors = [item for item in messages_in(proto) if isinstance(item, onnx.TensorProto)]
    if not tensors:
        return
    dims = pick(random, tensors).dims
    if dims and random.integers(2):
        dims[int(random.integers(len(dims)))] = pick(random, ODD_INTEGERS)
    elif random.integers(2):
        dims.append(pick(random, (0, 1, 2**31)))
    else:
        dims[:] = dims[::-1]


def _retype(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Change the element type of a tensor or of a value."""
    kinds = (onnx.TensorProto, onnx.TypeProto.Tensor)
    tensors = [item for item in messages_in(proto) if isinstance(item, kinds)]
    if tensors:
        tensor, kind = pick(random, tensors), int(random.integers(30))
        if isinstance(tensor, onnx.TensorProto):
            tensor.data_type = kind
        elif isinstance(tensor, onnx.TypeProto.Tensor):
            tensor.elem_type = kind


def _drop_attribute(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    nodes = [item for item in messages_in(proto) if isinstance(item, onnx.NodeProto) and item.attribute]
    if nodes:
        attributes = pick(random, nodes).attribute
        del attributes[int(random.integers(len(attributes)))]


def _both_data(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Give a tensor numbers in a second field, or an external place."""
    tensors = [item for item in messages_in(proto) if isinstance(item, onnx.TensorProto)]
    if not tensors:
        return
    tensor = pick(random, tensors)
    if random.integers(2):
        tensor.float_data.extend([1.0] * int(random.integers(1, 5)))
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", pick(random, (DATA, "/etc/hosts", "../x", "", "a\x00b"))), ("offset", "-1")):
            tensor.external_data.add(key=key, value=value)


def _add_function(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Add a function that calls a node of the graph, or itself, and let a node call it."""
    if not proto.graph.node:
        return
    function = proto.functions.add(name="added", domain="added", input=["i"], output=["o"])
    function.opset_import.extend(proto.opset_import)
    function.opset_import.add(domain="added", version=1)
    proto.opset_import.add(domain="added", version=1)
    inner = function.node.add()
    inner.CopyFrom(pick(random, proto.graph.node))
    inner.input[:], inner.output[:] = ["i"] * len(inner.input), ["o"]
    caller = pick(random, proto.graph.node)
    caller.op_type, caller.domain = "added", "added"
    if random.integers(2):
        inner.op_type, inner.domain = "added", "added"


def _enlarge(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Make a number in an integer constant large: a side, a count or an axis that operators are told by a tensor."""
    tensors = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    whole = [tensor for tensor in tensors if len(tensor.raw_data) >= 8]
    if whole:
        tensor = pick(random, whole)
        values = np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // 8 * 8], np.int64).copy()
        values[int(random.integers(len(values)))] = pick(random, (1000, 50_000, 10**6, 2**31, 2**40, -(2**63)))
        tensor.raw_data = values.tobytes()


def _double_functions(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Sometimes add functions, each of which calls the one before twice: the last stands for very many nodes."""
    if not proto.graph.node or random.integers(20):
        return
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("twice", 1)]
    proto.opset_import.append(imports[1])
    levels = int(random.integers(3, 30))
    for level in range(levels):
        kind, domain = (f"f{level - 1}", "twice") if level else ("Relu", "")
        nodes = [onnx.helper.make_node(kind, [a], [b], domain=domain) for a, b in (("i", "m"), ("m", "o"))]
        proto.functions.append(onnx.helper.make_function("twice", f"f{level}", ["i"], ["o"], nodes, imports))
    caller = pick(random, proto.graph.node)
    caller.op_type, caller.domain = f"f{levels - 1}", "twice"


def _crowd(random: np.random.Generator, proto: onnx.ModelProto) -> None:
    """Sometimes add very many initializers; the last one has the name of another."""
    if random.integers(200) == 0:
        names = [*(f"more{number}" for number in range(40_000)), "more39999"]
        proto.graph.initializer.extend(onnx.TensorProto(name=name, data_type=1, float_data=[1.0]) for name in names)


_CHANGES: tuple[Callable[[np.random.Generator, onnx.ModelProto], None], ...] = (
    _rewire,
    _reshape,
    _retype,
    _drop_attribute,
    _both_data,
    _add_function,
    _enlarge,
    _double_functions,
    _crowd,
    demand_much,
)


def _without_utf8(random: np.random.Generator, proto: onnx.ModelProto, content: bytes) -> bytes:
    """Replace a name, everywhere, by bytes of the same length that are not UTF-8."""
    names = [node.output[0].encode() for node in proto.graph.node if node.output and node.output[0]]
    if not names:
        return content
    name = pick(random, names)[:127]  # a longer one has a length of two bytes
    return content.replace(bytes([len(name)]) + name, bytes([len(name)]) + b"\xff" * len(name))


def _damage(random: np.random.Generator) -> Files:
    seeds = _seeds()
    return model_files(random, seeds[pick(random, sorted(seeds))])


def _read(folder: Path, random: np.random.Generator) -> object:
    model = folder / MODEL
    plan = onnxnorm.plan(model, filters=pick(random, ("conv", "all")))
    text = str(plan)
    if random.integers(2):
        return text
    return onnxnorm.rewrite(model, statistic="weights", outputs=pick(random, ("keep", "scale")), verify=False).model


TARGET = Target("models", _seeds, _damage, _read)
