"""A network that does its own preprocessing: its images are not prepared once more.

`onnxnorm features --fold-preprocessing PRESET` puts the preset in front of a network, which then reads RGB in
[0, 1], and notes that in the model's metadata.
"""

from __future__ import annotations

from dataclasses import replace

from onnxnorm.data.images.options import ImageOptions
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model

__all__ = ["FOLDED", "without_folded"]

FOLDED = "onnxnorm.features.fold_preprocessing"
_READS = "unit"


def without_folded(model: Model, options: ImageOptions | None) -> ImageOptions:
    """The options of images, with the preset `unit` by default if the network does its own preprocessing.

    Raises:
        OptionError: if they ask for another preset, so that images would be prepared twice.
    """
    folded = next((entry.value for entry in model.proto.metadata_props if entry.key == FOLDED), None)
    options = options or ImageOptions()
    if folded is None or options.transform is not None:
        return options
    if options.preset not in {None, _READS}:
        raise OptionError(
            f"--preset {options.preset}: the network does its own preprocessing (--fold-preprocessing {folded}) and "
            f"reads RGB in [0, 1]; leave --preset out, or give --preset {_READS}"
        )
    return replace(options, preset=_READS)
