"""Which preprocessing follows from preset, options and model; and what is refused, with advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxnorm.data.images.choosing import preprocessing_for
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.errors import DataError, InputError, OptionError
from onnxnorm.model.inputs import InputSpec

Shape = tuple[int | None, ...]
OPEN: Shape = (None, 3, None, None)


def resolve(shape: Shape = OPEN, dtype: Any = np.float32, **options: Any) -> Preprocessing:
    return preprocessing_for(InputSpec("x", shape, np.dtype(dtype)), ImageOptions(**options))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((None, 3, 224, 224), "nchw"),
        ((1, 1, 28, 28), "nchw"),
        ((None, 224, 224, 3), "nhwc"),
        ((None, None, None, 1), "nhwc"),
        (OPEN, "nchw"),
    ],
)
def test_the_layout_follows_from_where_the_channels_are(shape: Shape, layout: str) -> None:
    assert resolve(shape).layout == layout


@pytest.mark.parametrize("shape", [(None, None, None, None), (1, 3, 224, 3), (1, None, 5, 5), (1, 5, 5, None)])
def test_an_ambiguous_layout_is_asked_for(shape: Shape) -> None:
    with pytest.raises(OptionError, match="--layout"):
        resolve(shape)


def test_a_given_layout_settles_it() -> None:
    assert resolve((1, 3, 224, 3), layout="nhwc").size == (3, 224)
    assert resolve((1, 3, 224, 3), layout="nchw").size == (224, 3)
    assert resolve((None, None, None, None), layout="nhwc").channels == "rgb"
    assert resolve((None, None, None, None), layout="nhwc", channels="gray").preset == "unit"


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 10), np.float32), ((1, 4, 8, 8), np.float32), ((1, 3, 8, 8, 8), np.float32), ((1, 3, 8, 8), np.int64)],
)
def test_inputs_that_take_no_images_say_so(shape: Shape, dtype: Any) -> None:
    with pytest.raises(DataError, match=r"input x .*\.npy or \.npz"):
        resolve(shape, dtype)


def test_a_wrong_layout_is_named() -> None:
    with pytest.raises(DataError, match=r"NHWC it has 224 channels.*check --layout"):
        resolve((1, 3, 224, 224), layout="nhwc")


@pytest.mark.parametrize("size", ["32x48", " 32 X 48 ", (32, 48)])
def test_sizes_are_height_times_width(size: Any) -> None:
    assert resolve(size=size).size == (32, 48)


def test_one_number_is_a_square_and_the_default_is_224() -> None:
    assert resolve(size="64").size == resolve(size=64).size == (64, 64)
    assert resolve().size == (224, 224)
    assert resolve((None, 3, 100, None)).size == (100, 224)


@pytest.mark.parametrize("size", ["", "0", "ax3", "1x2x3", "-5", (1, 2, 3), 0, "99999999"])
def test_other_sizes_are_refused(size: Any) -> None:
    with pytest.raises(OptionError, match="HxW"):
        resolve(size=size)


def test_a_size_may_repeat_but_not_contradict_the_model() -> None:
    assert resolve((1, 3, 32, 48), size="32x48").size == (32, 48)
    with pytest.raises(OptionError, match="contradicts"):
        resolve((1, 3, 32, 48), size="48x32")
    with pytest.raises(OptionError, match="contradicts"):
        resolve((1, 3, None, 48), size="32")


def test_own_size_needs_an_open_model_and_no_size() -> None:
    assert resolve(resize="none").size is None
    with pytest.raises(OptionError, match="open height and width"):
        resolve((1, 3, 32, None), resize="none")
    with pytest.raises(OptionError, match="leave one of them out"):
        resolve(size="32", resize="none")


@pytest.mark.parametrize("mean", ["0.1,0.2,0.3", "0.1 0.2 0.3", [0.1, 0.2, 0.3], (0.1, 0.2, 0.3)])
def test_parts_override_the_preset(mean: Any) -> None:
    recipe = resolve(mean=mean)
    assert recipe.mean == (0.1, 0.2, 0.3)
    assert recipe.std == (0.229, 0.224, 0.225)
    assert resolve(mean="0.5").mean == resolve(mean=0.5).mean == (0.5, 0.5, 0.5)


def test_a_presets_numbers_go_with_their_colours_and_the_users_with_the_channels() -> None:
    assert resolve(channels="bgr").mean == (0.406, 0.456, 0.485)
    assert resolve(preset="caffe").mean == (103.939, 116.779, 123.68)
    assert resolve(preset="caffe", channels="rgb").mean == (123.68, 116.779, 103.939)
    assert resolve(channels="bgr", mean="1,2,3").mean == (1, 2, 3)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "nan", "inf,1,1", "1,2", [1, 2, 3, 4], [], [None]])
def test_bad_means_are_refused(text: Any) -> None:
    with pytest.raises(OptionError, match="--mean"):
        resolve(mean=text)


@pytest.mark.parametrize("std", ["0", "1,0,1", "-1"])
def test_std_must_be_positive(std: str) -> None:
    with pytest.raises(OptionError, match="positive"):
        resolve(std=std)


def test_gray_and_three_numbers_do_not_go_together() -> None:
    gray: Shape = (1, 1, 28, 28)
    assert resolve(gray).channels == "gray"
    with pytest.raises(OptionError, match=r"preset imagenet has 3 numbers.*--preset unit"):
        resolve(gray, preset="imagenet")
    with pytest.raises(OptionError, match="give --mean one number"):
        resolve(gray, mean="1,2,3")
    with pytest.raises(OptionError, match=r"--channels rgb does not fit.*use gray"):
        resolve(gray, channels="rgb")
    with pytest.raises(OptionError, match="use rgb or bgr"):
        resolve(channels="gray")
    assert resolve(gray, preset="imagenet", mean=0.4, std=0.2).mean == (0.4,)
    assert resolve(gray, preset="tf").std == (0.5,)


def test_bytes_take_raw_only() -> None:
    for options in ({"preset": "imagenet"}, {"mean": 1}, {"preset": "unit"}):
        with pytest.raises(OptionError, match="--preset raw"):
            resolve(dtype=np.uint8, **options)


@pytest.mark.parametrize("option", ["preset", "resize", "channels", "layout"])
def test_unknown_words_list_the_known_ones(option: str) -> None:
    with pytest.raises(InputError, match=f"--{option} 'magic' is unknown; choose one of "):
        ImageOptions(**{option: "magic"})  # type: ignore[arg-type]


def test_jpegs_are_reduced_to_three_times_what_is_needed_unless_images_keep_their_size() -> None:
    assert resolve().draft == resolve(resize="squash").draft == 3
    assert resolve(resize="none").draft == 0
