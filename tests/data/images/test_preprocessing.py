"""Preprocessing, against formulas written down independently."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from onnxnorm.data.images.choosing import preprocessing_for
from onnxnorm.data.images.decoding import DecodedImage, Size, read_decoded, read_image
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.errors import OptionError, StatisticsError
from onnxnorm.model.inputs import InputSpec

PHOTOGRAPHS = sorted((Path(__file__).parents[3] / "models" / "images").glob("*.jpg"))
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


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("preset", FORMULAS)
def test_the_bits_are_those_of_one_step_at_a_time_in_float32(preset: str, channels: str, layout: str) -> None:
    shape = (None, 3, 20, 30) if layout == "nchw" else (None, 20, 30, 3)
    made = recipe(shape=shape, preset=preset, channels=channels)
    pixels = (PIXELS if channels == "rgb" else PIXELS[:, :, ::-1]).astype(np.float32)
    values = (pixels / np.float32(made.divisor) - np.array(made.mean, np.float32)) / np.array(made.std, np.float32)
    expected = values if layout == "nhwc" else values.transpose(2, 0, 1)
    np.testing.assert_array_equal(made(Image.fromarray(PIXELS)), expected)


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


def test_none_keeps_each_images_size() -> None:
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


def drawing(width: int, height: int) -> Image.Image:
    """Slopes, stripes from coarse to finer than any reduction keeps, and grain."""
    y, x = np.mgrid[0:height, 0:width]
    stripes = 40 * np.sin(x**2 / (2.0 * width)) + 40 * np.sin(y**2 / (3.0 * height))
    slopes = 60 * x / width, 60 * y / height, 60 * (1 - x / width)
    grain = np.random.default_rng(0).normal(0, 12, (height, width))
    pixels = np.stack([90 + slope + stripes + grain for slope in slopes], axis=-1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def spot(width: int, height: int) -> Image.Image:
    """A white spot on black, right of the middle and below."""
    y, x = np.mgrid[0:height, 0:width]
    near = ((x + 0.5) / width - 0.75) ** 2 * (width / height) ** 2 + ((y + 0.5) / height - 0.75) ** 2
    return Image.fromarray((250 * np.exp(-near / 0.01)).astype(np.uint8))


def jpeg(folder: Path, image: Image.Image, **options: Any) -> Path:
    path = folder / "a.jpg"
    image.save(path, quality=90, **options)
    return path


def raw(height: int, width: int, **options: Any) -> Preprocessing:
    return recipe(shape=(None, 3, height, width), preset="raw", **options)


def both(made: Preprocessing, path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
    """The sample from a reduced decoded, the one from the full decoded, and the reduction."""
    decoded = read_decoded(path, made.least)
    return made(decoded), made(read_image(path)), round(decoded.size[0] / decoded.image.width)


def grey_levels(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """The mean difference of pixels."""
    return float(abs(one - other).mean())


def in_two_steps(made: Preprocessing, path: Path, factor: int) -> npt.NDArray[Any]:
    """The sample by Pillow's own reduction, the mean of whole blocks, and the rest of the way."""
    image = read_image(path)
    return made(DecodedImage(image.reduce(factor), image.size, (0, 0, image.width / factor, image.height / factor)))


# Scaling rounds twice, rows and then columns, and the first rounding is partly averaged out: two samples of equal
# images before rounding differ by a third of a grey level on average (each is off by up to 0.5) and a little.
# What comes on top is the other filter: as much as that of Pillow's own reduction by whole blocks with the same gap,
# which Pillow calls indistinguishable in most cases.
ROUNDING = 0.4


@pytest.mark.parametrize("side", [24, 16, 12, 6])
def test_photographs_decoded_at_a_fraction_differ_by_less_than_pillows_own_reduction(side: int) -> None:
    differences, usual = [], []
    for path in PHOTOGRAPHS:
        made = raw(side, side)
        sample, full, reduction = both(made, path)
        assert reduction == {24: 2, 16: 2, 12: 4, 6: 8}[side]
        assert abs(sample.mean() - full.mean()) < ROUNDING
        differences.append(grey_levels(sample, full))
        usual.append(grey_levels(in_two_steps(made, path, reduction), full))
    assert np.mean(differences) < np.mean(usual) + ROUNDING / 2
    assert max(differences) < max(usual) + ROUNDING + 0.1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("size", "reduction"), [((401, 301), 2), ((1001, 751), 4), ((1023, 1777), 8)])
