"""Two models on the same inputs: a right rewrite passes, every kind of damage is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.errors import DataError, MemoryShortageError, ModelError, OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec
from onnxnorm.model.shapes import sample_shapes
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Feeds, Runtime, Session
from onnxnorm.verification import Verification, verify_models
from onnxnorm.verification.inputs import random_feeds
from onnxnorm.verification.verdict import OutputVerdict
from tests.helpers.graphs import Array, model, rand

ROOT = Path(__file__).resolve().parents[2]
CPU = Runtime("cpu", 1)
Change = Callable[[onnx.ModelProto], object]


def network() -> onnx.ModelProto:
    return model(
        """
        a = Conv<pads=[1,1,1,1]>(x, w1, b1) r1 = Relu(a)
        c = Conv<pads=[1,1,1,1]>(r1, w2, b2) r2 = Relu(c)
        f = Flatten(r2) z = Gemm(f, w3, b3)
        """,
        {"x": ("n", 3, 8, 8)},
        {
            "w1": rand(6, 3, 3, 3),
            "b1": rand(6, seed=1),
            "w2": rand(5, 6, 3, 3, seed=2),
            "b2": rand(5, seed=3),
            "w3": rand(5 * 64, 7, seed=4),
            "b3": rand(7, seed=5),
        },
        opset=17,
    )


def feeds(proto: onnx.ModelProto | Model, samples: int = 8, seed: int = 0) -> list[dict[str, Array]]:
    specs = input_specs(Model.open(proto))
    return random_feeds(specs, sample_shapes(specs), samples=samples, seed=seed)


def verify(original: onnx.ModelProto, other: onnx.ModelProto | Model, **options: float) -> Verification:
    return verify_models(Model.open(original), Model.open(other), feeds(original), runtime=CPU, **options)  # type: ignore[arg-type]


def rewritten(power_of_two: bool = False) -> onnx.ModelProto:
    opened = Model.open(network())
    statistics = calibrate_model(opened, rand(20, 3, 8, 8), CalibrationOptions(provider=CPU.provider))
    return rewrite_model(opened, statistics, ScaleOptions(power_of_two=power_of_two)).model.to_proto()


def changed(change: Change) -> onnx.ModelProto:
    proto = rewritten()
    change(proto)
    return proto


def times(name: str, factor: float | Array) -> Change:
    """Multiply an initializer."""

    def change(proto: onnx.ModelProto) -> None:
        tensor = next(item for item in proto.graph.initializer if item.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), name))

    return change


def original_again(name: str) -> Change:
    """Put back what the original had: the compensation forgotten."""

    def change(proto: onnx.ModelProto) -> None:
        found = next(item for item in proto.graph.initializer if item.name == name)
        found.CopyFrom(next(item for item in network().graph.initializer if item.name == name))

    return change


def one_filter(count: int, index: int, factor: float, axes: int = 4) -> Array:
    factors = np.ones((count, *[1] * (axes - 1)))
    factors[index] = factor
    return factors


DAMAGE: dict[str, Change] = {
    "a weight scaled": times("w2", 1.01),
    "one filter scaled": times("w1", one_filter(6, 3, 1.1)),
    "one filter's bias scaled": times("b1", one_filter(6, 2, 1.1, 1)),
    "an input channel scaled": times("w2", one_filter(6, 1, 1.2, 1).reshape(1, 6, 1, 1)),
    "a convolution not compensated": original_again("w2"),
    "a dense layer not compensated": original_again("w3"),
    "a bias not scaled": original_again("b2"),
    "a sign": times("b3", one_filter(7, 0, -1, 1)),
    "one output off by one per cent": times("w3", one_filter(7, 4, 1.01, 1)),
    "not a number": times("w3", one_filter(320, 9, np.nan, 2)),
    "infinity": times("b3", one_filter(7, 1, np.inf, 1)),
    "another operator": lambda proto: setattr(proto.graph.node[3], "op_type", "Sigmoid"),
}


@pytest.mark.parametrize("power_of_two", [False, True])
def test_a_right_rewrite_passes(power_of_two: bool) -> None:
    found = verify(network(), rewritten(power_of_two))
    assert found.same
    assert found.graph_identical
    assert found.bit_identical == power_of_two
    assert found.max_relative_error <= 1e-5
    assert found.samples == 8
    assert str(found).startswith("the same function")


def test_it_takes_three_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the original, of the rewritten one, and of the original without optimizations: the runtime's noise."""
    original, other = network(), rewritten(False)
    runs: list[int] = []
    run = Session.run

    def counted(session: Session, given: Feeds) -> dict[str, NDArray[Any]]:
        runs.append(len(next(iter(given.values()))))
        return run(session, given)

    monkeypatch.setattr(Session, "run", counted)
    assert verify(original, other).samples == 8
    assert sum(runs) == 3 * 8


