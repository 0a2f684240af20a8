"""Percentiles of raw activations: the same counts however the data are cut, and against NumPy on all activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from PIL import Image

import onnxnorm
from onnxnorm.errors import DataError, OptionError, StatisticsError
from onnxnorm.statistics import Statistics, Value
from onnxnorm.statistics.histograms import WIDTH
from tests.helpers import oracle
from tests.helpers.calibrations import close, net
from tests.helpers.commands import DEMO, IMAGES
from tests.helpers.graphs import model, rand

Floats = NDArray[np.float64]
ALSO = ("p99.9",)


@pytest.fixture(scope="module")
def photos() -> NDArray[np.float32]:
    """All photographs of the demo, as RGB/255 in its size."""
    opened = [Image.open(path).convert("RGB").resize((64, 64)) for path in sorted(IMAGES.iterdir())]
    pixels = np.stack([np.asarray(image) for image in opened])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def measured(proto: Any, data: Any, **words: Any) -> Statistics:
    return onnxnorm.calibrate(proto, data, **({"measure": ALSO, "provider": "cpu"} | words))


def exact(raw: NDArray[Any], axis: int) -> Floats:
    """Of each channel, over everything else, from all numbers in order; 99.9 % of them is exactly 999 of 1,000."""
    rows = np.abs(np.moveaxis(raw.astype(np.float64), axis, 0).reshape(raw.shape[axis], -1))
    return np.asarray(np.sort(rows, axis=1)[:, -(-rows.shape[1] * 999 // 1000) - 1])


def errors(statistics: Statistics, proto: onnx.ModelProto, feeds: Any, axis: int = 1) -> Floats:
    """The relative errors of all channels, against the oracle."""
    raw = oracle.activations(proto, feeds, [value.name for value in statistics.histograms])
    found = []
    for value, histogram in statistics.histograms.items():
        want, got = exact(raw[value.name], axis), statistics.values[value].percentile("99.9")
        assert histogram.positions == statistics.values[value].weight == raw[value.name].size // len(want)
        assert ((got == 0) == (want == 0)).all()
        found.append(np.abs(got - want)[want > 0] / want[want > 0])
    return np.concatenate(found)


def test_real_activations(photos: NDArray[np.float32]) -> None:
    """The bound that is stated for every filter, and how near most of them are."""
    proto = onnx.load(DEMO)
    found = errors(measured(DEMO, photos), proto, {proto.graph.input[0].name: photos})
    assert found.size == 239  # one filter is never active
    assert found.max() < WIDTH
    assert np.quantile(found, 0.95) < WIDTH / 2
    assert np.median(found) < WIDTH / 8


@pytest.mark.parametrize("size", [3, 8])
def test_batches_of_any_size_give_the_same_counts(photos: NDArray[np.float32], size: int) -> None:
    close(measured(DEMO, photos[:11], batch_size=size), measured(DEMO, photos[:11], batch_size=1), rtol=1e-6)


def test_shards_merge_to_the_same_counts(tmp_path: Path) -> None:
    words: dict[str, Any] = {"preset": "unit", "limit": 20, "measure": ("rms", "p99.9")}
    parts = [measured(DEMO, IMAGES, shard=f"{i}/2", **words | {"limit": 10}) for i in range(2)]
    for i, part in enumerate(parts):
        part.save(tmp_path / f"{i}")
    close(onnxnorm.merge([tmp_path / "0", tmp_path / "1"]), measured(DEMO, IMAGES, **words), rtol=1e-6)
    with pytest.raises(StatisticsError, match="differ in their percentiles"):
        onnxnorm.merge([parts[0], measured(DEMO, IMAGES, **words | {"measure": ("rms",), "shard": "1/2"})])


def test_one_percentile_measured_is_all_measured(tmp_path: Path) -> None:
    """What was measured as p99 is the same file as what was measured as p99.9, merges with it and is read as any."""
    x = np.abs(rand(6, 3, 64, 64))
    one, other = measured(DEMO, x[:3], measure=("p99",)), measured(DEMO, x[3:], measure=("p99.9:nonzero",))
    close(one, measured(DEMO, x[:3], measure=("p99.9", "p50")), rtol=1e-12)
    assert one.measures == ("max", "p99.9")
    both = onnxnorm.merge([one, other])
    for statistic in ("p75", "p75:nonzero"):
        layer = onnxnorm.rewrite(DEMO, both, statistic=statistic, verify=False).rewriting.scales.layers[0]
        raw = oracle.activations(onnx.load(DEMO), {"input": x}, [layer.layer.site.value])[layer.layer.site.value]
        rows = np.moveaxis(raw, 1, 0).reshape(raw.shape[1], -1)
        kept = [row[row != 0] if "nonzero" in statistic else row for row in rows]
        want = [np.quantile(row, 0.75, method="inverted_cdf") if row.size else 0.0 for row in kept]
        np.testing.assert_allclose(layer.statistic, want, rtol=WIDTH, atol=1e-7)


def test_a_resumed_run_has_the_same_counts(tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.done >= 9:
            raise KeyboardInterrupt

    point = tmp_path / "point"
    words: dict[str, Any] = {"preset": "unit", "limit": 20, "batch_size": 3, "checkpoint": point}
    with pytest.raises(KeyboardInterrupt):
        measured(DEMO, IMAGES, progress=stop, **words)
    assert Statistics.load(point).measures == ("max", *ALSO)
    with pytest.raises(StatisticsError, match="another run: its measures differs"):
        measured(DEMO, IMAGES, resume=True, **words | {"measure": ()})
    close(measured(DEMO, IMAGES, resume=True, **words), measured(DEMO, IMAGES, preset="unit", limit=20), rtol=1e-6)


def test_images_of_several_sizes_count_by_their_positions() -> None:
    batches = [rand(2, 3, 8, 9), rand(1, 3, 20, 16, seed=1), rand(3, 3, 8, 9, seed=2)]
    found = measured(net(), iter(batches))
    raw = [oracle.activations(net(), {"x": x}, ["r"])["r"].reshape(len(x), 5, -1) for x in batches]
    want = exact(np.concatenate([array.transpose(1, 0, 2).reshape(5, -1) for array in raw], axis=1), 0)
    np.testing.assert_allclose(found.values[Value("r", "mean")].percentile("99.9"), want, rtol=WIDTH)
    with pytest.raises(OptionError, match=r"--weighting image .* leave --weighting out"):
        measured(net(), iter(batches), weighting="image")


LAST = "a = Conv(x, w, b) t = Transpose<perm=[0,2,3,1]>(a) z = Relu(t)"
LAYOUTS = {
    "channels last": (LAST, 3, "mean"),
    "signed, without a non-linearity": ("z = Conv(x, w, b)", 1, "mean_abs"),
    "several rows a sample": ("q = Reshape(x, s) a = Conv(q, w, b) z = LeakyRelu<alpha=0.5>(a)", 1, "mean"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("batch", [None, 4])
def test_layouts(name: str, batch: int | None) -> None:
    """Channels on another axis, values that are not behind a Relu, fixed batches that are filled up."""
    body, axis, measure = LAYOUTS[name]
    folded = "Reshape" in body
    constants = {"w": rand(4, 3, 3, 3), "b": rand(4, seed=1)} | ({"s": [-1, 3, 10, 10]} if folded else {})
    proto = model(body, {"x": (batch or "n", 6 if folded else 3, 10, 10)}, constants)
    x = rand(6, 6 if folded else 3, 10, 10, seed=5)
    found = measured(proto, x, batch_size=batch or 3)
    assert list(found.histograms) == [Value("z", measure)]
    free = model(body, {"x": ("n", *x.shape[1:])}, constants)
    assert errors(found, free, {"x": x}, axis).max() < WIDTH


def test_a_value_whose_shape_is_known_at_run_time_only() -> None:
    """Behind an operator that shape inference does not know."""
    body = "q = com.microsoft.Gelu(x) z = Conv(q, w, b)"
    constants = {"w": rand(4, 3, 3, 3), "b": rand(4, seed=1)}
    proto = model(body, {"x": ("n", 3, 12, 12)}, constants, domains=["com.microsoft"])
    x = rand(5, 3, 12, 12)
    assert errors(measured(proto, x, batch_size=2), proto, {"x": x}).max() < WIDTH


def test_float16_is_counted_in_float32() -> None:
    weight = rand(4, 3, 3, 3).astype("f2")
    proto = model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 3, 10, 10)}, {"w": weight}, dtype=TensorProto.FLOAT16)
    x = rand(5, 3, 10, 10).astype("f2")
    assert errors(measured(proto, x), proto, {"x": x}).max() < WIDTH


def test_float64_is_counted_in_float32() -> None:
    weight = rand(7, 4).astype("f8")
    proto = model("a = MatMul(x, w) z = Relu(a)", {"x": ("n", 10, 7)}, {"w": weight}, dtype=TensorProto.DOUBLE)
    x = rand(5, 10, 7).astype("f8")
    assert errors(measured(proto, x, filters="all"), proto, {"x": x}, axis=2).max() < WIDTH
    with pytest.raises(DataError, match="activation 'z' has numbers beyond the range of float32"):
        measured(proto, x * 1e60, filters="all")


def test_what_is_not_finite_is_named() -> None:
    bad = rand(2, 3, 12, 12)
    bad[1, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="infinite or not a number"):
        measured(net(), bad)
