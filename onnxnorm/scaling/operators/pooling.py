"""Pooling, resizing and padding: homogeneous over the axes that they work on, as long as no scale varies along those."""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import Outcome, Refusal, Visit, law
from onnxnorm.scaling.operators.movement import moved


@law("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", role="keeps")
def pool(visit: Visit) -> Outcome:
    """Windows over the axes from 2 on. Indices of maxima, a second output of MaxPool, have no scale."""
    source = visit.first()
    if source.shape is None and not source.uniform:
        return Refusal("the shape of its input is not known")
    return visit.merge_but(source.ids, [0, 1])


@law("Resize", "Upsample", role="keeps")
def resize(visit: Visit) -> Outcome:
    """Every mode is linear in the input; a value put outside of it must be 0."""
    source, shape = visit.first(), visit.output_shape()
    outside = visit.node.attribute("extrapolation_value", 0.0)
    if visit.node.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize" and outside != 0:
        return Refusal(f"it puts {outside:g} outside of the input")
    if source.uniform:
        return source.ids
    if source.shape is None or shape is None or len(shape) != source.rank:
        return Refusal("the shape of its input or output is not known")
    return visit.merge_but(source.ids, [axis for axis in range(source.rank) if shape[axis] == source.shape[axis]])


@law("Pad", role="keeps")
def pad(visit: Visit) -> Outcome:
    """Zeros fit any scale; edge, reflect and wrap repeat what is there. Another value is refused."""
    if visit.node.attribute("mode", "constant") == "constant":
        value = np.asarray(visit.node.attribute("value", 0.0))
        if visit.operand(2) is not None:
            constant = visit.constant(2)
            if constant is None:
                return Refusal("the value that it puts around is not a constant")
            value = constant.values()
        if np.any(value != 0):
            return Refusal(f"it puts {float(value.reshape(-1)[0]):g} around, which would have to be scaled")
    source = visit.first()
    shape = visit.output_shape()
    if source.shape is not None and shape is not None and len(shape) == source.rank:
        axes = [axis for axis in range(source.rank) if shape[axis] != source.shape[axis]]
        if all(source.ids.shape[axis] == 1 for axis in axes):
            return source.ids
    return moved(visit)
