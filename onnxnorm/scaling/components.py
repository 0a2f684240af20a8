"""Connected components of a graph: which of its vertices are joined, by one edge or by a chain of them.

Every vertex has a *label*, the smallest vertex that is known to be joined to it. In each round the label at the higher
end of every edge that joins two labels is replaced by the lower one, and then labels of labels are followed until each
is its own. A label that stays has become that of a neighbour, or has a lower neighbour in the next round, so their
number halves in two rounds (Shiloach and Vishkin, *An O(log n) parallel connectivity algorithm*, J. Algorithms 3,
1982). It is written with NumPy alone, since the library that has it takes longer to load than a small model to measure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxnorm.scaling.slots import Ids

__all__ = ["components"]


def components(count: int, edges: Ids) -> NDArray[np.int64]:
    """The component of each of `count` vertices, shape `(count,)`, numbered in the order of their smallest vertices.

    Args:
        count: the number of vertices.
        edges: the two ends of every edge, shape `(2, n)`.
    """
    label = np.arange(count)
    one, other = edges
    while one.size:
        np.minimum.at(label, np.maximum(one, other), np.minimum(one, other))
        label = _followed(label)
        one, other = label[one], label[other]
        apart = one != other
        one, other = one[apart], other[apart]
    return np.asarray(np.unique(label, return_inverse=True)[1], np.int64)


def _followed(label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of labels, and so on, until each label is its own."""
    while True:
        further = label[label]
        if np.array_equal(further, label):
            return label
        label = further
