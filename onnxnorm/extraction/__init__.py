"""Chosen activations of a network as outputs, the rest cut away, and changes that people make to a VGG before that.

`names` turns what the user calls a layer into a value, `cutting` makes a model of what these values need, and `changes`
holds the three changes. `extract` does all of it.
"""

from onnxnorm.extraction.extract import Features, extract_features
from onnxnorm.extraction.options import FeatureOptions

__all__ = ["FeatureOptions", "Features", "extract_features"]
