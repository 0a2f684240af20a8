"""One model in several layouts: inside its file, or with data files beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.constants import apply_edits
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import trace
from tests.helpers.scales_check import random_scales

RANDOM = np.random.default_rng(0)
WEIGHTS = {
    "w1": RANDOM.normal(size=(40, 3, 3, 3)).astype(np.float32),  # bulky
    "b1": RANDOM.normal(size=40).astype(np.float32),
    "w2": RANDOM.normal(size=(2, 40, 3, 3)).astype(np.float32),  # on the border
}
FEEDS = {"x": RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)}


def network() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="c1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="r1"),
        helper.make_node("Conv", ["r1", "w2"], ["y"], name="c2"),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    shapes: dict[str, tuple[str | int, ...]] = {"x": ("N", 3, 8, 8), "y": ("N", 2, 4, 4)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors, doc_string="a graph")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, doc_string="a model")
    model.metadata_props.add(key="author", value="somebody")
    return model


def external(folder: Path, locations: dict[str, str], name: str = "model.onnx", gap: int = 16) -> Path:
    """The network with these weights in other files, with unused bytes before and behind."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = network()
    for tensor in proto.graph.initializer:
        if tensor.name not in locations:
            continue
        path = folder / locations[tensor.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(b"\xab" * gap)
            place = {"location": locations[tensor.name], "offset": stream.tell(), "length": len(tensor.raw_data)}
            stream.write(tensor.raw_data + b"\xcd" * gap)
        move_out(tensor, place)
    onnx.save_model(proto, folder / name)
    return folder / name


def move_out(tensor: TensorProto, place: dict[str, object]) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))


def doubled(model: Model) -> Model:
    """The model with its free channels scaled."""
    found = trace(read_graph(model, {"x": (1, 3, 8, 8)}))
    return apply_edits(model, found.edits, random_scales(found, 1)).model


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(path: Path) -> NDArray[np.float32]:
    return np.asarray(Runtime("cpu", threads=1).session(Model.open(path), optimize=False).run(FEEDS)["y"])
