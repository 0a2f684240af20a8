"""`features`: chosen activations of a model as its outputs, the rest cut away."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxnorm.api.common import check_output
from onnxnorm.extraction import FeatureOptions, Features, extract_features
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.options import documented

__all__ = ["features"]


@documented(FeatureOptions)
def features(
    model: ModelLike,
    layers: str | Sequence[str],
    output: str | os.PathLike[str] | None = None,
    *,
    options: FeatureOptions | None = None,
    **keywords: Any,
) -> Features:
    """Make chosen activations the outputs of a model, and cut away what they do not need.

    Names of nodes, values and constants stay. Constants are streamed from file to file.

    Args:
        model: a path, or a ModelProto.
        layers: layers, or their names separated by commas: names of values, of nodes, or those of the VGG literature
            (`relu3_1`, `conv4_2`, `pool5`) if the network is a VGG.
        output: the file to write, which cannot be `model`; None to write none.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        The model, and what was changed.

    Raises:
        ModelError: if the model cannot be read, or the new one cannot be written.
        OptionError: if a layer is not known, a change does not apply, or `output` is an input.
    """
    options = FeatureOptions.of(options, keywords)
    opened = Model.open(model)
    if output is not None:
        check_output(output, opened)
    done = extract_features(opened, layers, options)
    if output is None:
        return done
    done.cut.write(Path(output))
    return replace(done, path=Path(output))
