"""`merge`: statistics over different images, added up."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from onnxnorm.api.common import StatisticsLike, loaded
from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Statistics

if sys.version_info >= (3, 11):
    pass
else:
    pass

__all__ = ["merge"]


def merge(statistics: Sequence[StatisticsLike]) -> Statistics:
    """Add up statistics of one model over different images. Raises StatisticsError if they do not belong together."""
    if not statistics:
        raise StatisticsError("there are no statistics to merge")
    return Statistics.merged(loaded(part) for part in statistics)
