"""Features and exports: small VGGs, damaged as other models are, cut to layers of theirs and exported."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper, parser

import onnxnorm
from tools.fuzz.models import MODEL, model_files
from tools.fuzz.mutations import pick
from tools.fuzz.target import Files, Target

__all__ = ["TARGET"]

_TEXT = """<ir_version: 8, opset_import: ["" : 17]> vgg (float[n, 3, 16, 16] x) => (float[n, 4] z) {
  k = Constant<value = float[4] {0.5, 1.0, -1.0, 0.25}>()
  a = Conv<pads=[1,1,1,1]>(x, wa, k) ra = Relu(a)
  i = Identity(k)
  b = Conv<pads=[1,1,1,1]>(ra, wb, i) rb = Relu(b)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(rb)
  q = Pad<mode="reflect">(p, pads)
  c = Conv(q, wb) rc = Relu(c)
  o = MaxPool<kernel_shape=[2,2], strides=[2,2]>(rc)
  f = Flatten(o)
  d = Gemm<transB=1>(f, wd, k) rd = Relu(d)
  e = Gemm<transB=1>(rd, we) re = Relu(e)
  z = Gemm(re, we, k)
}"""
_LAYERS = ("relu1_1", "conv1_2", "pool1", "relu2_1,fc6", "z", "ra,rd")
_LAYOUTS = ("names", "torchvision", "caffe", "keras", "adain")


@cache
def _seeds() -> dict[str, Files]:
    model, random = parser.parse_model(_TEXT), np.random.default_rng(0)
    shapes = {"wa": (4, 3, 3, 3), "wb": (4, 4, 3, 3), "wd": (4, 64), "we": (4, 4)}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"))
    return {"vgg": {MODEL: model.SerializeToString()}}


def _damage(random: np.random.Generator) -> Files:
    return model_files(random, _seeds()["vgg"])


def _read(folder: Path, random: np.random.Generator) -> object:
    path = folder / MODEL
    if random.integers(3):
        changes: dict[str, Any] = {
            "pool": pick(random, (None, None, "average")),
            "padding": pick(random, (None, None, "reflect")),
            "fold_preprocessing": pick(random, (None, None, "caffe")),
        }
        return onnxnorm.features(path, pick(random, _LAYERS), folder / "out.onnx", **changes)
    target = folder / f"out{pick(random, ('.safetensors', '.npz'))}"
    return onnxnorm.export(path, target, layout=pick(random, _LAYOUTS))


TARGET = Target("features", _seeds, _damage, _read)
