"""By how much the graph outputs of a rewritten model are scaled, as it records."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.rewriting.record import PREFIX, read_entries, rewrites

__all__ = ["output_scales"]

_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


def output_scales(model: Model, original: Model) -> dict[str, NDArray[np.float64]]:
    """The scales of graph outputs, by name, each an array that broadcasts against the output.

    Args:
        model: a model that was rewritten, once or several times.
        original: the model that it is compared with: the scales of all rewrites since then are multiplied, and there
            are none if it is the same one. They are those of the last rewrite if the original is no model of these.

    Raises:
        ModelError: if the record is damaged.
    """
    levels = list(rewrites(read_entries(model)))
    if not any("outputs" in level for level in levels):
        return {}
    digest, scales = original.digest(), dict[str, NDArray[np.float64]]()
    if digest == model.digest():
        return scales
    for level in levels:
        for name, own in _outputs(level).items():
            scales[name] = own * scales.get(name, np.float64(1))
        if digest in {level.get("original"), level.get("inlined")}:
            return scales
    return _outputs(levels[0])


def _outputs(entries: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """The scales of graph outputs that one rewrite recorded."""
    key = f"{PREFIX}outputs"
    try:
        outputs = {
            name: np.asarray(item["scales"], np.float64).reshape(item["shape"])
            for name, item in json.loads(entries.get("outputs", "{}")).items()
        }
    except _DAMAGES as error:
        raise ModelError(f"the metadata {key!r} of the model is damaged ({error!r}); rewrite it again") from error
    if not all((np.isfinite(scales) & (scales > 0)).all() for scales in outputs.values()):
        raise ModelError(f"the metadata {key!r} of the model holds scales that are not positive; rewrite it again")
    return outputs
