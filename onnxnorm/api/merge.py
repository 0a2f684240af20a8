"""`merge`: combine statistics over different images."""

from __future__ import annotations

from collections.abc import Sequence

from onnxnorm.api.common import StatisticsLike, load_statistics
from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Statistics

__all__ = ["merge"]


def merge(statistics: Sequence[StatisticsLike]) -> Statistics:
    """Combine statistics of one model over different images.

    Args:
        statistics: paths of statistics files, or `Statistics`, at least one.

    Returns:
        The statistics over all images together. Their order matters only for rounding.

    Raises:
        StatisticsError: if there are none, if one cannot be read, if they are not of one model and one measurement,
            or if images would be counted twice.
    """
    if not statistics:
        raise StatisticsError("there are no statistics to merge")
    return Statistics.merged(load_statistics(part) for part in statistics)