def test_the_original_is_itself() -> None:
    found = verify(network(), network())
    assert (found.same, found.bit_identical, found.max_relative_error, found.relative_rms_error) == (True, True, 0, 0)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told(name: str) -> None:
    found = verify(network(), changed(DAMAGE[name]))
    assert not found.same
    assert found.outputs["z"].max_relative_error > found.outputs["z"].tolerance
    assert str(found).startswith("not the same function: output 'z' differs by")


def test_a_graph_that_is_not_the_same_is_told_apart_from_the_function() -> None:
    renamed = changed(lambda proto: setattr(proto.graph.node[0], "name", "other"))
    assert (verify(network(), renamed).same, verify(network(), renamed).graph_identical) == (True, False)
    damaged = changed(DAMAGE["a weight scaled"])
    assert (verify(network(), damaged).same, verify(network(), damaged).graph_identical) == (False, True)


@pytest.mark.parametrize("tolerance", [0.1, 0.0])
def test_a_tolerance_of_ones_own(tolerance: float) -> None:
    damaged = changed(DAMAGE["one output off by one per cent"])
    found = verify(network(), damaged, tolerance=tolerance)
    assert found.same == (tolerance > 0)
    assert found.outputs["z"].tolerance == tolerance


@pytest.mark.parametrize("tolerance", [-1e-9, float("nan")])
def test_a_tolerance_that_makes_no_sense(tolerance: float) -> None:
    with pytest.raises(OptionError, match="tolerance"):
        verify(network(), network(), tolerance=tolerance)


def test_the_noise_of_the_network_raises_the_tolerance() -> None:
    """(1 + x) - 1 with a large 1: the runtime's own rounding is all that is left."""
    proto = model(
        "a = Conv(x, w, b) r = Relu(a) s = GlobalAveragePool(r) z = Sub(s, k)",
        {"x": ("n", 3, 40, 40)},
        {"w": rand(4, 3, 3, 3) * 1e-4, "b": np.full(4, 1e3, np.float32), "k": np.full((4, 1, 1), 1e3, np.float32)},
    )
    verdict = verify(proto, proto).outputs["z"]
    assert verdict.tolerance == max(1e-4, 3 * verdict.noise)
    assert verdict.bit_identical


def test_noise_that_is_infinite_excuses_nothing() -> None:
    """Where the runtime's optimizations alone make zeros of something, any output would be within the noise."""
    from onnxnorm.verification import compare
    from onnxnorm.verification.side_by_side import _verdict

    a = rand(2, 3)
    b = a * np.float32(1.5)
    assert not _verdict(compare(a, b), float("inf"), a.dtype, None, 0.0).same
    assert _verdict(compare(a, a), float("inf"), a.dtype, None, 0.0).same


def test_recorded_output_scales_are_taken_out() -> None:
    scales = np.array([1, 2, 4, 8, 0.5, 0.25, 1.0]).reshape(1, 7)
    scaled = network()
    times("w3", scales)(scaled)
    times("b3", scales[0])(scaled)
    models = Model.open(network()), Model.open(scaled)
    given: dict[str, NDArray[np.float64]] = {"z": scales}
    assert verify_models(*models, feeds(network()), scales=given, runtime=CPU).bit_identical
    assert not verify_models(*models, feeds(network()), runtime=CPU).same
    with pytest.raises(ModelError, match="recorded scales of an output have shape"):
        verify_models(*models, feeds(network()), scales={"z": np.ones((1, 6))}, runtime=CPU)


def test_the_worst_of_several_outputs_decides() -> None:
    def two(factor: float) -> onnx.ModelProto:
        constants = {"w": rand(4, 3, 3, 3), "k": np.array(factor, np.float32)}
        return model("a = Conv(x, w) y = Relu(a) z = Mul(a, k)", {"x": ("n", 3, 8, 8)}, constants, ("y", "z"))

    found = verify(two(1.0), two(1.001))
    assert not found.same
    assert (found.outputs["y"].same, found.outputs["z"].same) == (True, False)
    assert found.max_relative_error == found.outputs["z"].max_relative_error
    assert "'z'" in str(found)


