"""Networks that take more than images: a scalar, a recurrent state; and networks made for one sample at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

import onnxnorm
from onnxnorm.errors import BatchWarning, DataError, OptionError, StatisticsError
from onnxnorm.statistics import Statistics
from tests.helpers.calibrations import close
from tests.helpers.commands import run, succeeded
from tests.helpers.graphs import model, rand

X = rand(12, 3, 8, 8)


def unet(kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A convolution whose output is moved by a scalar, as by a timestep."""
    body = "f = Cast<to=1>(t) s = Mul(f, k) c = Conv(x, w) a = Add(c, s) r = Relu(a) z = Conv(r, v)"
    constants = {"w": rand(6, 3, 3, 3), "v": rand(2, 6, 1, 1), "k": np.float32(0.1)}
    return model(body, {"x": ("N", 3, 8, 8), "t": ()}, constants, input_types={"t": kind})


def recurrent(batch: str | None = "N") -> onnx.ModelProto:
    """Features that go into a GRU with a state of its own, whose samples are on axis 1."""
    body = """
    c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) q = Flatten(p) s = Unsqueeze(q, zero)
    g, h = GRU<hidden_size=5>(s, gw, gr, , , h0) z = Squeeze(h, zero)
    """
    constants = {"w": rand(6, 3, 3, 3), "gw": rand(1, 15, 6), "gr": rand(1, 15, 5), "zero": np.array([0])}
    return model(body, {"x": ("N", 3, 8, 8), "h0": (1, batch, 5)}, constants)


def same(one: Statistics, other: Statistics) -> None:
    close(one, other, rtol=1e-6)
    assert one.shapes == other.shapes


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64])
def test_a_scalar_is_the_same_for_all_samples(kind: int, tmp_path: Path) -> None:
    proto = unet(kind)
    dtype = np.float32 if kind == TensorProto.FLOAT else np.int64
    told = onnxnorm.calibrate(proto, X, provider="cpu", input={"t": 5})
    assert told.images == 12
    assert told.shapes == {"x": (1, 3, 8, 8), "t": ()}
    np.savez(tmp_path / "a.npz", x=X, t=dtype(5))
    np.savez_compressed(tmp_path / "b.npz", x=X, t=dtype(5))
    in_data: list[Any] = [
        tmp_path / "a.npz",
        tmp_path / "b.npz",
        {"x": X, "t": dtype(5)},
        iter([{"x": X, "t": dtype(5)}]),
    ]
    for data in in_data:
        same(onnxnorm.calibrate(proto, data, provider="cpu"), told)
    moved = onnxnorm.calibrate(proto, X, provider="cpu", input={"t": 50})
    assert all((moved.values[value].mean > told.values[value].mean).any() for value in told.means)


def test_what_was_given_is_used_again_to_verify(tmp_path: Path) -> None:
    """The network divides by zero for any other value than that which was given."""
    body = "d = Sub(t, k) e = Reciprocal(d) c = Conv(x, w) a = Mul(c, e) r = Relu(a) z = Conv(r, v)"
    constants = {"w": rand(6, 3, 3, 3), "v": rand(2, 6, 1, 1), "k": np.float32(3)}
    proto = model(body, {"x": ("N", 3, 8, 8), "t": ()}, constants)
    statistics = onnxnorm.calibrate(proto, X, provider="cpu", input={"t": 4})
    statistics.save(tmp_path / "s.safetensors")
    again = Statistics.load(tmp_path / "s.safetensors")
    assert again.inputs["given"] == {
        "values": {"t": {"dtype": "float32", "shape": [], "number": 4.0}},
        "batch_axes": {},
    }
    done = onnxnorm.rewrite(proto, again, provider="cpu")
    assert done.verification is not None
    assert done.verification.same
    assert done.reach.normalized == 6
    done = onnxnorm.normalize(proto, X, provider="cpu", input={"t": 4})
    assert done.verification is not None
    assert done.verification.samples == 16
    assert onnxnorm.verify(proto, done.model, X, provider="cpu", input={"t": 4}).same
    assert onnxnorm.verify(proto, done.model, provider="cpu", input={"t": 4}).same
    assert onnxnorm.plan(proto, again).free == 6


