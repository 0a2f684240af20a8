"""Computing a scale for every group, multiplying it into the constants, and undoing that."""

from onnxnorm.rewriting.constants import Clone
from onnxnorm.rewriting.factors import Factor, Rounding
from onnxnorm.rewriting.layer_statistics import LayerStatistic, measure, needs_images, statistic_names
from onnxnorm.rewriting.record import PREFIX
from onnxnorm.rewriting.recorded_outputs import output_scales
from onnxnorm.rewriting.restore import Restored, restore_model
from onnxnorm.rewriting.rewrite import Rewriting, rewrite_model
from onnxnorm.rewriting.scales import LayerScales, Scales, choose_scales, count_dead
from onnxnorm.rewriting.sidecar import sidecar_path, sidecar_placed, write_sidecar

__all__ = [
    "PREFIX",
    "Clone",
    "Factor",
    "LayerScales",
    "LayerStatistic",
    "Restored",
    "Rewriting",
    "Rounding",
    "Scales",
    "choose_scales",
    "count_dead",
    "measure",
    "needs_images",
    "output_scales",
    "restore_model",
    "rewrite_model",
    "sidecar_path",
    "sidecar_placed",
    "statistic_names",
    "write_sidecar",
]
