"""Numbers in attributes that follow scales, operator by operator, through ONNX Runtime.

At the level `attributes`, powers of two leave the same bits, and other scales the same numbers up to rounding. The twin
of each case is the level `constants`, at which the operator keeps its input at scale 1, for a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest

from onnxnorm.model.files import Model
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.levels import LEVELS, Level
from tests.helpers.graphs import between, feeds, rand
from tests.helpers.law_checks import RUNTIME, holds, refused
from tests.helpers.scales_check import Checked, check_outputs

EPS = float(np.finfo(np.float32).eps)
ROUNDING = 32 * EPS
"""A handful of operations after one another, and sums of some ten products, in float32."""
STATISTIC = "it divides by a statistic of its input with an epsilon"
CURVE = "scaling its input does not just scale its output, since alpha is an attribute"


@dataclass(frozen=True)
class Follows:
    """An operator between `a` and `b`, how many free scales they have at the level `attributes`, and its twin.

    Attributes:
        body: the node.
        numbers: names of the attributes that follow.
        a: free scales of `a`, where attributes may change.
        b: free scales of `b`, where attributes may change.
        reason: why `a` is pinned where they may not change.
        kept: free scales of `b` there.
        constants: the constants that the node reads.
        shape: shape of `a`.
        opset: the opset.
    """

    body: str
    numbers: tuple[str, ...]
    a: int
    b: int
    reason: str
    kept: int = 0
    constants: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 4, 6, 6)
    opset: int = 21

    def build(self) -> onnx.ModelProto:
        """The operator behind a layer; `b` is an output."""
        return between(self.body, self.shape, self.constants, opset=self.opset, tail="none")


def per_channel(size: int = 4) -> dict[str, Any]:
    return {"g": rand(size, seed=1), "s": rand(size, seed=2)}


def statistics() -> dict[str, Any]:
    return per_channel() | {"m": rand(4, seed=3), "v": np.abs(rand(4, seed=4)) + np.float32(0.1)}


NORM: dict[str, Any] = {"numbers": ("epsilon",), "a": 1, "reason": STATISTIC}
ONE: dict[str, Any] = {"a": 1, "b": 1}
CASES = {
    "instance": Follows(
        "b = InstanceNormalization<epsilon=0.25>(a, g, s)", b=4, kept=4, constants=per_channel(), **NORM
    ),
    "instance, epsilon by default": Follows(
        "b = InstanceNormalization(a, g, s)", b=4, kept=4, constants=per_channel(), opset=7, **NORM
    ),
    "group": Follows(
        "b = GroupNormalization<num_groups=2, epsilon=0.25>(a, g, s)", b=4, kept=4, constants=per_channel(), **NORM
    ),
    "group, opset 18": Follows(
        "b = GroupNormalization<num_groups=2, epsilon=0.25>(a, g, s)",
        b=2,
        kept=2,
        constants=per_channel(2),
        opset=18,
        **NORM,
    ),
    "layer": Follows(
        "b = LayerNormalization<epsilon=0.25>(a, g, s)", b=4, kept=4, constants=per_channel(), shape=(2, 4), **NORM
    ),
    "layer, three axes": Follows(
        "b = LayerNormalization<axis=1, epsilon=0.25>(a, g)",
        b=4 * 6 * 6,
        kept=4 * 6 * 6,
        constants={"g": rand(4, 6, 6)},
        **NORM,
    ),
    "rms": Follows(
        "b = RMSNormalization<epsilon=0.25>(a, g)",
        b=4,
        kept=4,
        constants={"g": rand(4)},
        shape=(2, 4),
        opset=23,
        **NORM,
    ),
    "batch, in training mode": Follows(
        "b, p, q = BatchNormalization<training_mode=1, epsilon=0.25>(a, g, s, m, v)",
        ("epsilon",),
        a=1,
        b=4,
        reason="it normalizes by the batch",
        kept=4,
        constants=statistics(),
        opset=15,
    ),
    "local response": Follows(
        "b = LRN<size=3, alpha=0.5, beta=0.75, bias=2.0>(a)", ("alpha",), reason="alpha, which is an attribute", **ONE
    ),
    "hard sigmoid": Follows("b = HardSigmoid<alpha=0.3, beta=0.4>(a)", ("alpha",), a=1, b=0, reason=CURVE),
    "hard sigmoid by default": Follows("b = HardSigmoid(a)", ("alpha",), a=1, b=0, reason=CURVE, opset=7),
    "thresholded relu": Follows(
        "b = ThresholdedRelu<alpha=0.5>(a)", ("alpha",), reason="its threshold 0.5 is not 0, and an attribute", **ONE
    ),
    "celu": Follows("b = Celu<alpha=0.7>(a)", ("alpha",), reason="it bends at alpha, which is an attribute", **ONE),
    "shrink": Follows(
        "b = Shrink<lambd=0.5, bias=0.25>(a)",
        ("lambd", "bias"),
        reason="it shrinks by lambd and bias, which are attributes",
        **ONE,
    ),
    "swish": Follows("b = Swish<alpha=0.7>(a)", ("alpha",), reason=CURVE, opset=24, **ONE),
    "clip, opset 10": Follows(
        "b = Clip<min=-0.25, max=0.75>(a)", ("min", "max"), reason="its bounds are attributes", opset=10, **ONE
    ),
    "clip, opset 10, one bound": Follows(
        "b = Clip<min=0.0, max=0.75>(a)", ("max",), reason="its bounds are attributes", opset=10, **ONE
    ),
}
SINCE = {"swish": pytest.mark.skipif(RUNTIME < (1, 24), reason="ONNX Runtime runs this operator from 1.24 on")}
every_case = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=SINCE.get(name, ())) for name, case in CASES.items()]
)


def changed(checked: Checked, proto: onnx.ModelProto) -> set[str]:
    """Names of the attributes that are not as before."""
    before = {a.name: a.f for node in proto.graph.node for a in node.attribute}
    after = {a.name: a.f for node in checked.rewritten.proto.graph.node for a in node.attribute}
    return {name for name, number in after.items() if before.get(name) != number}


@every_case
@pytest.mark.parametrize("seed", [0, 1])
def test_powers_of_two_leave_the_same_bits(case: Follows, seed: int) -> None:
    proto = case.build()
    checked = holds(proto, {"a": case.a, "b": case.b}, seed=seed, level="attributes")
    assert changed(checked, proto) == set(case.numbers)


@every_case
@pytest.mark.parametrize("seed", [0, 1])
def test_other_scales_leave_the_same_numbers(case: Follows, seed: int) -> None:
    proto = case.build()
    scales = {"a": case.a, "b": case.b}
    checked = holds(proto, scales, seed=seed, level="attributes", power_of_two=False, rtol=ROUNDING)
    assert changed(checked, proto) == set(case.numbers)


@every_case
def test_where_attributes_stay_the_input_keeps_its_scale(case: Follows) -> None:
    proto = case.build()
    checked = refused(proto, case.reason)
    assert not changed(checked, proto)
    holds(proto, {"a": 0, "b": case.kept})


@every_case
def test_an_attribute_that_does_not_follow_is_seen(case: Follows) -> None:
    """The comparison can fail: with the attributes of the original, the rewritten network is another one."""
    proto = case.build()
    checked = holds(proto, level="attributes")
    broken = checked.rewritten.to_proto()
    for node, original in zip(broken.graph.node, proto.graph.node, strict=True):
        node.CopyFrom(original)
    got = Runtime("cpu", threads=1).session(Model.open(broken), optimize=False).run(feeds(proto))
    with pytest.raises(AssertionError):
        check_outputs(checked.trace, checked.of_slot, checked.expected, got)


@pytest.mark.parametrize(("level", "free"), [("constants", 0), ("attributes", 1)])
def test_running_statistics_follow_the_input(level: Level, free: int) -> None:
    """The mean has the scale of the input, the variance its square. Where the input keeps its scale, so do they."""
    body = "b, p, q = BatchNormalization<training_mode=1, epsilon=0.25, momentum=0.75>(a, g, s, m, v)"
    proto = between(body, constants=statistics(), opset=15, tail="none", outputs=["p", "q"])
    scales = {"a": free, "b": 4, "p": free, "q": free}
    holds(proto, scales, level=level)
    checked = holds(proto, scales, level=level, power_of_two=False, rtol=ROUNDING)
    one, mean, variance = (float(checked.of_slot[checked.trace.ids[name]].flat[0]) for name in ("a", "p", "q"))
    assert mean == pytest.approx(one)
    assert variance == pytest.approx(one**2)
    assert (one != 1) == bool(free)


@pytest.mark.parametrize(("level", "free"), [("constants", 0), ("attributes", 1)])
def test_statistics_of_a_layer_normalization_follow_the_input(level: Level, free: int) -> None:
    """The mean has the scale of the input, and the inverse deviation its inverse."""
    body = "b, mean, inverse = LayerNormalization<epsilon=0.25>(a, g, s)"
    proto = between(body, (2, 4), per_channel(), tail="none", outputs=["mean", "inverse"])
    scales = {"a": free, "b": 4, "mean": free, "inverse": free}
    holds(proto, scales, level=level)
    checked = holds(proto, scales, level=level, power_of_two=False, rtol=ROUNDING)
    if not free:
        assert checked.reasons("mean") == ["it is a statistic of an input that keeps its scale"]


def test_lp_normalization_needs_no_attribute() -> None:
    """It divides by a norm without an epsilon, so one scale along the axis passes at every level."""
    proto = between("b = LpNormalization<axis=1>(a)", tail="none")
    for level in LEVELS:
        holds(proto, {"a": 1, "b": 0}, level=level)
        checked = holds(proto, {"a": 1, "b": 0}, level=level, power_of_two=False, rtol=ROUNDING)
        assert checked.reasons("b") == ["it does not depend on the scale of its input"]


@pytest.mark.parametrize("level", LEVELS)
def test_mean_variance_normalization_keeps_its_input_at_every_level(level: Level) -> None:
    """What it adds to the standard deviation is no attribute, so nothing can follow."""
    checked = refused(between("b = MeanVarianceNormalization(a)", tail="none"), "it adds 1e-9 to the", level=level)
    assert checked.pinned("b")


def test_a_clip_without_bounds_that_bind_needs_no_attribute() -> None:
    proto = between("b = Clip<min=0.0>(a)", opset=10, tail="none")
    for level in LEVELS:
        assert not changed(holds(proto, {"a": 4, "b": 4}, level=level), proto)
