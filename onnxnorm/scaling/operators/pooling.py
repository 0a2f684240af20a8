"""Pooling, resizing, padding: homogeneous over the axes that they work on, as long as no scale varies along those."""

from __future__ import annotations

import numpy as np

from onnxnorm.scaling.laws import Operand, Outcome, Refusal, Visit, law
from onnxnorm.scaling.operators.movement import moved

_POINTS = "it says where the operator reads"


@law("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", role="transparent")
def pool(visit: Visit) -> Outcome:
    """Scales of channels pass. Indices of maxima, a second output of MaxPool, have no scale."""
    source = visit.first()
    if source.shape is None and not source.uniform and source.ids.ndim < 3:
        return Refusal("the shape of its input is not known")
    return visit.merge_but(source.ids, [0, 1])


@law("GridSample", "RoiAlign", "MaxRoiPool")
def sample(visit: Visit) -> Outcome:
    """Scales of channels pass; the input that says where to read keeps its scale."""
    source = visit.first()
    if source.shape is None and not source.uniform:
        return Refusal("the shape of its input is not known")
    visit.pin_rest(1, _POINTS)
    return visit.merge_but(source.ids, [1])


@law("MaxUnpool")
def unpool(visit: Visit) -> Outcome:
    """Puts values where indices say, with zeros between; they may say anything, so one scale serves all values."""
    visit.pin_rest(1, _POINTS)
    return visit.merge_but(visit.first().ids, []).reshape(-1)[:1]


@law("Col2Im")
def columns_to_image(visit: Visit) -> Outcome:
    """Adds up the columns `(N, C * block, L)` of every channel into an image `(N, C, ...)`."""
    source, shape = visit.first(), visit.output_shape()
    if source.uniform:
        return source.ids
    if source.shape is None or shape is None:
        return Refusal("the shape of its input or output is not known")
    ids = np.broadcast_to(visit.merge_but(source.ids, [1]), (1, source.shape[1], 1)).reshape(1, shape[1], -1)
    return visit.merge(ids, 2).reshape(1, -1, *[1] * (len(shape) - 2))


@law("Resize", "Upsample", role="transparent")
def resize(visit: Visit) -> Outcome:
    """Every mode is linear in the input; a value put outside of it must be 0. Along resized axes scales are tied."""
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
    """The axes that a Resize leaves alone: those that it does not name, and those of the factor 1 by its own account.

    Equal sizes are not enough: 5 channels times 1.1 are 5 channels again, each from other places than before.
    """
    node, rank = visit.node, source.rank
    listed = node.attribute("axes")
    worked = list(range(rank)) if listed is None else [axis % rank for axis in listed]
    kept = [axis for axis in range(rank) if axis not in worked]
    if node.attribute("coordinate_transformation_mode", "") in {"tf_crop_and_resize", "tf_half_pixel_for_nn"}:
        return kept
    factors = node.attribute("scales")
    given = visit.constant(1 if node.op == "Upsample" or node.opset < 11 else 2)
    if given is not None and given.size:
        factors = given.values().reshape(-1).tolist()
    if factors is not None:
        return kept + [axis for axis, factor in zip(worked, factors, strict=False) if factor == 1]
    if visit.operand(3) is not None and node.attribute("keep_aspect_ratio_policy", "stretch") == "stretch":
        return kept + [axis for axis in worked if shape[axis] == source.shape[axis]] if source.shape else kept
    return kept


@law("Pad", role="transparent")
def pad(visit: Visit) -> Outcome:
    """Scales pass with zeros, which fit any scale, and with edge, reflect and wrap. Another value is refused."""
    if visit.node.attribute("mode", "constant") == "constant":
        value, given = np.asarray(visit.node.attribute("value", 0.0)), visit.operand(2)
        if given is not None:
            if given.constant is None or given.constant.by_shape:
                return Refusal("the value that it puts around is not a constant")
            value = given.constant.values()
        if np.any(value != 0):
            return Refusal(f"it puts {float(value.reshape(-1)[0]):g} around, which would have to be scaled")
    source = visit.first()
    axes = _padded_axes(visit, source)
    if axes is not None and all(source.ids.shape[axis] == 1 for axis in axes):
        return source.ids
    return moved(visit)


def _padded_axes(visit: Visit, source: Operand) -> list[int] | None:
    """The axes that a Pad pads or crops, where known."""
    if source.shape is None:
        return None
    rank, constant, named = source.rank, visit.constant(1), visit.constant(3)
    amounts = visit.node.attribute("pads") if constant is None else constant.values().reshape(-1).tolist()
    if amounts is None or (visit.operand(3) is not None and named is None):
        return None
    axes = list(range(rank)) if named is None else [axis % rank for axis in named.values().reshape(-1).tolist()]
    return [axis for at, axis in enumerate(axes) if amounts[at] or amounts[len(axes) + at]]


@law("CenterCropPad")
def center_crop_pad(visit: Visit) -> Outcome:
    """Scales move along; zeros fit any scale."""
    return moved(visit)
