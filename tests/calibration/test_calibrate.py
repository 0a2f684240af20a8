"""A whole calibration against raw activations averaged in float64, however the data is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import DTypeLike
from onnx import TensorProto
from PIL import Image

from onnxnorm.calibration.calibrate import Progress, calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.errors import DataError, ModelError, OptionError, ProviderError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Statistics, Value
from onnxnorm.statistics.stopping import StoppingRule
from tests.helpers.graphs import Array, Shape, model, rand
from tests.helpers.oracle import assert_measured, measure

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo_vgg.onnx"
IMAGES = sorted((ROOT / "models" / "images").iterdir())
CPU = Runtime("cpu", 2)
DEMO_RELUS = {f"relu{block}_{step}": 1 for block in range(1, 5) for step in (1, 2)}


def calibrated(proto: onnx.ModelProto | Path, data: Any, progress: Any = None, **options: Any) -> Statistics:
    images = vars(options.pop("images", ImageOptions()))
    options = {"provider": "cpu", "threads": 2, "measure": ("max",)} | images | options
    return calibrate_model(Model.open(proto), data, CalibrationOptions(**options), progress=progress)


def means(**axes: int) -> dict[Value, int]:
    return {Value(name, "mean"): axis for name, axis in axes.items()}


def two_layers(shape: Shape, channels: int = 6, dtype: DTypeLike = np.float32, opset: int = 17) -> onnx.ModelProto:
    """Conv, Relu, Conv, Relu, and a dense head, for an input of this shape."""
    axes = len(shape) - 2
    kernel = [3] * axes
    body = f"""
        a = Conv<pads={[1] * 2 * axes}>(x, w1, b1) r1 = Relu(a)
        b = Conv<pads={[1] * 2 * axes}>(r1, w2, b2) r2 = Relu(b)
        p = GlobalAveragePool(r2) f = Flatten(p) z = MatMul(f, w3)
    """
    constants = {
        "w1": rand(channels, int(shape[1] or 0), *kernel, seed=1, dtype=dtype) / 3,
        "b1": rand(channels, seed=2, dtype=dtype),
        "w2": rand(channels, channels, *kernel, seed=3, dtype=dtype) / 3,
        "b2": rand(channels, seed=4, dtype=dtype),
        "w3": rand(channels, 5, seed=5, dtype=dtype),
    }
    constants = {name: array.astype(dtype) for name, array in constants.items()}
    half = np.dtype(dtype) == np.float16
    return model(body, {"x": shape}, constants, opset=opset, dtype=TensorProto.FLOAT16 if half else TensorProto.FLOAT)


# Against the oracle


def test_the_demo_on_its_photographs() -> None:
    paths = IMAGES[:11]
    options = ImageOptions(preset="unit")
    got = calibrated(DEMO, paths, images=options, batch_size=4)
    proto = onnx.load(DEMO)
    batches = list(open_data(paths, input_specs(Model.open(proto)), options).batches(11))
    assert_measured(got, measure(proto, [batch.feeds for batch in batches], means(**DEMO_RELUS)))
    assert got.images == 11
    assert got.shapes == {"input": (1, 3, 64, 64)}
    assert got.inputs["preprocessing"]["preset"] == "unit"
    assert got.model == Model.open(DEMO).digest()


def test_fifty_thousand_positions() -> None:
    proto = two_layers(("n", 3, 224, 224))
    data = rand(3, 3, 224, 224) + 1
    assert_measured(calibrated(proto, data), measure(proto, [{"x": data}], means(r1=1, r2=1)))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 16), (17, 31), (33, 64)])
def test_any_number_of_positions(size: tuple[int, int]) -> None:
    proto = two_layers(("n", 3, *size))
    data = rand(5, 3, *size)
    assert_measured(calibrated(proto, data, batch_size=2), measure(proto, [{"x": data}], means(r1=1, r2=1)))


@pytest.mark.parametrize("shape", [("n", 4, 50), ("n", 2, 9, 10, 11)])
def test_one_and_three_spatial_axes(shape: Shape) -> None:
    proto = two_layers(shape)
    data = rand(5, *[int(size or 0) for size in shape[1:]])
    assert_measured(calibrated(proto, data), measure(proto, [{"x": data}], means(r1=1, r2=1)))


def test_double_precision() -> None:
    """The processor has no convolutions in double precision; dense layers it has."""
    body, weights = "a = MatMul(x, w) z = Relu(a)", {"w": rand(7, 6, dtype=np.float64)}
    proto = model(body, {"x": ("n", 11, 7)}, weights, dtype=TensorProto.DOUBLE)
    data = rand(5, 11, 7, dtype=np.float64)
    assert_measured(calibrated(proto, data, filters="all"), measure(proto, [{"x": data}], means(z=2)), rtol=1e-14)


def test_half_precision() -> None:
    """The activations are rounded to eleven bits; what is summed is not."""
    proto = two_layers(("n", 3, 100, 100), dtype=np.float16)
    data = rand(3, 3, 100, 100, dtype=np.float16)
    assert_measured(calibrated(proto, data), measure(proto, [{"x": data}], means(r1=1, r2=1)), rtol=1e-3)


@pytest.mark.parametrize("opset", [13, 18])
def test_channels_on_the_last_axis(opset: int) -> None:
    proto = model(
        "c = Conv<pads=[1,1,1,1]>(x, w, b) t = Transpose<perm=[0,2,3,1]>(c) z = Relu(t)",
        {"x": ("n", 3, 224, 224)},
        {"w": rand(5, 3, 3, 3), "b": rand(5, seed=1)},
        opset=opset,
    )
    data = abs(rand(3, 3, 224, 224)) + 3
    assert_measured(calibrated(proto, data, batch_size=2), measure(proto, [{"x": data}], means(z=3)), rtol=3e-6)


def test_input_with_channels_last() -> None:
    proto = model(
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, w) r = Relu(c) z = Transpose<perm=[0,2,3,1]>(r)",
        {"x": ("n", 20, 20, 3)},
        {"w": rand(5, 3, 3, 3)},
    )
    options = ImageOptions(preset="tf", size="20x20")
    got = calibrated(proto, IMAGES[:5], images=options)
    batches = open_data(IMAGES[:5], input_specs(Model.open(proto)), options).batches(5)
    assert_measured(got, measure(proto, [batch.feeds for batch in batches], means(r=1)))
    assert got.inputs["preprocessing"]["layout"] == "nhwc"


def test_filters_without_a_non_linearity_by_mean_absolute_value() -> None:
    proto = model(
        "c = Conv(x, w) s = BatchNormalization(c, g, b, m, v) d = Conv(s, u) z = Relu(d)",
        {"x": ("n", 3, 20, 20)},
        {
            "w": rand(4, 3, 3, 3),
            "u": rand(4, 4, 3, 3, seed=1),
            "g": rand(4, seed=2),
            "b": rand(4, seed=3),
            "m": rand(4, seed=4),
            "v": rand(4, seed=5) ** 2 + 1,
        },
    )
    data = rand(5, 3, 20, 20)
    sites = {Value("s", "mean_abs"): 1, Value("z", "mean"): 1}
    assert_measured(calibrated(proto, data, batch_size=3), measure(proto, [{"x": data}], sites))


def test_dense_layers_on_request() -> None:
    proto = model(
        "a = Gemm(x, w, b) r = Relu(a) z = MatMul(r, u)",
        {"x": ("n", 7)},
        {"w": rand(7, 6), "b": rand(6, seed=1), "u": rand(6, 4, seed=2)},
    )
    data = rand(9, 7)
    sites = {Value("r", "mean"): 1, Value("z", "mean_abs"): 1}
    assert_measured(calibrated(proto, data, filters="all", batch_size=4), measure(proto, [{"x": data}], sites))
    with pytest.raises(ModelError, match="no convolutions"):
        calibrated(proto, data)


def test_dense_layers_on_sequences() -> None:
    proto = model("a = MatMul(x, w) z = Relu(a)", {"x": ("n", 11, 7)}, {"w": rand(7, 6)})
    data = rand(5, 11, 7)
    got = calibrated(proto, data, filters="all", batch_size=2)
    assert_measured(got, measure(proto, [{"x": data}], means(z=2)))


def test_pictures_of_any_size_count_by_their_positions(tmp_path: Path) -> None:
    proto = two_layers(("n", 3, "h", "w"))
    sizes = [(20, 30), (9, 50), (20, 30), (33, 17), (9, 50)]
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(tmp_path / f"{index}.png")
    options = ImageOptions(preset="unit", resize="none")
    got = calibrated(proto, tmp_path, images=options, batch_size=2)
    batches = list(open_data(tmp_path, input_specs(Model.open(proto)), options).batches(1))
    assert_measured(got, measure(proto, [batch.feeds for batch in batches], means(r1=1, r2=1)))
    assert got.values[Value("r1", "mean")].weight == sum(height * width for height, width in sizes)


def test_several_inputs_by_name(tmp_path: Path) -> None:
    proto = model(
        "c = Conv(left, w) d = Conv(right, u) s = Add(c, d) z = Relu(s)",
        {"left": ("n", 3, 8, 8), "right": ("n", 2, 8, 8)},
        {"w": rand(4, 3, 3, 3), "u": rand(4, 2, 3, 3, seed=1)},
    )
    feeds = {"left": rand(5, 3, 8, 8), "right": rand(5, 2, 8, 8, seed=1)}
    np.savez(tmp_path / "data.npz", left=feeds["left"], right=feeds["right"])
    assert_measured(calibrated(proto, tmp_path, batch_size=2), measure(proto, [feeds], means(z=1)))


# However it is cut


@pytest.mark.parametrize("size", [3, 7, 100])
def test_batch_sizes_agree(size: int, tmp_path: Path) -> None:
    data = rand(10, 3, 64, 64) / 4 + 0.5
    np.save(tmp_path / "data.npy", data)
    in_memory = calibrated(DEMO, data, batch_size=1)
    for source in (data, tmp_path / "data.npy"):
        one = calibrated(DEMO, source, batch_size=1)
        other = calibrated(DEMO, source, batch_size=size)
        assert other.images == 10
        for value, moments in one.values.items():
            np.testing.assert_allclose(other.values[value].mean, moments.mean, rtol=1e-9, atol=1e-12)
            # A file tells the size of its samples, so small maps are summed without windows.
            np.testing.assert_allclose(in_memory.values[value].mean, moments.mean, rtol=3e-6)
            np.testing.assert_allclose(other.values[value].standard_error, moments.standard_error, rtol=1e-6)
            np.testing.assert_allclose(np.asarray(other.values[value].largest), np.asarray(moments.largest), rtol=1e-9)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_filled_and_the_filling_not_counted(batch: int) -> None:
    data = rand(6, 3, 12, 12)
    open_batch = calibrated(two_layers(("n", 3, 12, 12)), data)
    fixed = calibrated(two_layers((batch, 3, 12, 12)), data)
    assert fixed.shapes == {"x": (batch, 3, 12, 12)}
    for value, moments in open_batch.values.items():
        assert fixed.values[value].images == 6
        assert fixed.values[value].weight == moments.weight
        np.testing.assert_allclose(fixed.values[value].mean, moments.mean, rtol=1e-6)


def test_a_batch_size_that_the_model_refuses() -> None:
    with pytest.raises(OptionError, match=r"--batch-size 3 .* fixed to 4"):
        calibrated(two_layers((4, 3, 8, 8)), rand(6, 3, 8, 8), batch_size=3)


def test_arrays_that_can_be_read_only_once() -> None:
    data = rand(10, 3, 12, 12)
    proto = two_layers(("n", 3, 12, 12))

    def once() -> Iterator[Array]:
        yield from (data[:1], data[1:5], data[5:])

    whole, streamed = calibrated(proto, data), calibrated(proto, once(), batch_size=3)
    assert streamed.images == 10
    for value, moments in whole.values.items():
        np.testing.assert_allclose(streamed.values[value].mean, moments.mean, rtol=1e-6)


@pytest.mark.parametrize("limit", [1, 5, 8, 99])
def test_limit(limit: int) -> None:
    done: list[Progress] = []
    got = calibrated(DEMO, IMAGES[:9], limit=limit, batch_size=4, progress=done.append)
    assert got.images == min(limit, 9)
    assert [item.done for item in done] == [*range(4, min(limit, 9), 4), min(limit, 9)]
    assert {item.total for item in done} == {min(limit, 9)}


# Stopping


def test_tolerance_stops_as_soon_as_it_is_reached() -> None:
    proto = two_layers(("n", 3, 16, 16))
    data = rand(400, 3, 16, 16)
    got = calibrated(proto, data, tolerance=0.05)
    assert 32 <= got.images < 400
    for moments in got.values.values():
        assert np.mean(moments.standard_error / moments.mean <= 0.05) > 0.5
    assert calibrated(proto, data[:50], tolerance=1e-9).images == 50


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_tolerance_must_be_positive(tolerance: float) -> None:
    with pytest.raises(OptionError, match="--tolerance"):
        StoppingRule(tolerance)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_tolerance_share_must_be_a_share(share: float) -> None:
    with pytest.raises(OptionError, match="--tolerance-share"):
        StoppingRule(0.1, share)


# What is wrong with the data


def test_bad_images_are_skipped_and_named(tmp_path: Path) -> None:
    for index, path in enumerate(IMAGES[:4]):
        (tmp_path / f"{index}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "1a.jpg").write_bytes(b"no image")
    (tmp_path / "2a.jpg").write_bytes(IMAGES[0].read_bytes()[:2000])
    got = calibrated(DEMO, tmp_path, batch_size=3)
    assert got.images == 4
    assert [Path(name).name for name, _ in got.skipped] == ["1a.jpg", "2a.jpg"]
    assert all(reason for _, reason in got.skipped)


def test_more_bad_than_good_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(IMAGES[0].read_bytes())
    for name in ("b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 3 .*b.jpg"):
        calibrated(DEMO, tmp_path)


def test_what_is_not_a_number_is_named(tmp_path: Path) -> None:
    data = rand(5, 3, 64, 64)
    data[3, 0, 10, 10] = np.nan
    np.save(tmp_path / "data.npy", data)
    with pytest.raises(DataError, match=r"data.npy\[3\] .*relu1_1"):
        calibrated(DEMO, tmp_path)


def test_infinity_in_a_batch_that_is_filled() -> None:
    data = rand(2, 3, 8, 8)
    data[1] = np.inf
    with pytest.raises(DataError, match=r"array\[1\]"):
        calibrated(two_layers((4, 3, 8, 8)), data)


# Running


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "CUDAExecutionProvider"])
def test_a_device_that_is_not_there(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(
        ProviderError, match=f"provider '{provider}' .*(needs a CUDA device|is not in this ONNX Runtime)"
    ):
        calibrate_model(Model.open(DEMO), rand(1, 3, 64, 64), CalibrationOptions(provider=provider))


def test_an_unknown_provider() -> None:
    with pytest.raises(ProviderError, match=r"'abacus' is not in this ONNX Runtime, which has .*CPUExecutionProvider"):
        calibrate_model(Model.open(DEMO), rand(1, 3, 64, 64), CalibrationOptions(provider="abacus"))


@pytest.mark.parametrize("provider", ["auto", "cpu", "CPU", "CPUExecutionProvider"])
def test_the_processor_without_a_device(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Runtime(provider, threads=1).session(Model.open(DEMO)).provider == "CPUExecutionProvider"


def test_threads() -> None:
    data = rand(4, 3, 64, 64)
    one, two = (
        calibrate_model(Model.open(DEMO), data, CalibrationOptions(provider="cpu", threads=threads)).values
        for threads in (1, 2)
    )
    for value, moments in one.items():
        np.testing.assert_allclose(two[value].mean, moments.mean, rtol=1e-5, atol=1e-9)
    with pytest.raises(OptionError, match="threads"):
        calibrate_model(Model.open(DEMO), data, CalibrationOptions(provider="cpu", threads=0))


def test_a_model_that_the_runtime_rejects() -> None:
    proto = model(
        "y = Conv(x, w) z = custom.Thing(y)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)}, domains=["custom"]
    )
    assert calibrated(proto, rand(2, 3, 8, 8)).images == 2  # what is behind the last filter is not run
    with pytest.raises(ModelError, match="ONNX Runtime rejects the model"):
        CPU.session(Model.open(proto))
