"""From what a user calls a layer to a value: the name of a value or of a node, or one of the VGG literature."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from onnxnorm.errors import OptionError
from onnxnorm.model.constants import stored_constants
from onnxnorm.model.files import Model
from onnxnorm.vgg import NoVgg, read_vgg

__all__ = ["select_values", "split_layers"]

_NEAR = 5


def split_layers(model: Model, layers: str | Iterable[str]) -> tuple[str, ...]:
    """The layers in text such as "relu1_1,relu2_1", or as they are if they are given one by one.

    A name that the model has is not split, even if there is a comma in it.
    """
    if not isinstance(layers, str):
        return tuple(layers)
    names = _produced(model).keys() | {node.name for node in model.proto.graph.node}
    return (layers,) if layers in names else tuple(filter(None, (part.strip() for part in layers.split(","))))


def select_values(model: Model, layers: Sequence[str]) -> dict[str, str]:
    """The value that each layer is, by the name that it was asked for with.

    The name of a value counts before that of a node (which stands for its first output), and that before the names of
    the VGG literature, which count if the network is a VGG.

    Raises:
        OptionError: if no layer is given, or one is not known. The message lists near names.
    """
    if not layers:
        raise OptionError("--layers names no layer; give names such as relu1_1,relu3_1")
    values = _produced(model)
    nodes = {node.name: node.output[0] for node in model.proto.graph.node if node.name and node.output}
    vgg = read_vgg(model)
    literature = {} if isinstance(vgg, NoVgg) else vgg.values
    constants = stored_constants(model)
    selected = {}
    for layer in layers:
        value = values.get(layer) or nodes.get(layer) or literature.get(layer)
        if value is None or value in constants:
            raise OptionError(_unknown(model, layer, [*literature, *values, *nodes], vgg))
        selected[layer] = value
    return selected


def _produced(model: Model) -> dict[str, str]:
    """The values that nodes produce, constants left out."""
    constant = stored_constants(model)
    return {name: name for node in model.proto.graph.node for name in node.output if name and name not in constant}


def _unknown(model: Model, layer: str, known: list[str], vgg: object) -> str:
    if layer in {value.name for value in model.proto.graph.input}:
        what = f"{layer!r} is an input of the model, no layer"
    elif layer in stored_constants(model):
        what = f"{layer!r} is a constant of the model, no layer"
    else:
        what = f"the model has no layer {layer!r}"
        if isinstance(vgg, NoVgg):
            what += f" (the names of the VGG literature do not apply: {vgg.reason})"
    near = list(dict.fromkeys([*_prefixed(layer, known), *difflib.get_close_matches(layer, known, _NEAR, 0.5)]))
    names = near[:_NEAR] or list(dict.fromkeys(known))[:_NEAR]
    return f"--layers: {what}; {'near names are' if near else 'it has, for example,'} {', '.join(names)}"


def _prefixed(layer: str, known: list[str]) -> list[str]:
    """Names that differ from a layer's in letter case only, or of which it is a part."""
    lower = layer.lower()
    return [name for name in known if name.lower() == lower] + [name for name in known if lower in name.lower()]
