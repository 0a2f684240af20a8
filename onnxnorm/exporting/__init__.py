"""The constants of a model as a file of another framework.

`layouts` says under which names, and in which order of axes, constants go into the file; `formats` writes files.
"""

from onnxnorm.exporting.export import Exported, export_constants
from onnxnorm.exporting.options import ExportOptions

__all__ = ["ExportOptions", "Exported", "export_constants"]
