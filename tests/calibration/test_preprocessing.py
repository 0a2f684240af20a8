"""Preprocessing, against formulas written down independently."""

from __future__ import annotations

import json
import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from onnxnorm.calibration.image_options import ImageOptions, preprocessing_for
from onnxnorm.calibration.preprocessing import Preprocessing
from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.inputs import InputSpec

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def recipe(dtype: Any = np.float32, shape: tuple[int | None, ...] = (None, 3, 20, 30), **options: Any) -> Preprocessing:
    return preprocessing_for(InputSpec("x", shape, np.dtype(dtype)), ImageOptions(**options))


FORMULAS: dict[str, Any] = {
    "imagenet": lambda rgb: (rgb / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]),
    "caffe": lambda rgb: rgb[..., [2, 1, 0]] - np.array([103.939, 116.779, 123.68]),
    "tf": lambda rgb: rgb / 127.5 - 1,
    "unit": lambda rgb: rgb / 255,
    "raw": lambda rgb: rgb,
}


@pytest.mark.parametrize("preset", FORMULAS)
def test_presets_are_their_formulas(preset: str) -> None:
    sample = recipe(preset=preset)(Image.fromarray(PIXELS))
    expected = FORMULAS[preset](PIXELS.astype(np.float64)).transpose(2, 0, 1)
    assert sample.dtype == np.float32
    assert sample.flags.c_contiguous
    np.testing.assert_allclose(np.asarray(sample, np.float64), expected, rtol=1e-6, atol=1e-7 * abs(expected).max())


def test_the_default_is_imagenet_for_three_channels_unit_for_one_raw_for_bytes() -> None:
    assert recipe().preset == "imagenet"
    assert recipe(shape=(1, 1, 20, 30)).preset == "unit"
    assert recipe(np.uint8).preset == "raw"


def test_gray_is_pillows_luma() -> None:
    sample = recipe(shape=(None, 1, 20, 30))(Image.fromarray(PIXELS))
    luma = np.asarray(Image.fromarray(PIXELS).convert("L"), np.float32) / 255
    np.testing.assert_allclose(np.asarray(sample, np.float32), luma[None], rtol=1e-6)
    np.testing.assert_allclose(luma * 255, PIXELS @ np.array([0.299, 0.587, 0.114]), atol=0.51)


def test_nhwc_is_the_same_sample_transposed() -> None:
    image = Image.fromarray(PIXELS)
    nhwc = recipe(shape=(None, 20, 30, 3))(image)
    assert nhwc.flags.c_contiguous
    np.testing.assert_array_equal(nhwc, recipe()(image).transpose(1, 2, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_dtypes_are_the_float32_result_rounded(dtype: Any) -> None:
    image = Image.fromarray(PIXELS)
    sample = recipe(dtype)(image)
    assert sample.dtype == dtype
    np.testing.assert_array_equal(sample, recipe()(image).astype(dtype))


def test_bytes_stay_bytes() -> None:
    sample = recipe(np.uint8, (None, 20, 30, 3))(Image.fromarray(PIXELS))
    assert sample.dtype == np.uint8
    np.testing.assert_array_equal(sample, PIXELS)


def test_shortest_is_resize_then_centre_crop() -> None:
    image = Image.fromarray(PIXELS)
    sample = recipe(shape=(None, 3, 10, 10), preset="raw")(image)
    scaled = np.asarray(image.resize((15, 10), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_array_equal(sample, scaled[:, 2:12].transpose(2, 0, 1))


def test_shortest_covers_a_size_that_is_not_square() -> None:
    image = Image.fromarray(PIXELS)
    sample = recipe(shape=(None, 3, 30, 15), preset="raw")(image)
    scaled = np.asarray(image.resize((45, 30), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_array_equal(sample, scaled[:, 15:30].transpose(2, 0, 1))


def test_squash_ignores_the_aspect() -> None:
    image = Image.fromarray(PIXELS)
    sample = recipe(shape=(None, 3, 10, 10), preset="raw", resize="squash")(image)
    scaled = np.asarray(image.resize((10, 10), Image.Resampling.BILINEAR), np.float32)
    np.testing.assert_array_equal(sample, scaled.transpose(2, 0, 1))


def test_none_keeps_each_pictures_size() -> None:
    keep = recipe(shape=(None, 3, None, None), resize="none", preset="raw")
    assert keep(Image.fromarray(PIXELS)).shape == (3, 20, 30)
    assert keep(Image.fromarray(PIXELS[:5])).shape == (3, 5, 30)


def test_a_long_strip_does_not_grow_without_bound() -> None:
    strip = np.zeros((1, 20_000, 3), np.uint8)
    strip[:, 9_000:11_000] = 200
    sample = recipe(shape=(None, 3, 224, 224), preset="raw")(Image.fromarray(strip))
    assert (sample == np.float32(200)).all()


def test_a_moderately_long_strip_is_the_same_either_way() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 400, 3), np.uint8)
    sample = recipe(shape=(None, 3, 10, 10), preset="raw")(Image.fromarray(pixels)).astype(int)
    scaled = np.asarray(Image.fromarray(pixels).resize((200, 10), Image.Resampling.BILINEAR)).astype(int)
    assert abs(sample - scaled[:, 95:105].transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize(
    "preprocessing",
    [
        recipe(),
        recipe(ml_dtypes.bfloat16, (None, 3, None, None), preset="caffe", resize="none"),
        recipe(np.uint8, (None, 20, 30, 1)),
    ],
)
def test_the_record_brings_the_recipe_back(preprocessing: Preprocessing) -> None:
    record = json.loads(json.dumps(preprocessing.to_json()))
    assert Preprocessing.from_json(record) == preprocessing
    assert pickle.loads(pickle.dumps(preprocessing)) == preprocessing


def test_a_damaged_record_is_refused() -> None:
    record = recipe().to_json()
    del record["std"]
    with pytest.raises(StatisticsError, match="damaged"):
        Preprocessing.from_json(record)


def test_descriptions() -> None:
    assert recipe(shape=(None, 3, 224, 224)).describe() == (
        "imagenet: RGB/255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, shortest side to 224x224, NCHW float32"
    )
    assert recipe(preset="caffe", resize="squash").describe() == (
        "caffe: BGR 0..255, mean 103.939 116.779 123.68, squashed to 20x30, NCHW float32"
    )
    assert recipe(np.uint8, (1, None, None, 1), resize="none").describe() == (
        "raw: GRAY 0..255, at its own size, NHWC uint8"
    )


def test_a_recipe_that_contradicts_itself_cannot_be_made() -> None:
    with pytest.raises(OptionError, match="3 number"):
        Preprocessing("x", "rgb", 1.0, (0.0,), (1.0,), None, "none", "nchw", np.dtype(np.float32))
    with pytest.raises(OptionError, match="arrays instead"):
        Preprocessing("x", "gray", 1.0, (0.0,), (1.0,), None, "none", "nchw", np.dtype(np.int64))
