"""The levels of freedom on whole networks: the same function, every filter at its target, and the original back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxnorm
from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.rewriting import Rewriting, restore_model, rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.reach import reach_of
from onnxnorm.rewriting.read_back import read_back
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.verification import verify_models
from tests.corpus import CASES, Case, feeds
from tests.helpers.corpus_statistics import calibrated
from tests.helpers.graphs import between, model, rand

RUNTIME = Runtime("cpu", threads=1)
UNSHAPED = {"custom_domain_of_unknown_shape", "convolutions_of_unknown_shape", "sparse_weight"}
RUNNING = {name: case for name, case in CASES.items() if case.runs}
running_case = pytest.mark.parametrize("case", RUNNING.values(), ids=list(RUNNING))


def rewritten(case: Case, level: Level, *, power_of_two: bool = False) -> tuple[Model, Rewriting]:
    original = Model.open(case.build())
    options = ScaleOptions(allow=level, power_of_two=power_of_two, filters=case.filters)
    return original, rewrite_model(original, calibrated(original, case), options)


@running_case
def test_the_levels_that_are_advised_after_a_rewrite_are_those_of_the_plan(case: Case) -> None:
    """They are found on the rewritten model, whose constants differ; the plan is of the original."""
    levels = onnxnorm.plan(case.build(), calibrated(Model.open(case.build()), case)).levels
    for level in ("constants", "attributes"):
        advice = reach_of(rewritten(case, level)[1], levels=True).advice
        named = [int(count.replace(",", "")) for count in re.findall(r"with --allow [a-z]+ ([\d,]*\d)", advice)]
        exact = [levels[name].exact for name in LEVELS[LEVELS.index(level) :]]
        gained = [count for count, before in zip(exact[1:], exact[:-1], strict=True) if count > before]
        assert named == ([] if advice.startswith("--outputs") else gained), (level, advice)


def activations(rewriting: Rewriting, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values at which filters are measured, as the rewritten network computes them."""
    proto = rewriting.model.to_proto()
    sites = {layer.layer.site.value for layer in rewriting.scales.layers}
    names = {site: rewriting.insertion.renamed.get(site, site) for site in sites}
    known = {value.name for value in proto.graph.output}
    for name in sorted(set(names.values()) - known):
        proto.graph.output.append(onnx.ValueInfoProto(name=name))
    values = RUNTIME.session(proto, optimize=False).run(given)
    return {site: values[name] for site, name in names.items()}


@running_case
def test_every_filter_ends_at_the_target(case: Case) -> None:
    """Measured again, from the raw activations of the rewritten network."""
    original, done = rewritten(case, "nodes")
    verdict = verify_models(original, done.model, [feeds(original.proto, 2, seed) for seed in (0, 1)], runtime=RUNTIME)
    assert verdict.same, verdict
    reach = reach_of(done)
    assert reach.share == 1 or case.name in UNSHAPED or done.scales.limited
    if case.name == "fixed_batch":
        return
    given = feeds(original.proto, 9)
    batches = [{name: array[k : k + 4] for name, array in given.items()} for k in (0, 4, 8)]  # as they were calibrated
    parts = [activations(done, batch) for batch in batches]
    for layer in done.scales.layers:
        site = layer.layer.site
        value = np.concatenate([values[site.value] for values in parts], axis=site.batch).astype(np.float64)
        value = np.abs(value) if site.measure == "mean_abs" else value
        means = np.moveaxis(value, site.axis, 0).reshape(layer.layer.channels, -1).mean(axis=1)
        np.testing.assert_allclose(means, layer.after, rtol=4e-3 if case.rtol > 1e-3 else 1e-4, atol=1e-6)


@running_case
@pytest.mark.parametrize("level", LEVELS[1:])
def test_powers_of_two_keep_the_bits_and_are_undone(case: Case, level: Level) -> None:
    original, done = rewritten(case, level, power_of_two=True)
    for seed in (0, 1):
        given = feeds(original.proto, 2, seed)
        before = RUNTIME.session(original, optimize=False).run(given)
        after = RUNTIME.session(done.model, optimize=False).run(given)
        for name, array in before.items():
            if not case.rtol:
                np.testing.assert_array_equal(after[name], array)
    restored = restore_model(done.model)
    assert restored.same
    assert restored.model.to_proto() == original.to_proto()


@running_case
@pytest.mark.parametrize("level", LEVELS)
def test_scales_are_read_back(case: Case, level: Level) -> None:
    original, done = rewritten(case, level)
    found = read_back(original, done.model, calibrated(original, case).shapes)
    for layer, again in zip(done.scales.layers, found.layers(case.filters), strict=True):
        np.testing.assert_allclose(found.of_slot[again.slots], layer.scale, rtol=1e-6)


