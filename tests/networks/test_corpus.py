"""The adversarial corpus: each graph planned as expected, and rewritten with random and with calibrated scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import Rewriting, rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Runtime
from onnxnorm.scaling import Trace, find_layers, laws, make_plan, trace
from onnxnorm.scaling.visit import Outcome, Visit
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics, Value
from onnxnorm.verification import verify_models
from tests.corpus import CASES, OPEN, Case, Net, feeds
from tests.helpers.corpus_statistics import calibrated
from tests.helpers.scales_check import check_scales

RUNTIME = Runtime("cpu", threads=1)

every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
RUNNING = {name: case for name, case in CASES.items() if case.runs}
running_case = pytest.mark.parametrize("case", RUNNING.values(), ids=list(RUNNING))


def walked(proto: onnx.ModelProto, batch: int = 1, outputs: Outputs = "keep") -> Trace:
    shapes = {name: array.shape for name, array in feeds(proto, batch).items()}
    return trace(read_graph(Model.open(proto), shapes), outputs)


def test_the_corpus_is_large() -> None:
    assert len(CASES) >= 100
    assert set(OPEN) == {"N", "H", "W"}


@every_case
def test_graphs_are_legal(case: Case) -> None:
    proto = case.build()
    if case.legal:
        onnx.checker.check_model(proto, full_check=True)
    else:
        with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
            onnx.checker.check_model(proto, full_check=True)


@every_case
def test_plan(case: Case) -> None:
    found = walked(case.build())
    layers = find_layers(found, case.filters)
    plan = make_plan(found, layers)
    assert (plan.free, plan.tied, plan.pinned) == case.plan
    for value in case.free:
        assert not found.groups.is_pinned(found.ids[value][found.ids[value] != 0]).any(), value
    for value in case.pinned:
        assert found.groups.is_pinned(found.ids[value]).all(), value
    for value, count in case.scales.items():
        assert len(np.unique(found.groups.of[found.ids[value]])) == count, value
    reasons = {barrier.reason for layer in layers for barrier in found.groups.reasons(layer.slots)}
    assert case.reason in " ".join(reasons)
    assert bool(case.plan[2]) == bool(reasons)
    assert plan.to_json()["filters"] == sum(case.plan)


@running_case
@pytest.mark.parametrize("outputs", ["keep", "scale"])
def test_random_scales(case: Case, outputs: Outputs) -> None:
    proto = case.build()
    for seed in range(3):
        checked = check_scales(proto, feeds(proto, 2, seed), seed=seed, outputs=outputs, rtol=case.rtol)
        if outputs == "keep":
            for name in checked.expected:
                assert checked.trace.groups.is_pinned(checked.trace.ids.get(name, np.zeros(1, np.int64))).all()
    if case.rtol < 1e-3:
        check_scales(proto, feeds(proto, 2), outputs=outputs, power_of_two=False, rtol=1e-4)


@running_case
def test_calibrated(case: Case) -> None:
    """Rewritten for real, the network is the same function, and its free filters have mean 1."""
    proto = case.build()
    before = proto.SerializeToString(deterministic=True)
    model = Model.open(proto)
    rewriting = rewrite_model(model, calibrated(model, case), ScaleOptions(filters=case.filters))
    assert proto.SerializeToString(deterministic=True) == before
    verdict = verify_models(model, rewriting.model, [feeds(proto, 2, seed) for seed in (0, 1)], runtime=RUNTIME)
    assert verdict.same, verdict
    assert bool(rewriting.clones) == case.clones
    assert verdict.graph_identical is not case.clones
    assert rewriting.plan.dead == case.dead
    assert_normalized(rewriting, calibrated(rewriting.model, case), 4e-3 if case.rtol > 1e-3 else 1e-4)


def assert_normalized(rewriting: Rewriting, again: Statistics, tolerance: float) -> None:
    """What was free and alive has mean 1; what was tied, the geometric mean 1; what was pinned is as it was.

    The same for filters whose scales depend on each other: no unknown could bring them nearer to 1 in logarithms.
    """
    logs: dict[int, dict[tuple[Value, int], float]] = {}
    for layer in rewriting.scales.layers:
        value = Value(layer.layer.site.value, layer.layer.site.measure)
        mean = np.abs(again.values[value].mean)
        np.testing.assert_allclose(mean, np.abs(layer.after), rtol=tolerance, atol=1e-6)
        for channel in np.flatnonzero(~layer.dead & ~layer.pinned).tolist():
            slot = int(layer.layer.slots[channel])
            logs.setdefault(slot, {})[value, channel] = float(np.log(mean[channel]))
        assert (layer.scale[layer.pinned] == 1).all()
    groups = rewriting.trace.groups
    remaining = np.zeros(groups.count)
    for slot, members in logs.items():
        remaining[groups.of[slot]] += sum(members.values())
    assert np.abs(groups.basis.T @ remaining).max(initial=0) < tolerance * max(len(logs), 1)


@running_case
def test_power_of_two_is_the_same_bits(case: Case) -> None:
    model = Model.open(case.build())
    rewriting = rewrite_model(model, calibrated(model, case), ScaleOptions(power_of_two=True, filters=case.filters))
    verdict = verify_models(model, rewriting.model, [feeds(model.proto, 2)], runtime=RUNTIME)
    assert verdict.same
    assert verdict.bit_identical or case.rtol


@running_case
def test_scaled_outputs(case: Case) -> None:
    """With graph outputs scaled too, they are the original's times what is recorded."""
    model = Model.open(case.build())
    rewriting = rewrite_model(model, calibrated(model, case), ScaleOptions(outputs="scale", filters=case.filters))
    given = [feeds(model.proto, 2, seed) for seed in (0, 1)]
    verdict = verify_models(model, rewriting.model, given, scales=rewriting.outputs, runtime=RUNTIME)
    assert verdict.same, verdict


