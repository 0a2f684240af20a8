"""Which scale, and putting it into the constants."""

from onnxnorm.rewriting.constants import Clone
from onnxnorm.rewriting.rewrite import Rewriting, rewrite_model
from onnxnorm.rewriting.scales import LayerScales, Scales, choose_scales

__all__ = ["Clone", "LayerScales", "Rewriting", "Scales", "choose_scales", "rewrite_model"]
