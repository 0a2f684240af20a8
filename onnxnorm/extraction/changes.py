"""What people change in a VGG: average pooling, reflected borders, and the preprocessing as its first layer.

Each function changes a ModelProto in place, refuses what it would change only in part or wrongly, and returns a
sentence that says what it did. Names that they add begin with `onnxnorm_`. All change what filters measure, so they
belong before the calibration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxnorm.data.images.presets import PRESETS
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Node, all_names, input_specs
from onnxnorm.model.inputs import InputSpec
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.model.tensors import is_float
from onnxnorm.vgg import Chain, adds_zeros, pads_itself, pads_of, same_padding

__all__ = ["average_pools", "fold_preprocessing", "reflect_padding"]

Array = NDArray[np.generic]

_TO_NCHW = [0, 3, 1, 2]
_ARITHMETIC = {"Add", "Sub", "Mul", "Div"}
_POOLING = {"auto_pad", "ceil_mode", "kernel_shape", "pads", "strides"}


def average_pools(model: Model) -> str:
    """Make every MaxPool an AveragePool over the same windows.

    Raises:
        OptionError: if there is none, or one that has no counterpart.
    """
    pools = [node for node in Chain.of(model).nodes if node.op == "MaxPool"]
    if not pools:
        raise OptionError("--pool average: there is no MaxPool before the chosen layers; leave the option out")
    for pool in pools:
        if len(list(filter(None, pool.outputs))) > 1 or {*pool.attribute("dilations", [1])} != {1}:
            raise OptionError(
                f"--pool average: MaxPool {pool.label!r} returns indices or is dilated, which no AveragePool does; "
                "leave the option out"
            )
    for pool in pools:
        node = model.proto.graph.node[pool.index]
        node.op_type = "AveragePool"
        kept = [attribute for attribute in node.attribute if attribute.name in _POOLING]
        del node.attribute[:]
        node.attribute.extend(kept)
        del node.output[1:]
    return f"{len(pools)} MaxPool became AveragePool"


# --- reflected borders -----------------------------------------------------------------------------------------------


def reflect_padding(model: Model) -> str:
    """Reflect what every 3x3 convolution padded with zeros, by a Pad in front of it.

    A Pad of zeros that stands there already becomes one in reflect mode; zeros that are the convolution's own give way
    to a new Pad.

    Raises:
        OptionError: if there is none, if others pad with zeros too, or if a value is too small to be reflected.
    """
    chain = Chain.of(model)
    zeros = [node for node in chain.nodes if node.op == "Conv" and _reads_zeros(chain, node)]
    padded = [node for node in zeros if _is_3x3(chain, node) and same_padding(chain, node) == "zero"]
    others = [node for node in zeros if node not in padded]
    if others:
        raise OptionError(
            f"--padding reflect: convolution {others[0].label!r} pads with zeros but is not 3x3 with one pixel on each "
            "side; the option is for networks whose padded convolutions all are, as those of a VGG"
        )
    if not padded:
        raise OptionError(
            "--padding reflect: no 3x3 convolution before the chosen layers pads with zeros; leave the option out"
        )
    _check_sizes(model, chain, padded)
    for pad in _pads_in_front(model, chain, padded):
        _make_reflecting(model.proto.graph.node[pad.index])
    _insert_pads(model.proto, [node for node in padded if pads_itself(node)])
    return f"{len(padded)} convolutions read reflected borders instead of zeros"


def _is_3x3(chain: Chain, node: Node) -> bool:
    weight = chain.constant(node, 1) if node.op == "Conv" else None
    return weight is not None and len(weight.shape) == 4 and weight.shape[2:] == (3, 3)


def _reads_zeros(chain: Chain, node: Node) -> bool:
    """Whether zeros are put around what a convolution reads, by itself or by a Pad in front of it."""
    before = chain.producers.get(node.inputs[0])
    if pads_itself(node) or before is None or before.op != "Pad":
        return pads_itself(node)
    return adds_zeros(chain, before) and any(pads_of(chain, before) or [1])


def _pads_in_front(model: Model, chain: Chain, padded: Sequence[Node]) -> list[Node]:
    """The Pads that these convolutions read. Raises OptionError if another node reads one, too."""
    indices = {node.index for node in padded}
    pads = {node.inputs[0]: chain.producers[node.inputs[0]] for node in padded if not pads_itself(node)}
    elsewhere = {value.name for value in model.proto.graph.output}.union(*(node.captured() for node in chain.nodes))
    for value, pad in pads.items():
        if value in elsewhere or {place.node for place in chain.readers[value]} - indices:
            raise OptionError(
                f"--padding reflect: what Pad {pad.label!r} gives is read elsewhere too, where zeros may be meant; "
                "choose other layers, or leave the option out"
            )
    return list(pads.values())


def _make_reflecting(pad: onnx.NodeProto) -> None:
    kept = [attribute for attribute in pad.attribute if attribute.name not in {"mode", "value"}]
    del pad.attribute[:]
    pad.attribute.extend([*kept, helper.make_attribute("mode", "reflect")])
    del pad.input[2:]


def _check_sizes(model: Model, chain: Chain, padded: Sequence[Node]) -> None:
    """Raise OptionError if a value that is padded has fewer than two rows or columns, or if its strides differ."""
    shapes = read_graph(model, sample_shapes(input_specs(model))).shapes
    for node in padded:
        value = node.inputs[0] if pads_itself(node) else chain.producers[node.inputs[0]].inputs[0]
        shape = shapes.get(value)
        if shape is not None and min(shape[2:]) < 2:
            raise OptionError(
                f"--padding reflect: the input of convolution {node.label!r} is {shape[2]}x{shape[3]} pixels, and a "
                "border of one pixel is reflected from at least two; choose earlier layers, or a larger input"
            )
        if node.attribute("auto_pad", "NOTSET").startswith("SAME") and {*node.attribute("strides", [1])} != {1}:
            raise OptionError(
                f"--padding reflect: convolution {node.label!r} has strides and no fixed padding (auto_pad); export "
                "the model with explicit pads"
            )


def _insert_pads(proto: onnx.ModelProto, padded: Sequence[Node]) -> None:
    """Insert the Pads; convolutions that read the same value share one."""
    used = all_names(proto.graph)
    pads = [0, 0, 1, 1, 0, 0, 1, 1]
    constant = _fresh("onnxnorm_pads", used)
    before: dict[int, onnx.NodeProto] = {}
    borders: dict[str, str] = {}
    for node in padded:
        value = node.inputs[0]
        if value not in borders:
            borders[value] = _fresh(f"onnxnorm_reflected_{value}", used)
            before[node.index] = helper.make_node("Pad", [value], [borders[value]], borders[value], mode="reflect")
            if node.opset >= 11:
                before[node.index].input.append(constant)
            else:
                before[node.index].attribute.append(helper.make_attribute("pads", pads))
        conv = proto.graph.node[node.index]
        conv.input[0] = borders[value]
        kept = [attribute for attribute in conv.attribute if attribute.name not in {"auto_pad", "pads"}]
        del conv.attribute[:]
        conv.attribute.extend([*kept, helper.make_attribute("pads", [0, 0, 0, 0])])
    if any(node.opset >= 11 for node in padded):
        _add_constant(proto, numpy_helper.from_array(np.array(pads, np.int64), constant))
    _insert(proto, before)


# --- preprocessing ---------------------------------------------------------------------------------------------------


def fold_preprocessing(model: Model, preset: str) -> str:
    """Put a 1x1 convolution in front, which turns RGB in [0, 1] into what a preset would hand to the network.

    With `u` in [0, 1] it is `(255 / divisor * u - mean) / std` for each channel, in the preset's order.

    Raises:
        OptionError: if the network does not read one image of three channels in floating point.
    """
    spec = _image_input(model)
    value = _nchw_value(model, spec)
    proto = model.proto
    _check_nothing_in_front(model, value)
    used = all_names(proto.graph)
    weight, bias = _preprocessing(preset, spec)
    names = [_fresh(f"onnxnorm_preprocessing.{part}", used) for part in ("weight", "bias")]
    output = _fresh("onnxnorm_preprocessed", used)
    readers = [index for index, node in enumerate(proto.graph.node) if value in node.input]
    node = helper.make_node("Conv", [value, *names], [output], "onnxnorm_preprocessing", kernel_shape=[1, 1])
    for index in readers:
        inputs = [output if name == value else name for name in proto.graph.node[index].input]
        proto.graph.node[index].input[:] = inputs
    for name, array in zip(names, (weight, bias), strict=True):
        _add_constant(proto, numpy_helper.from_array(array, name))
    _insert(proto, {readers[0]: node})
    for entry in proto.metadata_props:
        if entry.key == "preset" and entry.value == preset:
            entry.value = "unit"
    return f"the preset {preset} is a 1x1 convolution now: input {spec.name!r} is RGB in [0, 1]"


def _image_input(model: Model) -> InputSpec:
    specs = input_specs(model)
    if len(specs) != 1:
        raise OptionError(f"--fold-preprocessing: the chosen layers need {len(specs)} inputs, not one image")
    spec = specs[0]
    if len(spec.shape) != 4 or not is_float(spec.dtype):
        raise OptionError(f"--fold-preprocessing: input {spec} is not an image in floating point")
    return spec


def _nchw_value(model: Model, spec: InputSpec) -> str:
    """The value that holds the image in NCHW order: the input, or the output of the Transpose that reads it."""
    chain = Chain.of(model)
    nodes = chain.readers_at(spec.name)
    convolutions = [chain.constant(node, 1) for node in nodes if node.op == "Conv"]
    reads_three = bool(convolutions) and all(weight and weight.shape[1] == 3 for weight in convolutions)
    value = spec.name
    if len(nodes) == 1 and nodes[0].op == "Transpose" and nodes[0].attribute("perm") == _TO_NCHW:
        reads_three, value = spec.shape[3] == 3, nodes[0].outputs[0]
    elif spec.shape[1] is not None:
        reads_three = spec.shape[1] == 3
    if not reads_three:
        raise OptionError(
            f"--fold-preprocessing: input {spec} is not known to be an image of three channels in NCHW order, nor one "
            "that is brought to it at once; leave the option out"
        )
    if any(value in node.captured() for node in chain.nodes) or not chain.readers.get(value):
        raise OptionError(f"--fold-preprocessing: {value!r} is read inside of a subgraph; leave the option out")
    return value


def _check_nothing_in_front(model: Model, value: str) -> None:
    chain = Chain.of(model)
    for node in chain.readers_at(value):
        weight = chain.constant(node, 1) if node.op == "Conv" else None
        what = "a 1x1 convolution" if weight is not None and weight.shape == (3, 3, 1, 1) else None
        if node.op in _ARITHMETIC and any(chain.constant(node, position) for position in range(2)):
            what = f"{node.op} of a constant"
        if what is not None:
            raise OptionError(
                f"--fold-preprocessing: the network begins with {what} already ({node.label!r}), so a "
                "preprocessing seems to be in it; leave the option out"
            )


def _preprocessing(preset: str, spec: InputSpec) -> tuple[Array, Array]:
    """Weights, shape `(3, 3, 1, 1)`, and bias, shape `(3,)`, of the convolution."""
    found = PRESETS[preset]
    mean, std = (np.broadcast_to(np.asarray(numbers, np.float64), 3) for numbers in (found.mean, found.std))
    order = [0, 1, 2] if found.channels == "rgb" else [2, 1, 0]
    weight = (np.eye(3) * (255 / found.divisor) / std)[order].reshape(3, 3, 1, 1)
    return weight.astype(spec.dtype), (-mean / std)[order].astype(spec.dtype)


# --- the graph -------------------------------------------------------------------------------------------------------


def _fresh(stem: str, used: set[str]) -> str:
    """A name that is not used, which is `stem` or begins with it; it counts as used from now on."""
    name, number = stem, 1
    while name in used:
        name, number = f"{stem}_{number}", number + 1
    used.add(name)
    return name


def _add_constant(proto: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    proto.graph.initializer.append(tensor)
    if proto.ir_version < 4:  # every initializer has to be listed as an input
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def _insert(proto: onnx.ModelProto, before: dict[int, onnx.NodeProto]) -> None:
    """Insert nodes before those with these indices."""
    nodes = []
    for index, node in enumerate(proto.graph.node):
        nodes += [before[index]] if index in before else []
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
