"""Make networks whose values pass 65504, from the exported ones: the layers that write a residual stream get louder.

    build/torch/bin/python -m tools.networks.export vae_decoder nafnet ddpm_unet convnext_t
    python -m tools.networks.loud --from build/networks --into build/loud

Each `NAME.onnx` becomes `NAME.onnx` in another folder, and its samples, `NAME.npz`, are copied. What is multiplied are
the weights and biases of the layers that write a residual stream and read something that a norm has brought to size, so
that one factor does not follow another. LayerNormalizations become the nodes that exporters write for them before opset
17, with the square inside.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["LOUD", "Loud", "decomposed", "made_loud", "main"]


@dataclass(frozen=True)
class Loud:
    """A network that is made louder: which constants are multiplied, by what, and whether norms are written out."""

    pattern: str
    factor: float
    written_out: bool = False


LOUD = {
    "vae_decoder": Loud(r"conv2\.(weight|bias)|conv_in\.(weight|bias)", 20000),
    "nafnet": Loud(r"(out|feed\.3|first)\.(weight|bias)|beta|gamma", 30),
    "ddpm_unet": Loud(r"conv2\.(weight|bias)|conv_in\.(weight|bias)|to_out\.0\.bias", 20000),
    "convnext_t": Loud(r"layer_scale|features\.0\.1\.(weight|bias)", 30000, written_out=True),
}


def made_loud(proto: onnx.ModelProto, loud: Loud) -> onnx.ModelProto:
    """A louder copy of a network. Raises ValueError if it has no such constants."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    names = 0
    for tensor in made.graph.initializer:
        if re.search(loud.pattern, tensor.name) and tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor) * np.float32(loud.factor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            names += 1
    if not names:
        raise ValueError(f"no constant is called like {loud.pattern!r}; export the network again")
    return decomposed(made) if loud.written_out else made


def decomposed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The network with each LayerNormalization over the last axis as the nodes that it stands for."""
    nodes = []
    for index, node in enumerate(proto.graph.node):
        nodes += _written_out(proto, node, index) if node.op_type == "LayerNormalization" else [node]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return proto


def _written_out(proto: onnx.ModelProto, node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    stem = f"norm_{index}"
    for name, value in (("two", 2.0), ("epsilon", epsilon)):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), f"{stem}.{name}"))
    source, scale, shift = node.input

    def step(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op, inputs, [output], name=output, **attributes)

    return [
        step("ReduceMean", [source], f"{stem}.mean", axes=[-1]),
        step("Sub", [source, f"{stem}.mean"], f"{stem}.centred"),
        step("Pow", [f"{stem}.centred", f"{stem}.two"], f"{stem}.square"),
        step("ReduceMean", [f"{stem}.square"], f"{stem}.variance", axes=[-1]),
        step("Add", [f"{stem}.variance", f"{stem}.epsilon"], f"{stem}.guarded"),
        step("Sqrt", [f"{stem}.guarded"], f"{stem}.deviation"),
        step("Div", [f"{stem}.centred", f"{stem}.deviation"], f"{stem}.normal"),
        step("Mul", [f"{stem}.normal", scale], f"{stem}.scaled"),
        step("Add", [f"{stem}.scaled", shift], node.output[0]),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Make the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(LOUD)}; default: all")
    default = "(default: %(default)s)"
    parser.add_argument("--from", dest="source", type=Path, default=Path("build/networks"), help=default)
    parser.add_argument("--into", type=Path, default=Path("build/loud"), help=default)
    given = parser.parse_args(arguments)
    given.into.mkdir(parents=True, exist_ok=True)
    for name in given.names or LOUD:
        onnx.save(made_loud(onnx.load(given.source / f"{name}.onnx"), LOUD[name]), given.into / f"{name}.onnx")
        shutil.copyfile(given.source / f"{name}.npz", given.into / f"{name}.npz")
        print(f"{given.into / name}.onnx")
    return 0


if __name__ == "__main__":
    sys.exit(main())