def test_models_that_are_not_a_pair() -> None:
    other = network()
    other.graph.input[0].name = "image"
    other.graph.node[0].input[0] = "image"
    with pytest.raises(ModelError, match="the inputs of the two models have other names: x in the original, image"):
        verify(network(), other)
    other = network()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "logits"
    with pytest.raises(ModelError, match="the outputs of the two models have other names"):
        verify(network(), other)
    wider = model("z = Conv(x, w)", {"x": ("n", 4, 8, 8)}, {"w": rand(4, 4, 3, 3)})
    narrow = model("z = Conv(x, w)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    with pytest.raises(ModelError, match="the two models have different inputs"):
        verify(narrow, wider)


@pytest.mark.parametrize("other", [("n", 3, 9, 9), (2, 3, 8, 8), ("n", 3, 8)])
def test_different_inputs_are_told_before_anything_runs(
    other: tuple[str | int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_input(shape: tuple[str | int, ...]) -> Model:
        return Model.open(model("z = Relu(x)", {"x": shape}))

    monkeypatch.setattr(Runtime, "session", None)
    shown = "x".join(str(side) if isinstance(side, int) else "?" for side in other)
    expected = f"different inputs: x (float32 1x3x8x8) in the original, x (float32 {shown}) in the other; give a model"
    with pytest.raises(ModelError, match=re.escape(expected)):
        verify_models(with_input((1, 3, 8, 8)), with_input(other), feeds(with_input((1, 3, 8, 8))), runtime=CPU)


def test_an_open_batch_and_a_fixed_one_may_be_compared() -> None:
    fixed, free = (Model.open(model("z = Relu(x)", {"x": (side, 3, 8, 8)})) for side in (1, "n"))
    assert verify_models(fixed, free, feeds(fixed), runtime=CPU).same


def test_another_shape_of_output_is_not_the_same() -> None:
    one = model("z = Flatten(x)", {"x": ("n", 3, 8, 8)})
    two = model("z = Identity(x)", {"x": ("n", 3, 8, 8)})
    assert not verify(one, two).same


def test_no_data() -> None:
    with pytest.raises(DataError, match="nothing to verify on"):
        verify_models(Model.open(network()), Model.open(network()), [], runtime=CPU)


def test_feeds_are_read_one_by_one() -> None:
    held = 0

    def stream() -> Iterator[dict[str, Array]]:
        nonlocal held
        for index in range(5):
            held += 1
            yield {"x": rand(2, 3, 8, 8, seed=index)}

    found = verify_models(Model.open(network()), Model.open(rewritten()), stream(), runtime=CPU)
    assert (held, found.samples) == (5, 10)
    assert found.same


def test_json_is_the_contract() -> None:
    found = verify(network(), rewritten()).to_json()
    assert list(found) == [
        "same",
        "max_relative_error",
        "relative_rms_error",
        "bit_identical",
        "outputs",
        "samples",
        "graph_identical",
        "attributes_changed",
        "nodes_added",
        "time_ratio",
        "compared_in",
        "comparisons",
        "not_compared",
    ]
    assert list(found["outputs"]) == ["z"]
    assert (found["compared_in"], found["not_compared"]) == ("float32", None)
    assert found["comparisons"] == {"float32": found["outputs"]}
    assert set(found["outputs"]["z"]) == {field.name for field in fields(OutputVerdict)}


# Inputs without photographs


def test_random_inputs_are_the_same_every_time_and_differ_among_themselves() -> None:
    one, two = feeds(network(), samples=6), feeds(network(), samples=6)
    assert len(one) == 6
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(one, two, strict=True))
    assert len({array["x"].tobytes() for array in one}) == 6
    assert not np.array_equal(one[0]["x"], feeds(network(), samples=1, seed=1)[0]["x"])


def test_random_inputs_like_the_calibration() -> None:
    spec = InputSpec("x", (None, 3, 20, 20), np.dtype(np.float32))
    ranges = {"x": {"mean": 100.0, "std": 30.0, "low": 0.0, "high": 255.0}}
    like, noise = random_feeds([spec], {"x": (1, 3, 20, 20)}, ranges, samples=2)
    assert 0 <= like["x"].min() < like["x"].max() <= 255
    assert 50 < like["x"].mean() < 150
    assert abs(noise["x"].mean()) < 0.2
    assert like["x"].dtype == noise["x"].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float16, np.float64])
def test_random_inputs_of_every_dtype(dtype: type) -> None:
    spec = InputSpec("x", (None, 4), np.dtype(dtype))
    for feed in random_feeds([spec], {"x": (1, 4)}, {"x": {"mean": 1, "std": 1, "low": 0, "high": 2}}):
        assert feed["x"].dtype == dtype
        assert feed["x"].shape == (1, 4)


def test_random_inputs_in_a_fixed_batch_and_without_axes() -> None:
    batch = InputSpec("x", (4, 2), np.dtype(np.float32))
    single = InputSpec("t", (), np.dtype(np.float32))
    assert len(random_feeds([batch, single], {"x": (4, 2), "t": ()}, samples=6)) == 2
    assert len(random_feeds([single], {"t": ()}, samples=3)) == 3
    assert random_feeds([], {}) == [{}]


def test_a_network_without_batch_axis() -> None:
    proto = model("z = Mul(t, k)", {"t": ()}, {"k": np.array(2, np.float32)})
    assert verify(proto, proto).bit_identical


@pytest.mark.parametrize("side", [2**31, 2**40])
def test_inputs_that_no_memory_holds(side: int) -> None:
    spec = InputSpec("x", (None, 3, side, side), np.dtype(np.float32))
    with pytest.raises(MemoryShortageError, match=r"for an input 'x' of shape \(1, 3, .*; use a larger machine"):
        random_feeds([spec], {"x": (1, 3, side, side)}, samples=1)