@running_case
def test_graphs_are_legal(case: Case) -> None:
    _, done = rewritten(case, "nodes")
    if case.legal:
        onnx.checker.check_model(done.model.to_proto(), full_check=case.name not in UNSHAPED)
    added = {node.name for node in done.model.proto.graph.node} - {node.name for node in case.build().graph.node}
    assert all(name.startswith("onnxnorm_") for name in added)


def test_a_model_that_needs_nothing_stays_the_same_graph() -> None:
    original, done = rewritten(CASES["chain"] if "chain" in CASES else next(iter(RUNNING.values())), "attributes")
    verdict = verify_models(original, done.model, [feeds(original.proto, 2)], runtime=RUNTIME)
    assert (verdict.graph_identical, verdict.attributes_changed, verdict.nodes_added) == (True, 0, 0)


def normalized(body: str, level: Level, **options: object) -> tuple[Model, Rewriting]:
    original = Model.open(between(body, **options))  # type: ignore[arg-type]
    statistics = calibrate_model(original, {"x": rand(16, 3, 6, 6)}, CalibrationOptions(provider="cpu"))
    return original, rewrite_model(original, statistics, ScaleOptions(allow=level))


def test_an_epsilon_follows_at_the_level_attributes() -> None:
    body = "b = InstanceNormalization<epsilon=0.01>(a, g, k)"
    constants = {"g": rand(4), "k": rand(4, seed=1)}
    original, done = normalized(body, "attributes", constants=constants)
    assert done.attributes_changed == 1
    (epsilon,) = (a.f for node in done.model.proto.graph.node for a in node.attribute if a.name == "epsilon")
    scale = done.scales.of_slot[done.trace.ids["a"]].reshape(-1)
    assert epsilon == pytest.approx(0.01 * float(scale[0]) ** 2, rel=1e-6)
    verdict = verify_models(original, done.model, [{"x": rand(2, 3, 6, 6, seed=2)}], runtime=RUNTIME)
    assert verdict.same
    assert (verdict.graph_identical, verdict.attributes_changed, verdict.nodes_added) == (False, 1, 0)
    assert verdict.graph == "the same but for constants' values and 1 other attribute"


def test_an_attribute_that_was_absent_is_absent_again() -> None:
    _, done = normalized("b = ThresholdedRelu(a)", "attributes")
    assert any(a.name == "alpha" for node in done.model.proto.graph.node for a in node.attribute)
    restored = restore_model(done.model)
    assert not any(a.name == "alpha" for node in restored.model.proto.graph.node for a in node.attribute)


def test_at_the_level_constants_attributes_stay() -> None:
    _, done = normalized("b = HardSigmoid(a)", "constants")
    assert done.attributes_changed == 0
    assert done.model.proto.graph.node == between("b = HardSigmoid(a)").graph.node


def test_nodes_are_counted_and_told() -> None:
    original, done = normalized("s = Sigmoid(a) \n b = Mul(a, s)", "nodes")
    verdict = verify_models(original, done.model, [{"x": rand(2, 3, 6, 6, seed=k)} for k in range(3)], runtime=RUNTIME)
    assert verdict.nodes_added == done.nodes_added == 2
    assert verdict.graph == "the same but for constants' values and 2 nodes more"
    assert verdict.time_ratio is not None
    assert 0 < done.touched < 1


def test_a_damaged_record_of_nodes_is_refused() -> None:
    _, done = normalized("s = Sigmoid(a) \n b = Mul(a, s)", "nodes")
    proto = done.model.to_proto()
    proto.graph.node[-1].name = "other"
    with pytest.raises(ModelError, match="does not fit the model"):
        restore_model(Model.open(proto))


def test_bridges_in_half_precision(tmp_path: Path) -> None:
    """The factors are rounded to float16, and the verification knows what they were."""
    body = "a = Conv(x, w) \n s = Sigmoid(a) \n r = Mul(a, s) \n z = Conv(r, v)"
    constants = {"w": rand(4, 3, 3, 3, dtype=np.float16), "v": rand(2, 4, 1, 1, dtype=np.float16)}
    original = Model.open(model(body, {"x": ("n", 3, 8, 8)}, constants, dtype=onnx.TensorProto.FLOAT16))
    statistics = calibrate_model(
        original, {"x": rand(8, 3, 8, 8, dtype=np.float16)}, CalibrationOptions(provider="cpu")
    )
    done = rewrite_model(original, statistics, ScaleOptions(allow="nodes"))
    assert done.nodes_added
    given = [{"x": rand(2, 3, 8, 8, dtype=np.float16, seed=1)}]
    assert verify_models(original, done.model, given, runtime=RUNTIME, record=done.record).same
