"""Statistics pass from calibration to rewriting: moments of every measured value, their provenance and precision."""

from onnxnorm.statistics.histograms import Histogram
from onnxnorm.statistics.moments import Moments, Value
from onnxnorm.statistics.statistics import FORECAST_ERRORS, GIVEN, Statistics, Weighting

__all__ = [
    "FORECAST_ERRORS",
    "GIVEN",
    "Histogram",
    "Moments",
    "Statistics",
    "Value",
    "Weighting",
]
