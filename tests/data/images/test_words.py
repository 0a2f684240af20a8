"""The options that a hint or a report suggests prepare images as the record says."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from onnxnorm.data.images.choosing import preprocessing_for
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.images.words import image_words
from onnxnorm.errors import InputError
from onnxnorm.model.inputs import InputSpec

CHOICES: dict[str, tuple[Any, ...]] = {
    "preset": (None, "caffe", "unit", "raw"),
    "channels": (None, "rgb", "bgr", "gray"),
    "mean": (None, "3", (1.0, 2.5, 3.0)),
    "std": (None, 0.5),
    "resize": (None, "shortest", "squash", "none"),
    "size": (None, "48x80"),
    "layout": ("auto", "nchw"),
}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize(
    "shape", [(None, 3, None, None), (1, 3, 64, 64), (None, 32, 32, 1), (None, None, None, None)], ids=str
)
def test_words_lead_back_to_the_recipe(shape: tuple[int | None, ...], dtype: Any) -> None:
    spec, tried = InputSpec("x", shape, np.dtype(dtype)), 0
    for values in product(*CHOICES.values()):
        try:
            recipe = preprocessing_for(spec, ImageOptions(**dict(zip(CHOICES, values, strict=True))))
        except InputError:  # these options do not go together
            continue
        assert _again(spec, image_words(recipe.to_json(), [spec])) == recipe
        tried += 1
    assert tried > 10


def _again(spec: InputSpec, words: list[str]) -> Preprocessing:
    flags: dict[str, Any] = {
        flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    return preprocessing_for(spec, ImageOptions(**flags))


def test_no_words_where_the_defaults_do() -> None:
    spec = InputSpec("x", (None, 3, 64, 64), np.dtype(np.float32))
    assert image_words(preprocessing_for(spec, ImageOptions()).to_json(), [spec]) == []
    assert image_words(None, [spec]) == []
    assert image_words({"preset": 3}, [spec]) == []