@pytest.mark.parametrize("options", [{}, {"resize": "squash"}, {"channels": "gray"}])
def test_drawings_decoded_at_a_fraction(
    tmp_path: Path, size: Size, reduction: int, options: dict[str, str], progressive: bool
) -> None:
    path = jpeg(tmp_path, drawing(*size), progressive=progressive)
    made = recipe(shape=(None, 1 if "channels" in options else 3, 40, 40), preset="raw", **options)
    sample, full, reduced_by = both(made, path)
    assert reduced_by == reduction
    assert grey_levels(sample, full) < 1
    assert abs(sample.mean() - full.mean()) < ROUNDING


def centre(sample: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The centre of what is bright, (row, column) in pixels of the sample."""
    weights = np.asarray(sample[0], np.float64)
    return np.array([(weights * at).sum() / weights.sum() for at in np.mgrid[0 : len(weights), 0 : len(weights[0])]])


@pytest.mark.parametrize("size", [(401, 301), (1001, 757), (286, 201), (327, 301), (201, 337)])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_nothing_moves_when_the_reduced_size_is_rounded(tmp_path: Path, size: Size, resize: str) -> None:
    """The last decoded row and column are partly outside of the decoded: taking them for whole ones moves it."""
    path = jpeg(tmp_path, spot(*size))
    made = raw(24, 24, resize=resize)
    sample, full, reduction = both(made, path)
    assert reduction > 1
    without_box = made(DecodedImage.whole(read_decoded(path, made.least).image))
    assert abs(centre(sample) - centre(full)).max() < 0.02
    assert abs(centre(without_box) - centre(full)).max() > 0.04


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("height", [20, 36])
def test_turned_images_stay_where_they_are_too(tmp_path: Path, orientation: int, height: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    sample, full, reduction = both(raw(height, 24), jpeg(tmp_path, spot(401, 301), exif=exif))
    assert reduction == (4 if height == 20 else 2)
    assert sample.shape == (3, height, 24)
    assert abs(centre(sample) - centre(full)).max() < 0.02
    assert grey_levels(sample, full) < ROUNDING


def test_a_long_strip_is_reduced_and_cropped_alike(tmp_path: Path) -> None:
    sample, full, reduction = both(raw(20, 10), jpeg(tmp_path, drawing(8001, 203)))
    assert reduction == 2
    assert grey_levels(sample, full) < 2 * ROUNDING


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (71, 71), (72, 71), (5000, 71)])
def test_images_too_small_to_be_reduced_keep_their_bits(tmp_path: Path, size: Size) -> None:
    sample, full, reduction = both(raw(12, 12), jpeg(tmp_path, drawing(*size)))
    assert reduction == 1
    np.testing.assert_array_equal(sample, full)


def test_who_wants_whole_images_gets_them(tmp_path: Path) -> None:
    path = jpeg(tmp_path, drawing(400, 300))
    made = replace(raw(12, 12), draft=0)
    assert both(raw(12, 12), path)[2] == 8
    assert both(made, path)[2] == 1
    own = recipe(shape=(None, 3, None, None), resize="none")
    assert both(replace(own, draft=3), path)[2] == 1


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


def test_a_record_without_draft_is_one_of_whole_images() -> None:
    record = recipe().to_json()
    assert record.pop("draft") == 3
    whole = Preprocessing.from_json(record)
    assert whole == replace(recipe(), draft=0)
    assert whole.to_json() == record


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
        Preprocessing("x", "rgb", 1.0, (0.0,), (1.0,), None, "none", "nchw", np.dtype(np.float32), 0)
    with pytest.raises(OptionError, match="arrays instead"):
        Preprocessing("x", "gray", 1.0, (0.0,), (1.0,), None, "none", "nchw", np.dtype(np.int64), 0)
    with pytest.raises(OptionError, match="draft -1"):
        replace(recipe(), draft=-1)
