"""`merge`: statistics over different images, added up."""

from __future__ import annotations

from collections.abc import Sequence

from onnxnorm.api.common import StatisticsLike, load_statistics
from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Statistics

__all__ = ["merge"]


def merge(statistics: Sequence[StatisticsLike]) -> Statistics:
    """Add up statistics of one model over different images.

    Args:
        statistics: paths of statistics files, or `Statistics`, at least one.

    Returns:
        The statistics over all images together; the order does not matter but for rounding.

    Raises:
        StatisticsError: if there are none, one cannot be read, they do not belong together, or images would be
            counted twice.
    """
    if not statistics:
        raise StatisticsError("there are no statistics to merge")
    return Statistics.merged(load_statistics(part) for part in statistics)
