"""`check`: whether a file of weights of a VGG is normalized."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.api.calibrate import calibrate
from onnxnorm.api.options import CalibrationOptions, CheckOptions
from onnxnorm.api.progress import OnProgress
from onnxnorm.data.opening import Data
from onnxnorm.errors import ModelError
from onnxnorm.exporting import read_arrays, recognize, vgg_model
from onnxnorm.options import documented
from onnxnorm.statistics import Statistics
from onnxnorm.statistics.moments import stand_out

__all__ = ["Checked", "LayerMeans", "check"]

BETWEEN = (0.5, 2.0)
"""Between which means a filter counts as normalized: other images than those of the calibration give other means."""

SHARE = 0.75
"""Which share of the filters that are not dead has to be, for the file to count as normalized."""


@dataclass(frozen=True)
class LayerMeans:
    """The mean activations of the filters of a layer, shape `(filters,)`, and its name, such as `conv1_1`."""

    name: str
    means: NDArray[np.float64] = field(repr=False)

    @property
    def live(self) -> NDArray[np.float64]:
        """Those of the filters that are not dead (`statistics.moments.stand_out`)."""
        return self.means[stand_out(self.means)]


@dataclass(frozen=True)
class Checked:
    """The outcome of `check`.

    Attributes:
        layers: the convolutions in order, with what their filters gave.
        statistics: what was measured, and how images were prepared.
        guessed: the preset, if it follows from the names in the file; None if it was given.
    """

    layers: tuple[LayerMeans, ...]
    statistics: Statistics = field(repr=False)
    guessed: str | None

    @property
    def share(self) -> float:
        """The share of the filters that are not dead whose means are near 1; 0 if all are dead."""
        live = np.concatenate([layer.live for layer in self.layers])
        low, high = BETWEEN
        return float(((live >= low) & (live <= high)).mean()) if len(live) else 0.0

    @property
    def normalized(self) -> bool:
        """Whether that share is large enough."""
        return self.share >= SHARE

    def __str__(self) -> str:
        low, high = BETWEEN
        verdict = "normalized" if self.normalized else "NOT normalized"
        if self.guessed and not self.normalized:
            verdict += f", if it reads images as {self.guessed}, which is a guess"
        return f"{self.share:.1%} of the filters that are not dead have a mean between {low:g} and {high:g}: {verdict}"


@documented(CheckOptions)
def check(
    file: str | os.PathLike[str],
    data: Data,
    *,
    options: CheckOptions | None = None,
    progress: OnProgress = None,
    **keywords: Any,
) -> Checked:
    """Measure the mean activations of a VGG whose weights are in a file of another framework.

    Args:
        file: a `.pth` (extra `torch`), `.h5` (extra `h5`), `.npz` or `.safetensors` with the convolutions of a VGG
            under the names of Caffe, Keras, torchvision or AdaIN.
        data: images, as for `calibrate`.
        options: all options as one object, instead of keywords. Without a `preset` it follows from the names.
        progress: called after every batch; True for a progress bar on standard error, or in the notebook.
        **keywords: options by name, below.

    Returns:
        The means of every layer, and whether they are near 1.

    Raises:
        ModelError: if the file cannot be read, or holds no VGG.
        DataError: if data is missing, or does not fit.
        OptionError: if a package is missing, or the value of an option makes no sense.
    """
    options = CheckOptions.of(options, keywords)
    arrays = read_arrays(Path(file))
    try:
        found = recognize(arrays)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None
    given = options.preset is not None or options.transform is not None
    measuring = options.part(CalibrationOptions, **({} if given else {"preset": found.preset}))
    model = vgg_model(found, average=options.pool == "average", reflect=options.padding == "reflect")
    statistics = calibrate(model, data, options=measuring, progress=progress)
    means = {value.name: moments.mean for value, moments in statistics.means.items()}
    layers = (LayerMeans(name.replace("relu", "conv"), values) for name, values in means.items() if "relu" in name)
    return Checked(tuple(layers), statistics, None if given else found.preset)
