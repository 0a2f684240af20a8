"""What the verification must catch, and must accept, in every element type: right rewrites with one thing wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxnorm.model.files import Model
from onnxnorm.verification.widen import is_half, narrowest_type, widened
from tools.measurements.power import KINDS, MUTATIONS, Kind, network, subject, verdict

RECORDED = [kind for kind in KINDS if kind.recorded]
UNRECORDED = next(kind for kind in KINDS if not kind.recorded)
# What the output still shows where no record explains how constants were rounded.
COARSE = [name for name in MUTATIONS if "off by" not in name]


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("depth", [2, 8, 20])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_right_rewrite_passes(kind: Kind, depth: int, power_of_two: bool) -> None:
    pair = subject(kind, depth, 0, power_of_two=power_of_two)
    found = verdict(pair, pair.rewritten)
    assert found.same, str(found)
    assert found.compared_in == "float32"
    if kind.recorded:
        assert found.max_relative_error < 1e-5
    if power_of_two and kind.recorded:
        assert found.outputs["y"].bit_identical


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("kind", RECORDED, ids=lambda kind: kind.name)
def test_damage_is_caught(kind: Kind, name: str) -> None:
    pair = subject(kind, 8, 0)
    damaged = copied(pair.rewritten)
    MUTATIONS[name](pair, damaged)
    assert damaged != pair.rewritten
    found = verdict(pair, damaged)
    assert not found.same
    assert not found.rounding_only


@pytest.mark.parametrize("name", COARSE)
def test_damage_is_caught_without_a_record(name: str) -> None:
    pair = subject(UNRECORDED, 8, 0)
    damaged = copied(pair.rewritten)
    MUTATIONS[name](pair, damaged)
    assert not verdict(pair, damaged).same


@pytest.mark.parametrize("factor", [1.7, 1.4, 0.0])
@pytest.mark.parametrize("depth", [3, 10])
def test_half_precision_is_not_an_excuse(depth: int, factor: float) -> None:
    """The last weights times a factor, without any record: once called the same function."""
    pair = subject(UNRECORDED, depth, 1)
    damaged = copied(pair.rewritten)
    tensor = next(item for item in damaged.graph.initializer if item.name == f"w{depth - 1}")
    values = numpy_helper.to_array(tensor).copy()
    values[3] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    found = verdict(pair, damaged)
    assert not found.same
    assert "computed in float32" in str(found)


def test_rounding_and_range_are_named_and_the_way_out_with_them() -> None:
    """A rewrite that is right in float32 and refused as it runs, as where a value passes the end of float16."""
    pair = subject(KINDS[1], 4, 0)
    found = verdict(pair, pair.rewritten)
    refused = replace(found.comparisons["float16"]["y"], same=False, max_relative_error=0.25)
    comparisons = {**found.comparisons, "float16": {"y": refused}}
    found = replace(found, same=False, compared_in="float16", comparisons=comparisons)
    assert found.rounding_only
    assert "differs by 2.5e-01" in str(found)
    assert "in float32, so it is the rounding or the range of float16: --power-of-two rounds no constant" in str(found)


def test_what_the_runtime_cannot_run_is_said() -> None:
    """ONNX Runtime has no convolution in bfloat16 on the CPU: float32 alone decides, and the verdict says why."""
    pair = subject(KINDS[2], 4, 0)
    found = verdict(pair, pair.rewritten)
    assert list(found.comparisons) == ["float32"]
    assert found.not_compared is not None
    assert "not compared in bfloat16: ONNX Runtime rejects the model" in str(found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_widened_networks_have_no_half_types_left(kind: Kind) -> None:
    wide = Model.open(widened(Model.open(network(kind, 4, 0))))
    assert is_half(narrowest_type(Model.open(network(kind, 4, 0)))) == (kind.name != "float32")
    assert narrowest_type(wide) == np.float32
    onnx.checker.check_model(wide.to_proto(), full_check=True)
