"""What is done to an exported model before it is rewritten; this needs no PyTorch."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import parser

import onnxnorm
from onnxnorm.errors import OptionError
from onnxnorm.model.constants import REPLACEABLE
from onnxnorm.torch.holding import hold, hold_attributes, separate_copies
from onnxnorm.torch.installed import exporters, load_torch

CLIPPED = """<ir_version: 8, opset_import: ["" : 17]>
clipped (float[b, 1, 4, 4] x) => (float[b, 1, 4, 4] y)
<float[1, 1, 1, 1] first = {2}, float[1, 1, 1, 1] second = {3}> {
   low = Constant <value_float = 0.0> ()
   high = Constant <value = float {6}> ()
   a = Conv (x, first)
   b = Clip (a, low, high)
   y = Conv (b, second)
}"""

COPIED = """<ir_version: 8, opset_import: ["" : 17]>
copied (float[b, 1, 4, 4] x) => (float[b, 1, 4, 4] y, float[1, 1, 1, 1] z)
<float[1, 1, 1, 1] first = {2}> {
   second = Identity (first)
   third = Identity (second)
   z = Identity (first)
   other = Identity (first)
   a = Conv (x, second)
   b = Conv (a, other)
   y = Conv (b, third)
}"""


def parsed(text: str) -> onnx.ModelProto:
    model: onnx.ModelProto = parser.parse_model(text)
    return model


def test_held_constants_keep_their_values_and_the_barrier_is_told() -> None:
    model = parsed(CLIPPED)
    assert onnxnorm.plan(model).to_json()["free"] == 1
    before = [(tensor.name, len(tensor.raw_data)) for tensor in model.graph.initializer]
    hold(model, {"high"})
    onnx.checker.check_model(model)
    plan = onnxnorm.plan(model)
    assert plan.to_json()["pinned"] == 2
    assert any(REPLACEABLE in barrier.reason for barrier in plan.barriers)
    assert [tensor.name for tensor in model.graph.initializer] == [*(name for name, _ in before), "high"]
    hold(model, {"high"})
    assert [value.name for value in model.graph.input] == ["x", "high"]


def test_a_held_model_is_the_same_function() -> None:
    model, held = parsed(CLIPPED), parsed(CLIPPED)
    hold(held, {"low", "high", "second"})
    assert onnxnorm.verify(model, held).bit_identical


def test_parameters_that_an_exporter_merged_are_apart_again() -> None:
    model = parsed(COPIED)
    separate_copies(model, {"first", "second", "third", "z"})
    onnx.checker.check_model(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["first", "second", "third"]
    assert [node.output[0] for node in model.graph.node] == ["z", "other", "a", "b", "y"]
    assert onnxnorm.verify(parsed(COPIED), model).bit_identical


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(OptionError, match=r"needs PyTorch .* pip install 'onnxnorm\[torch\]'"):
        load_torch()
    with pytest.raises(OptionError, match="needs PyTorch"):
        onnxnorm.torch.normalize_(object(), np.zeros((1, 3, 8, 8), np.float32))


def test_exporters_are_chosen_by_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="exporter 'jit' is unknown; choose one of dynamo, torchscript"):
        exporters("jit")
    monkeypatch.setattr("onnxnorm.torch.installed.find_spec", lambda name: None)
    assert exporters(None) == ("torchscript",)
    assert exporters("torchscript") == ("torchscript",)
    with pytest.raises(OptionError, match=r"needs onnxscript; install it"):
        exporters("dynamo")
    monkeypatch.setattr("onnxnorm.torch.installed.find_spec", lambda name: object())
    assert exporters(None) == ("dynamo", "torchscript")


def test_a_star_import_does_not_hide_pytorch() -> None:
    assert "torch" not in onnxnorm.__all__
    assert onnxnorm.torch.__name__ == "onnxnorm.torch"


NORMED = """<ir_version: 8, opset_import: ["" : 17]>
normed (float[b, 1, 4, 4] x) => (float[b, 1, 4, 4] y)
<float[1, 1, 1, 1] w = {2}, float[4] one = {1, 1, 1, 1}> {
   a = Conv (x, w)
   b = Relu (a)
   y = LayerNormalization (b, one)
}"""


def test_held_attributes_keep_their_values() -> None:
    model = parsed(NORMED)
    assert onnxnorm.plan(model, allow="attributes").to_json()["free"] == 1
    hold_attributes(model, {"y"})
    plan = onnxnorm.plan(model, allow="attributes").to_json()
    assert plan["free"] == 0
    assert "an attribute, so the input keeps its scale" in plan["barriers"][0]["reason"]
