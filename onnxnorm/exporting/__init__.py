"""The constants of a model as a file of another framework, and such a file as a model again.

`layouts` says under which names, and in which order of axes, constants go into the file; `formats` writes files.
The other way, `reading` reads the arrays of a file, `recognition` finds the convolutions of a VGG among them, and
`network` makes a model of these.
"""

from onnxnorm.exporting.export import Exported, export_constants
from onnxnorm.exporting.network import vgg_model
from onnxnorm.exporting.options import ExportOptions, ThresholdOptions
from onnxnorm.exporting.reading import read_arrays
from onnxnorm.exporting.recognition import VggWeights, recognize
from onnxnorm.exporting.thresholds import Thresholds, export_thresholds

__all__ = [
    "ExportOptions",
    "Exported",
    "ThresholdOptions",
    "Thresholds",
    "VggWeights",
    "export_constants",
    "export_thresholds",
    "read_arrays",
    "recognize",
    "vgg_model",
]