@pytest.mark.parametrize("batch", ["N", None])
def test_a_state_with_its_samples_on_another_axis(batch: str | None, tmp_path: Path) -> None:
    proto = recurrent(batch)
    told: dict[str, Any] = {} if batch else {"batch_axis": {"h0": 1}}
    state = rand(12, 1, 5, seed=3)
    expected = onnxnorm.calibrate(proto, {"x": X, "h0": state}, provider="cpu", **told)
    assert expected.shapes == {"x": (1, 3, 8, 8), "h0": (1, 1, 5)}
    own = np.ascontiguousarray(np.moveaxis(state, 0, 1))
    np.savez(tmp_path / "first.npz", x=X, h0=state)
    np.savez(tmp_path / "own.npz", x=X, h0=own)
    np.savez_compressed(tmp_path / "packed.npz", x=X, h0=own)
    in_data: list[Any] = [{"x": X, "h0": own}, *(tmp_path / f"{name}.npz" for name in ("first", "own", "packed"))]
    for data in in_data:
        same(onnxnorm.calibrate(proto, data, provider="cpu", batch_size=5, **told), expected)
    halves = [
        onnxnorm.calibrate(proto, tmp_path / "packed.npz", provider="cpu", shard=f"{i}/2", **told) for i in (0, 1)
    ]
    same(onnxnorm.merge(halves), expected)
    done = onnxnorm.normalize(proto, {"x": X, "h0": own}, provider="cpu", **told)
    assert done.verification is not None
    assert done.verification.same
    zero = onnxnorm.calibrate(proto, X, provider="cpu", input={"h0": 0}, **told)
    assert (zero.images, zero.shapes) == (12, expected.shapes)


def test_images_feed_the_one_input_that_is_left(tmp_path: Path) -> None:
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    onnx.save(recurrent(), tmp_path / "net.onnx")
    out = tmp_path / "s.safetensors"
    failed = run("calibrate", tmp_path / "net.onnx", tmp_path, "-o", out)
    assert failed.code == 1
    assert "0.png is an image, but the model has the inputs 'x', 'h0'" in failed.error
    assert "--input" in failed.error
    ran = succeeded("calibrate", tmp_path / "net.onnx", tmp_path, "-o", out, "--input", "h0=0")
    assert "inputs: h0 = 0.0 for all samples" in ran.out
    np.save(tmp_path / "h0.npy", rand(1, 5))
    (tmp_path / "photos").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "photos" / "0.png")
    words = ("calibrate", tmp_path / "net.onnx", tmp_path / "photos", "-o", out)
    succeeded(*words, "--input", f"h0={tmp_path / 'h0.npy'}")
    done = succeeded("rewrite", tmp_path / "net.onnx", "--stats", out, "-o", tmp_path / "n.onnx")
    assert "the same function" in done.out


def test_merge_and_resume_refuse_other_values(tmp_path: Path) -> None:
    proto = unet()
    np.savez(tmp_path / "a.npz", x=X, t=np.float32(5))
    np.savez(tmp_path / "b.npz", x=-X, t=np.float32(6))
    one, other = (onnxnorm.calibrate(proto, tmp_path / name, provider="cpu") for name in ("a.npz", "b.npz"))
    with pytest.raises(StatisticsError, match="differ in their values or axes of inputs"):
        onnxnorm.merge([one, other])
    with pytest.raises(DataError, match="parts of DATA give input t other values"):
        onnxnorm.calibrate(proto, [tmp_path / "a.npz", tmp_path / "b.npz"], provider="cpu")
    point = tmp_path / "point"

    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    words: dict[str, Any] = {"provider": "cpu", "batch_size": 2, "checkpoint": point}
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(KeyboardInterrupt):
        onnxnorm.calibrate(proto, tmp_path / "x.npy", input={"t": 5}, progress=stop, **words)
    with pytest.raises(StatisticsError, match="its values or axes of inputs differs"):
        onnxnorm.calibrate(proto, tmp_path / "x.npy", input={"t": 6}, resume=True, **words)
    resumed = onnxnorm.calibrate(proto, tmp_path / "x.npy", input={"t": 5}, resume=True, **words)
    same(resumed, onnxnorm.calibrate(proto, tmp_path / "x.npy", input={"t": 5}, provider="cpu"))


