"""`calibrate`: measure the activations of filters on images or arrays."""

from __future__ import annotations

from typing import Any

from onnxnorm.api.progress import OnProgress, reporting
from onnxnorm.calibration.calibrate import calibrate_model
from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.data.opening import Data
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.functions import inlined
from onnxnorm.options import documented
from onnxnorm.statistics import Statistics

__all__ = ["calibrate"]


@documented(CalibrationOptions)
def calibrate(
    model: ModelLike,
    data: Data,
    *,
    options: CalibrationOptions | None = None,
    progress: OnProgress = None,
    **keywords: Any,
) -> Statistics:
    """Measure the mean activation of every filter on images or arrays.

    Args:
        model: a path, or a ModelProto.
        data: paths of images, folders, `.npy` or `.npz` files, or URIs; an array `(N, *sample)` in the model's own
            layout and dtype, or a dict of them by input name; or an iterable of those, each a batch.
        options: all options as one object, instead of keywords.
        progress: called after every batch; True for a progress bar on standard error, or in the notebook.
        **keywords: options by name, below.

    Returns:
        The statistics: moments of every measured value, per channel.

    Raises:
        ModelError: if the model cannot be read, or the runtime rejects it.
        DataError: if data is missing, or does not fit the model.
        OptionError: if the value of an option makes no sense.
        ProviderError: if the execution provider is not available.
        StatisticsError: if a checkpoint is that of another run.
        Interrupted: on Ctrl-C after at least one image; a KeyboardInterrupt that carries the `statistics` so far.

    Source:
        Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks (CVPR 2016), section 2.
    """
    options = CalibrationOptions.of(options, keywords)
    with reporting(progress) as watching:
        return calibrate_model(inlined(Model.open(model)), data, options, progress=watching)
