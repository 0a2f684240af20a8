"""What the filters do on images: sources, preprocessing, the probe, sessions, and the engine that joins them."""

from onnxnorm.calibration.engine import Enough, Progress, calibrate_model
from onnxnorm.calibration.image_options import ImageOptions
from onnxnorm.calibration.sessions import Runtime
from onnxnorm.calibration.sources import Data, open_data

__all__ = ["Data", "Enough", "ImageOptions", "Progress", "Runtime", "calibrate_model", "open_data"]
