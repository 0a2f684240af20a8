"""`export`: the constants of a model as a file of another framework."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxnorm.api.common import check_output
from onnxnorm.exporting import Exported, ExportOptions, export_constants
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.options import documented

__all__ = ["export"]


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
