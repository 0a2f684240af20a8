"""`export`: the constants of a model as a file of another framework."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxnorm.api.common import StatisticsLike, check_output, load_statistics
from onnxnorm.exporting import Exported, ExportOptions, Thresholds, export_constants
from onnxnorm.exporting import export_thresholds as write_thresholds
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.options import documented

__all__ = ["export", "export_thresholds"]


@documented(ExportOptions)
def export(
    model: ModelLike, output: str | os.PathLike[str], *, options: ExportOptions | None = None, **keywords: Any
) -> Exported:
    """Write the constants of a model as `.safetensors`, `.npz`, `.h5` (extra `h5`) or `.pth` (extra `torch`).

    Args:
        model: a path, or a ModelProto.
        output: the file to write; its ending says the format. It cannot be `model`.
        options: all options as one object, instead of keywords.
        **keywords: options by name, below.

    Returns:
        What was written, and what the network that loads it must do as the model does.

    Raises:
        ModelError: if the model cannot be read.
        OptionError: if format, layout and model do not fit each other, or `output` is an input or cannot be written.
    """
    options = ExportOptions.of(options, keywords)
    opened = Model.open(model)
    check_output(output, opened)
    return export_constants(opened, Path(output), options)


def export_thresholds(
    model: ModelLike, statistics: StatisticsLike, output: str | os.PathLike[str], *, statistic: str = "max"
) -> Thresholds:
    """Write one number per layer as JSON: the statistic of all activations of the layer together.

    Args:
        model: a path, or a ModelProto.
        statistics: a path, or `Statistics`, measured on this model.
        output: the `.json` file to write.
        statistic: "max", "mean", "rms" or a percentile such as "p99.9" or "p99.9:nonzero".

    Returns:
        What was written.

    Raises:
        ModelError: if the model cannot be read.
        OptionError: if the statistic is not measured on images, or `output` is an input or cannot be written.
        StatisticsError: if the statistics were measured on another model, or lack what is needed.
    """
    opened, measured = Model.open(model), load_statistics(statistics)
    check_output(output, opened, statistics)
    return write_thresholds(opened.fed(measured.settings), measured, Path(output), statistic)
