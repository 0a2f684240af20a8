"""Random graphs, with random scales and with real calibration.

`ONNXNORM_EXAMPLES=1000 pytest tests/test_random_graphs.py` runs more of them. Examples are the same in every run.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings

from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import rewrite_model
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import find_layers, make_plan, trace
from onnxnorm.statistics import Value
from onnxnorm.verification import verify_models
from tests.corpus import feeds
from tests.helpers.random_graphs import networks
from tests.helpers.scales_check import check_scales

EXAMPLES = int(os.environ.get("ONNXNORM_EXAMPLES", "70"))
RUNTIME = Runtime("cpu", threads=1)

settings.register_profile(
    "random graphs",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def scaled(examples: int) -> settings:
    return settings(settings.get_profile("random graphs"), max_examples=examples)


@scaled(EXAMPLES)
@given(networks())
def test_random_scales(proto: onnx.ModelProto) -> None:
    """Bit for bit with powers of two, whatever the batch that the walk sees."""
    given_batch = feeds(proto, 2)
    sample = {name: (1, *array.shape[1:]) for name, array in given_batch.items()}
    for outputs in ("keep", "scale"):
        check_scales(proto, given_batch, seed=len(proto.graph.node), outputs=outputs, shapes=sample)


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


@scaled(max(10, EXAMPLES // 3))
@given(networks())
def test_calibrated(proto: onnx.ModelProto) -> None:
    """Calibrated on random samples, rewritten and verified; measured again, free filters have mean 1."""
    model = Model.open(proto)
    samples = feeds(proto, 7, seed=1)
    statistics = calibrate_model(model, samples, CalibrationOptions(batch_size=4, provider=RUNTIME.provider))
    rewriting = rewrite_model(model, statistics)
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
