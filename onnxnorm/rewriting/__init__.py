"""Which scale, putting it into the constants, and taking it out again."""

from onnxnorm.rewriting.constants import Clone
from onnxnorm.rewriting.factors import Factor, Rounding
from onnxnorm.rewriting.layer_statistics import (
    STATISTICS,
    WITHOUT_IMAGES,
    LayerStatistic,
    Statistic,
    measure,
    needs_images,
)
from onnxnorm.rewriting.record import PREFIX, output_scales, sidecar_path, write_sidecar
from onnxnorm.rewriting.restore import Restored, restore_model
from onnxnorm.rewriting.rewrite import Rewriting, rewrite_model
from onnxnorm.rewriting.scales import LayerScales, Scales, choose_scales, count_dead

__all__ = [
    "PREFIX",
    "STATISTICS",
    "WITHOUT_IMAGES",
    "Clone",
    "Factor",
    "LayerScales",
    "LayerStatistic",
    "Restored",
    "Rewriting",
    "Rounding",
    "Scales",
    "Statistic",
    "choose_scales",
    "count_dead",
    "measure",
    "needs_images",
    "output_scales",
    "restore_model",
    "rewrite_model",
    "sidecar_path",
    "write_sidecar",
]
