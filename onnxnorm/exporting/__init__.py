"""The constants of a model as a file of another framework.

`layouts` says under which names, and in which order of axes, constants go into the file; `formats` writes files.
"""

from onnxnorm.exporting.export import Exported, export_constants
from onnxnorm.exporting.options import ExportOptions, ThresholdOptions
from onnxnorm.exporting.thresholds import Thresholds, export_thresholds

__all__ = ["ExportOptions", "Exported", "ThresholdOptions", "Thresholds", "export_constants", "export_thresholds"]
