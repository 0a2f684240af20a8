"""ONNX's own backend node tests as a source of operators: rewriting never changes what a node computes.

Each model is checked as it is, and with layers in front of its inputs whose output scales are free, so that scales
really flow through the operator: by a BatchNormalization along axis 1, or by a MatMul with the identity along one of
the last two axes. Inputs without such a layer become constants. Models that ONNX Runtime cannot run are passed over.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import find_layers, make_plan, trace
from tests.helpers.scales_check import Checked, check_scales

THOROUGH = int(os.environ.get("ONNXNORM_EXAMPLES", "0")) >= 1000
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
KINDS = ("axis 1", "last axis", "last axis but one")

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sample:
    """A model of one node (or of a function's body), and inputs for it."""

    name: str
    proto: onnx.ModelProto = field(repr=False)
    feeds: Feeds = field(repr=False)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    if tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 23):
        pytest.skip("before 1.23, onnx has no models of single nodes in memory")
    return list(_samples())


def _samples() -> Iterator[Sample]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test import loader

        cases = loader.load_model_tests(kind="node")
    for case in cases:
        if case.model is None or not case.data_sets:
            continue
        inputs, outputs = case.model.graph.input, case.model.graph.output
        if not all(info.type.HasField("tensor_type") for info in (*inputs, *outputs)):
            continue
        if not any(info.type.tensor_type.elem_type in FLOATS for info in inputs):
            continue
        names = [info.name for info in inputs]
        arrays = [np.asarray(array) for array in case.data_sets[0][0]]
        if all(array.dtype.kind not in "OSU" for array in arrays):
            yield Sample(case.name, case.model, dict(zip(names, arrays, strict=False)))


def behind_layers(sample: Sample, kind: str, *, every: bool) -> Sample | None:
    """The model with layers before its first input, or every input that takes one; what is left becomes constant."""
    proto = onnx.ModelProto()
    proto.CopyFrom(sample.proto)
    if "" not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid("", 18))
    inputs = list(proto.graph.input)
    layers: list[onnx.NodeProto] = []
    feeds: Feeds = {}
    del proto.graph.input[:]
    for info in inputs:
        array = sample.feeds[info.name]
        layer = None if layers and not every else _layer(proto, info, array, kind)
        if layer is None:
            proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), info.name))
            continue
        layers.append(layer)
        raw = proto.graph.input.add()
        raw.CopyFrom(info)
        raw.name = f"{info.name}_raw"
        feeds[raw.name] = array
    if not layers:
        return None
    nodes = [*layers, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return Sample(sample.name, proto, feeds)


def _layer(proto: onnx.ModelProto, info: onnx.ValueInfoProto, array: NDArray[Any], kind: str) -> onnx.NodeProto | None:
    """A layer that changes nothing, with free output scales along one axis, or None where it does not fit."""
    name, raw = info.name, f"{info.name}_raw"
    if info.type.tensor_type.elem_type not in {TensorProto.FLOAT, TensorProto.DOUBLE} or not np.isfinite(array).all():
        return None
    if array.size == 0 or array.ndim < (1 if kind == "last axis" else 2):
        return None

    def constant(suffix: str, values: NDArray[Any]) -> str:
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(array.dtype), name + suffix))
        return name + suffix

    if kind == "axis 1":
        ones, zeros = np.ones(array.shape[1]), np.zeros(array.shape[1])
        parameters = [constant(s, v) for s, v in (("_g", ones), ("_b", zeros), ("_m", zeros), ("_v", ones))]
        return helper.make_node("BatchNormalization", [raw, *parameters], [name], epsilon=0.0)
    size = array.shape[-1 if kind == "last axis" else -2]
    if size > 256:
        return None
    identity = constant("_i", np.eye(size))
    return helper.make_node("MatMul", [raw, identity] if kind == "last axis" else [identity, raw], [name])


def check(sample: Sample) -> Checked | None:
    """Check a model; None if ONNX Runtime does not run it, or not twice alike."""
    runtime = Runtime("cpu", threads=1)
    model = Model.open(sample.proto)
    walked = trace(read_graph(model, {name: array.shape for name, array in sample.feeds.items()}), "scale")
    make_plan(walked, find_layers(walked, "all")).to_json()
    try:
        first = runtime.session(model, optimize=False).run(sample.feeds)
    except ModelError:
        return None
    again = runtime.session(model, optimize=False).run(sample.feeds)
    if any(array.tobytes() != again[name].tobytes() for name, array in first.items()):
        return None  # random numbers
    types = {info.type.tensor_type.elem_type for info in sample.proto.graph.output}
    rtol = 1e-2 if types & {TensorProto.FLOAT16, TensorProto.BFLOAT16} else 1e-6
    return check_scales(sample.proto, sample.feeds, rtol=rtol, seed=len(sample.name))


def flows(checked: Checked) -> bool:
    """Whether an output came to be scaled."""
    ids = [checked.trace.ids[name] for name in checked.expected if name in checked.trace.ids]
    return any((checked.of_slot[array] != 1).any() for array in ids)


def run_all(samples: list[Sample]) -> tuple[Counter[str], set[str]]:
    """Check them all; returns what happened, and the operators that scales flowed through."""
    counts: Counter[str] = Counter()
    failed: list[str] = []
    scaled: set[str] = set()
    for sample in samples:
        try:
            checked = check(sample)
        except (AssertionError, Exception) as error:  # noqa: BLE001 - collected, and shown all together
            failed.append(f"{sample.name}: {type(error).__name__} {str(error).strip()[:300]}")
            continue
        counts["run" if checked else "not run"] += 1
        if checked and flows(checked):
            counts["scaled"] += 1
            scaled.update(node.op_type for node in sample.proto.graph.node)
    assert not failed, "\n".join(failed)
    return counts, scaled


def test_nodes_as_they_are(samples: list[Sample]) -> None:
    chosen = samples if THOROUGH else samples[::3]
    counts, _ = run_all(chosen)
    assert counts["run"] > 0.7 * len(chosen), counts


@pytest.mark.parametrize("every", [False, True], ids=["first input", "every input"])
def test_nodes_behind_layers(samples: list[Sample], every: bool) -> None:
    plain = [sample for sample in samples if "expanded" not in sample.name]
    layered = []
    for index, sample in enumerate(plain):
        kinds = KINDS if THOROUGH else [KINDS[(index + every) % len(KINDS)]] if index % 2 == every else []
        layered += [behind_layers(sample, kind, every=every) for kind in kinds]
    chosen = [sample for sample in layered if sample is not None]
    counts, scaled = run_all(chosen)
    assert counts["run"] > 0.7 * len(chosen), counts
    assert counts["scaled"] > 0.25 * len(chosen), counts
    assert len(scaled) > 30
