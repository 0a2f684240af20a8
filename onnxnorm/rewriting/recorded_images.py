"""How the images were prepared that a rewritten model was calibrated on, as it records."""

from __future__ import annotations

import json

from onnxnorm.data.images.preprocessing import Recipe, recipe_from_json
from onnxnorm.errors import ModelError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.rewriting.record import read_entries

__all__ = ["recorded_recipe"]


def recorded_recipe(model: Model) -> Recipe | None:
    """Return how images became samples at the calibration; None if the model records nothing of it.

    Raises:
        ModelError: if the record is damaged.
    """
    text = read_entries(model).get("preprocessing")
    if text is None:
        return None
    try:
        return recipe_from_json(json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError, StatisticsError) as error:
        raise ModelError(
            "the metadata 'onnxnorm.preprocessing' of the model is damaged; rewrite the original again"
        ) from error