def partition(found: Trace, case: Case) -> list[tuple[int, bool]]:
    """Group (numbered by first occurrence) and pin of every filter."""
    numbers: dict[int, int] = {}
    result = []
    for layer in find_layers(found, case.filters):
        for slot in layer.slots:
            group = int(found.groups.of[slot])
            result.append((numbers.setdefault(group, len(numbers)), bool(found.groups.pinned[group] >= 0)))
    return result


@every_case
def test_batch_size_does_not_matter(case: Case) -> None:
    proto = case.build()
    one = walked(proto, 1)
    for batch in (2, 3):
        more = walked(proto, batch)
        assert partition(one, case) == partition(more, case)
        assert len(one.edits) == len(more.edits)


def externalized(proto: onnx.ModelProto, data: Path) -> onnx.ModelProto:
    """The model with every floating-point initializer in another file, but those that set the shape of a Resize."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    kept = {name for node in proto.graph.node if node.op_type in {"Resize", "Upsample"} for name in node.input}
    with data.open("wb") as stream:
        for tensor in result.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype.kind in "iub" or tensor.name in kept:
                continue
            offset, name = stream.tell(), tensor.name
            stream.write(values.tobytes() + bytes(64))
            tensor.CopyFrom(onnx.TensorProto(name=name, data_type=tensor.data_type, dims=tensor.dims))
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": data.name, "offset": offset, "length": values.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
    return result


@running_case
def test_in_files(case: Case, tmp_path: Path) -> None:
    """Weights outside of the model file, all of them: the same digest, the same result, and a legal file."""
    proto = case.build()
    model = Model.open(proto)
    path = tmp_path / "model.onnx"
    onnx.save_model(externalized(proto, tmp_path / "weights.bin"), path)
    stored = Model.open(path)
    assert stored.digest() == model.digest()
    statistics = calibrated(stored, case)
    rewriting, expected = (rewrite_model(m, statistics, ScaleOptions(filters=case.filters)) for m in (stored, model))
    verdict = verify_models(stored, rewriting.model, [feeds(proto, 2)], runtime=RUNTIME)
    assert verdict.same
    assert verdict.graph_identical is not case.clones
    rewriting.model.write(tmp_path / "rewritten.onnx")
    written = Model.open(tmp_path / "rewritten.onnx")
    assert written.digest() == rewriting.model.digest() == expected.model.digest()
    assert [t.data_location for t in written.proto.graph.initializer[: len(proto.graph.initializer)]] == [
        t.data_location for t in stored.proto.graph.initializer
    ]
    assert verify_models(stored, written, [feeds(proto, 2)], runtime=RUNTIME).same


# --- the checks can fail -------------------------------------------------------------------------------------------


def broken(monkeypatch: pytest.MonkeyPatch, operator: str, law: laws.Law) -> None:
    monkeypatch.setitem(laws.LAWS, operator, law)


def hand_on(visit: Visit) -> Outcome:
    return visit.first().ids


def forget_edits(operator: str) -> laws.Law:
    """The law without the changes of its constants."""
    entry = laws.LAWS[operator]

    def apply(visit: Visit) -> Outcome:
        outcome = entry.apply(visit)
        visit.edits.clear()
        return outcome

    return laws.Law(apply, entry.role)


def wrong_law(operator: str) -> laws.Law:
    if operator in {"Sigmoid", "Tanh", "Softmax", "LRN"}:
        return laws.Law(hand_on, "nonlinearity")
    if operator in {"Add", "Concat"}:  # only the first operand counts
        return laws.Law(hand_on, "transparent")
    return forget_edits(operator)


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("Sigmoid", "gate_with_sigmoid"),
        ("Tanh", "add_whose_reader_is_a_barrier"),
        ("Softmax", "product_must_be_one"),
        ("LRN", "local_response"),
        ("Conv", "plain_chain"),
        ("Gemm", "flatten_then_gemm"),
        ("Clip", "relu6_with_shared_bounds"),
        ("BatchNormalization", "normalization_unfolded"),
        ("Add", "residual_after_activation"),
        ("ConvTranspose", "transposed_convolutions"),
    ],
)
def test_a_wrong_law_is_caught(monkeypatch: pytest.MonkeyPatch, operator: str, name: str) -> None:
    case = CASES[name]
    proto = case.build()
    check_scales(proto, feeds(proto))
    broken(monkeypatch, operator, wrong_law(operator))
    with pytest.raises(AssertionError):
        check_scales(proto, feeds(proto), seed=1)
    model = Model.open(proto)
    rewriting = rewrite_model(model, calibrated(model, case))
    verdict = verify_models(model, rewriting.model, [feeds(proto, 2)], runtime=RUNTIME)
    assert not verdict.same


def test_ignored_groups_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Conv that divides by the first channels, whatever its group."""
    entry = laws.LAWS["Conv"]

    def apply(visit: Visit) -> Outcome:
        outcome = entry.apply(visit)
        for index, edit in enumerate(visit.edits):
            if edit.over is not None:
                over = np.broadcast_to(edit.over[:1], edit.over.shape)
                visit.edits[index] = type(edit)(edit.constant, edit.reader, edit.times, over)
        return outcome

    broken(monkeypatch, "Conv", laws.Law(apply, entry.role))
    proto = CASES["plain_chain"].build()
    check_scales(proto, feeds(proto))
    proto = CASES["grouped_convolutions"].build()
    with pytest.raises(AssertionError):
        check_scales(proto, feeds(proto))


def test_statistics_of_means_are_checked() -> None:
    """A filter that misses its target does not pass for normalized."""
    case = CASES["plain_chain"]
    model = Model.open(case.build())
    statistics = calibrated(model, case)
    rewriting = rewrite_model(model, statistics, ScaleOptions(target=1.01))
    with pytest.raises(AssertionError):
        assert_normalized(rewriting, calibrated(rewriting.model, case), 1e-4)


def test_feeds_fill_open_dimensions() -> None:
    net = Net()
    net.input(shape=("N", 3, "H", "W"))
    given: Mapping[str, NDArray[Any]] = feeds(net.model("x"), 2)
    assert given["x"].shape == (2, 3, OPEN["H"], OPEN["W"])
