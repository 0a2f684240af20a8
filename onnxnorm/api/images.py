"""Options that prepare images as they were prepared at a calibration."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace

from onnxnorm.data.images.options import ImageOptions, given_options
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.data.images.transform import Transform
from onnxnorm.errors import DataWarning
from onnxnorm.model.files import Model
from onnxnorm.rewriting.recorded_images import recorded_recipe

__all__ = ["as_calibrated", "options_for"]


def options_for(preprocessing: Preprocessing) -> ImageOptions:
    """The options for a preprocessing that was recorded."""
    names = [item.name for item in fields(ImageOptions) if hasattr(preprocessing, item.name)]
    return ImageOptions(**{name: getattr(preprocessing, name) for name in names})


def as_calibrated(rewritten: Model, options: ImageOptions) -> ImageOptions | None:
    """The options that prepare images as a rewritten model records; None if others are given, or nothing is recorded.

    A size and a way to resize may be given: what is recorded of the pixels goes with any. There is a warning if images
    were prepared by a transform: a file alone must not say which code is run.

    Raises:
        ModelError: if the record is damaged.
    """
    if given_options(replace(options, size=None, resize=None)):
        return None
    recipe = recorded_recipe(rewritten)
    if isinstance(recipe, Transform):
        warnings.warn(
            DataWarning(
                f"at the calibration images were prepared by the transform {recipe.name}; to run it on these, give "
                f"--transform {recipe.name}"
            ),
            stacklevel=3,
        )
        return None
    if recipe is None:
        return None
    recorded = options_for(recipe)
    resize = options.resize or recorded.resize
    if options.resize is None and options.size is not None and resize == "none":
        resize = None
    size = options.size if options.size is not None or resize == "none" else recorded.size
    return replace(recorded, size=size, resize=resize)
