"""Functions of a model's own, written out where they are called.

Scales are not followed into functions, so one that holds a layer would keep its filters as they are. A model with such
a function is planned, measured and rewritten with its functions inlined, by ONNX's own inliner. All but those which
claim the name of an ONNX operator: which of the two is meant is up to the runtime.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import inliner

from onnxnorm.model.boundary import model_errors
from onnxnorm.model.containers import containers
from onnxnorm.model.files import Model

__all__ = ["inlined"]

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_STANDARD = {"", "ai.onnx"}


def inlined(model: Model) -> Model:
    """The model with its own functions inlined if one of them holds a layer, else the model itself.

    Its digest stays that of the model as it was. Raises ModelError if ONNX's inliner refuses the model.
    """
    own = [function for function in model.proto.functions if function.domain not in _STANDARD]
    if model.inlined or not any(_holds_layers(function) for function in own):
        return model
    kept = [(f.domain, f.name) for f in model.proto.functions if f.domain in _STANDARD]
    calling = onnx.ModelProto()
    calling.CopyFrom(model.proto)
    _state_defaults(calling)
    with model_errors("the functions of the model's own"):
        proto = inliner.inline_selected_functions(calling, kept, exclude=True)
    return replace(model, proto=proto, inlined=len(own), source_digest=model.digest(), source=model.proto)


def _state_defaults(proto: onnx.ModelProto) -> None:
    """Give every call the attributes that it leaves to the defaults of its function, which the inliner forgets."""
    defaults = {(function.domain, function.name): function.attribute_proto for function in proto.functions}
    for container in containers(proto.graph, *proto.functions):
        for node in container.node:
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(a for a in defaults.get((node.domain, node.op_type), ()) if a.name not in given)


def _holds_layers(function: onnx.FunctionProto) -> bool:
    return any(node.op_type in _LAYERS for container in containers(function) for node in container.node)
