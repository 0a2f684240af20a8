"""Pooling, resizing, padding, sampling: homogeneous if no scale varies along the axes that the operator works on.

Inputs and outputs are `(N, C, *spatial)`; Resize and Pad take any shape.

Source: the specification of ONNX's operators of these names, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import law
from onnxnorm.scaling.operand import Operand, Refusal
from onnxnorm.scaling.operators.movement import moved
from onnxnorm.scaling.slots import at_rank
from onnxnorm.scaling.visit import Outcome, Visit

_POINTS = "it says where the operator reads"


@law("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", role="transparent")
def pool(visit: Visit) -> Outcome:
    """Scales of channels pass. The second output of MaxPool, the indices of the maxima, has no scale."""
    source = visit.first()
    if source.shape is None and not source.uniform and source.ids.ndim < 3:
        return Refusal("the shape of its input is not known")
    return visit.merge_but(source.ids, [0, 1])


@law("GridSample", "RoiAlign", "MaxRoiPool")
def sample(visit: Visit) -> Outcome:
    """Scales of channels pass; the input that says where to read keeps scale 1."""
    source = visit.first()
    if source.shape is None and not source.uniform:
        return Refusal("the shape of its input is not known")
    visit.pin_rest(1, _POINTS)
    return visit.merge_but(source.ids, [1])


@law("MaxUnpool")
def unpool(visit: Visit) -> Outcome:
    """It moves values to any indices, with zeros elsewhere, so all values share one scale."""
    visit.pin_rest(1, _POINTS)
    return visit.merge_but(visit.first().ids, []).reshape(-1)[:1]


@law("Col2Im")
def columns_to_image(visit: Visit) -> Outcome:
    """It sums the columns `(N, C * block, L)` of a channel into an image `(N, C, *spatial)`, so a channel is tied."""
    source, shape = visit.first(), visit.output_shape()
    if source.uniform:
        return source.ids
    if source.shape is None or shape is None:
        return Refusal("the shape of its input or output is not known")
    ids = np.broadcast_to(visit.merge_but(source.ids, [1]), (1, source.shape[1], 1)).reshape(1, shape[1], -1)
    return visit.merge(ids, 2).reshape(1, -1, *[1] * (len(shape) - 2))


@law("Resize", "Upsample", role="transparent")
def resize(visit: Visit) -> Outcome:
    """Scales pass, but are tied along resized axes: all modes are linear. An extrapolation value must be 0."""
    source, shape = visit.first(), visit.output_shape()
    outside = visit.node.attribute("extrapolation_value", 0.0)
    if visit.node.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize" and outside != 0:
        return Refusal(f"it puts {outside:g} outside of the input")
    visit.pin_rest(1, "it says by how much to resize")
    if source.uniform:
        return source.ids
    if source.shape is None or shape is None or len(shape) != source.rank:
        return Refusal("the shape of its input or output is not known")
    return visit.merge_but(source.ids, _kept_axes(visit, source, shape))


def _kept_axes(visit: Visit, source: Operand, shape: tuple[int, ...]) -> list[int]:
    """The axes that a Resize leaves unchanged: those that it does not name, and those whose stated factor is 1.

    Equal sizes do not suffice: 5 channels times 1.1 give 5 channels again, but interpolated at other positions.
    """
    node, rank = visit.node, source.rank
    listed = node.attribute("axes")
    worked = list(range(rank)) if listed is None else [axis % rank for axis in listed]
    kept = [axis for axis in range(rank) if axis not in worked]
    if node.attribute("coordinate_transformation_mode", "") in {"tf_crop_and_resize", "tf_half_pixel_for_nn"}:
        return kept
    factors = node.attribute("scales")
    sizes = [] if factors is None else [factors]
    given = visit.operand(1 if node.op == "Upsample" or node.opset < 11 else 2)
    if given is not None and given.shape != (0,):
        sizes = visit.numbers_by_size(given.position) or [[]]
    if sizes:
        return kept + [axis for axis, *by in zip(worked, *sizes, strict=False) if all(factor == 1 for factor in by)]
    if visit.operand(3) is not None and node.attribute("keep_aspect_ratio_policy", "stretch") == "stretch":
        return kept + [axis for axis in worked if shape[axis] == source.shape[axis]] if source.shape else kept
    return kept


@law("Pad", role="transparent")
def pad(visit: Visit) -> Outcome:
    """Scales pass. Zeros, infinity, edge, reflect and wrap agree with any scale; another constant follows one scale."""
    source = visit.first()
    axes = _padded_axes(visit, source)
    if visit.node.attribute("mode", "constant") == "constant" and axes != []:
        value, given = np.asarray(visit.node.attribute("value", 0.0)), visit.operand(2)
        if given is not None:
            if given.constant is None or given.constant.by_shape:
                return Refusal("the value that it puts around is not a constant")
            value = given.constant.values()
        if np.any(np.isfinite(value) & (value != 0)):
            return _padded_by(visit, float(value.reshape(-1)[0]), given or visit.number("value", 0.0))
    if axes is not None and all(source.ids.shape[axis] == 1 for axis in axes):
        return source.ids
    return _filled(visit, moved(visit))


def _padded_by(visit: Visit, value: float, number: Operand | None) -> Outcome:
    """All scales are tied, since one number is put around, which follows."""
    if number is None or not (number.position < 0 or visit.editable(number)):
        return Refusal(f"it puts {value:g} around, which would have to be scaled")
    one = visit.one(visit.first())
    visit.edit(number, times=at_rank(one, len(number.shape or ())))
    return one.reshape((1,) * visit.first().rank)


def _filled(visit: Visit, outcome: Outcome) -> Outcome:
    """Slots without zeros along axes of open size, since for larger inputs there can be values in their places."""
    varying = visit.graph.varying.get(visit.first().name, ())
    if isinstance(outcome, Refusal) or not varying:
        return outcome
    (ids,) = outcome
    return visit.merge_but(ids, [axis for axis in range(ids.ndim) if axis not in varying])


def _padded_axes(visit: Visit, source: Operand) -> list[int] | None:
    """The axes that a Pad pads or crops, or None if they are not known."""
    if source.shape is None:
        return None
    rank, attribute = source.rank, visit.node.attribute("pads")
    sizes = visit.numbers_by_size(1) if attribute is None else [attribute]
    named = visit.numbers(3) if visit.operand(3) is not None else list(range(rank))
    if not sizes or named is None:
        return None
    axes = [axis % rank for axis in named]
    return [axis for at, axis in enumerate(axes) if any(amounts[at] or amounts[len(axes) + at] for amounts in sizes)]


@law("CenterCropPad")
def center_crop_pad(visit: Visit) -> Outcome:
    """Scales move with the data; padded zeros agree with any scale."""
    return _filled(visit, moved(visit))