@pytest.mark.parametrize(
    ("data", "words", "error", "message"),
    [
        (
            {"x": X, "t": np.zeros(12, np.float32)},
            {},
            DataError,
            r"one value for all samples, not .* \(12,\).*--input t=",
        ),
        (X, {}, DataError, r"no array for 't'.*--input"),
        (X, {"input": {"t": 0, "x": 1}}, DataError, "every input has one value"),
        (X, {"input": {"u": 0}}, OptionError, "no such input; it has x, t"),
        (X, {"input": ["t"]}, OptionError, "not of the form NAME=VALUE"),
        (X, {"input": ["t=1", "t=2"]}, OptionError, "names the input 't' twice"),
        (X, {"input": ["t=one"]}, OptionError, "'one' is no number"),
        (X, {"input": ["t=none.npy"]}, OptionError, r"none\.npy cannot be read"),
        (X, {"batch_axis": {"x": "a"}}, OptionError, "'a' is no axis"),
        ([{"x": X, "t": np.float32(1)}, {"x": X, "t": np.float32(2)}], {}, DataError, "another value than before"),
    ],
)
def test_what_cannot_be_used_is_named(data: Any, words: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        onnxnorm.calibrate(unet(), data, provider="cpu", **words)


def test_an_array_in_the_whole_shape_of_an_input_is_one_value_if_the_others_differ() -> None:
    body = "c = Conv(x, w) a = Add(c, m) r = Relu(a) z = Conv(r, v)"
    proto = model(body, {"x": ("N", 3, 8, 8), "m": (1, 6, 6, 6)}, {"w": rand(6, 3, 3, 3), "v": rand(2, 6, 1, 1)})
    mask = rand(1, 6, 6, 6, seed=4)
    shared = onnxnorm.calibrate(proto, {"x": X, "m": mask}, provider="cpu")
    assert shared.images == 12
    assert "m" in shared.inputs["given"]["values"]
    each = onnxnorm.calibrate(proto, {"x": X, "m": np.repeat(mask, 12, axis=0)}, provider="cpu")
    assert "given" not in each.inputs
    close(each, shared, rtol=1e-6)


def test_a_model_made_for_one_sample_is_measured_like_others_and_compared_so() -> None:
    body = "a = Conv(x, w) r = Relu(a) f = Reshape(r, one) z = Conv(f, v)"
    constants = {"w": rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1), "one": [1, 4, 6, 6]}
    proto = model(body, {"x": ("n", 3, 8, 8)}, constants)
    done = onnxnorm.normalize(proto, X, provider="cpu")
    assert done.verification is not None
    assert done.verification.same
    assert done.reach.normalized == 4
    with pytest.warns(BatchWarning, match="'f' was exported for a batch of 1, so samples are run one at a time"):
        assert onnxnorm.verify(proto, done.model, X, provider="cpu").samples == 12
    free = model(body, {"x": ("n", 3, 8, 8)}, {**constants, "one": [-1, 4, 6, 6]})
    found = onnxnorm.calibrate(free, X, provider="cpu")
    close(found, onnxnorm.calibrate(proto, X, provider="cpu", batch_size=1), 1e-6)
    close(found, onnxnorm.calibrate(proto, X, provider="cpu"), 1e-6)


def test_a_model_made_for_one_sample_that_mixes_several_is_run_so_and_said() -> None:
    body = "s = Softmax<axis=0>(x) a = Conv(s, w) r = Relu(a) f = Reshape(r, one) z = Conv(f, v)"
    constants = {"w": rand(4, 3, 3, 3), "v": rand(2, 4, 1, 1), "one": [1, 4, 6, 6]}
    proto = model(body, {"x": ("n", 3, 8, 8)}, constants)
    with pytest.warns(BatchWarning, match="'f' was exported for a batch of 1, so samples are run one at a time"):
        found = onnxnorm.calibrate(proto, X, provider="cpu")
    close(found, onnxnorm.calibrate(proto, X, provider="cpu", batch_size=1), 1e-6)
