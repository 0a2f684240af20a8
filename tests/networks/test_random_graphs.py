"""Random graphs, with random scales and with real calibration.

`ONNXNORM_EXAMPLES=1000 pytest tests/networks/test_random_graphs.py` runs more of them. Examples are the same
in every run.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import restore_model, rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.read_back import read_back
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import find_layers, make_plan, trace
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.statistics import Value
from onnxnorm.verification import verify_models
from tests.corpus import feeds
from tests.helpers.draws import Drawn
from tests.helpers.draws.check import check_drawn, run_if_legal
from tests.helpers.random_graphs import networks

EXAMPLES = int(os.environ.get("ONNXNORM_EXAMPLES", "70"))
RUNTIME = Runtime("cpu", threads=1)
OTHER_SIZES = ((1, 12, 8), (2, 7, 9), (1, 16, 6))

settings.register_profile(
    "random graphs",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def scaled(examples: int) -> settings:
    return settings(settings.get_profile("random graphs"), max_examples=examples)


def at_sizes(proto: onnx.ModelProto) -> list[dict[str, NDArray[Any]]]:
    """Inputs for the calibrated sizes, then for other batches, and other sizes where these are open."""
    found = [feeds(proto, 1), feeds(proto, 2, 1), feeds(proto, 3, 2)]
    if proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param:
        channels, random = found[0]["x"].shape[1], np.random.default_rng(3)
        for batch, height, width in OTHER_SIZES:
            found.append({"x": random.normal(0.3, 1, (batch, channels, height, width)).astype(np.float32)})
    return found


@scaled(EXAMPLES)
@given(networks())
def test_random_scales(proto: onnx.ModelProto) -> None:
    """Bit for bit with powers of two, at every level, and at all sizes that the network takes."""
    drawn = Drawn(proto, at_sizes(proto), tuple(node.op_type for node in proto.graph.node), inexact=False)
    report = check_drawn(drawn, seed=len(proto.graph.node))
    assert report.sizes >= 2


@scaled(max(10, EXAMPLES // 2))
@given(networks())
def test_batch_size_does_not_matter(proto: onnx.ModelProto) -> None:
    found = []
    for batch in (1, 3):
        walked = trace(read_graph(Model.open(proto), {"x": feeds(proto, batch)["x"].shape}))
        numbers: dict[int, int] = {}
        slots = np.concatenate([layer.slots for layer in find_layers(walked)])
        of = walked.groups.of[slots].tolist()
        found.append([(numbers.setdefault(g, len(numbers)), bool(walked.groups.pinned[g] >= 0)) for g in of])
    assert found[0] == found[1]


@scaled(max(10, EXAMPLES // 2))
@given(networks(), st.sampled_from(LEVELS), st.booleans())
def test_rewritten(proto: onnx.ModelProto, level: Level, power_of_two: bool) -> None:
    """The rewrite at every level: the same function, read back, and undone; with powers of two the same bits."""
    model = Model.open(proto)
    statistics = calibrate_model(model, feeds(proto, 5, seed=1), CalibrationOptions(batch_size=5, provider="cpu"))
    done = rewrite_model(model, statistics, ScaleOptions(allow=level, power_of_two=power_of_two))
    before, after = (RUNTIME.session(one, optimize=False) for one in (model, done.model))
    sizes = [(feed, outputs) for feed in at_sizes(proto) if (outputs := run_if_legal(before, feed)) is not None]
    for feed, outputs in sizes if power_of_two else []:
        for name, array in after.run(feed).items():
            np.testing.assert_array_equal(array, outputs[name], err_msg=name)
    verdict = verify_models(model, done.model, [feed for feed, _ in sizes], runtime=RUNTIME)
    assert verdict.same, verdict
    found = read_back(model, done.model, statistics.shapes)
    for layer, again in zip(done.scales.layers, found.layers("conv"), strict=True):
        np.testing.assert_allclose(found.of_slot[again.slots], layer.scale, rtol=1e-5)
    restored = restore_model(done.model)
    assert [node.name for node in restored.model.proto.graph.node] == [node.name for node in proto.graph.node]
    if power_of_two:
        assert restored.same
        assert restored.model.to_proto() == proto


def _has_bfloat16(proto: onnx.ModelProto) -> bool:
    constants = [attribute.t for node in proto.graph.node for attribute in node.attribute if attribute.HasField("t")]
    return any(tensor.data_type == onnx.TensorProto.BFLOAT16 for tensor in (*constants, *proto.graph.initializer))


@scaled(max(10, EXAMPLES // 3))
@given(networks())
def test_calibrated(proto: onnx.ModelProto) -> None:
    """Calibrated on random samples, rewritten and verified; measured again, free filters have mean 1.

    Powers of two where weights are bfloat16: others would round these to 8 bits, and signed means of products cancel.
    """
    model = Model.open(proto)
    samples = feeds(proto, 7, seed=1)
    statistics = calibrate_model(model, samples, CalibrationOptions(batch_size=4, provider=RUNTIME.provider))
    rewriting = rewrite_model(model, statistics, ScaleOptions(power_of_two=_has_bfloat16(proto)))
    verdict = verify_models(model, rewriting.model, [feeds(proto, 2, seed) for seed in (1, 2)], runtime=RUNTIME)
    assert verdict.same, verdict
    assert verdict.graph_identical is not bool(rewriting.clones)
    plan = rewriting.plan
    assert plan.free + plan.tied + plan.pinned == plan.filters
    again = calibrate_model(rewriting.model, samples, CalibrationOptions(batch_size=4, provider=RUNTIME.provider))
    tolerance = max(1e-4, 10 * verdict.max_relative_error)
    for layer in rewriting.scales.layers:
        mean = again.values[Value(layer.layer.site.value, layer.layer.site.measure)].mean
        floor = tolerance * float(np.abs(layer.after).max(initial=0.0))
        np.testing.assert_allclose(mean, layer.after, rtol=tolerance, atol=floor)
    check = make_plan(trace(read_graph(model, statistics.shapes)), [layer.layer for layer in rewriting.scales.layers])
    assert (check.free, check.tied, check.pinned) == (plan.free, plan.tied, plan.pinned)
