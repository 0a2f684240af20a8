"""Which values of a network follow from others, once every range was compared with raw activations."""

from __future__ import annotations

import numpy as np
import onnx

import onnxnorm
from onnxnorm.calibration.links import find_links
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import trace
from onnxnorm.scaling.channels import channel_axes
from tests.helpers import oracle
from tests.helpers.graphs import Array


def checked_links(
    proto: onnx.ModelProto, data: dict[str, Array], rtol: float = 1e-6, batch_size: int = 3
) -> dict[str, str]:
    """The values that follow from others, with the names of those; all ranges are right, linked and measured."""
    traced = trace(read_graph(Model.open(proto), {name: (1, *array.shape[1:]) for name, array in data.items()}))
    axes = channel_axes(traced)
    links = {name: " ".join(link.sources) for name, link in find_links(traced, axes).items()}
    found = onnxnorm.calibrate(proto, data, measure=("range",), provider="cpu", batch_size=batch_size).peaks
    raw = oracle.activations(proto, data, [name for name in axes if name not in data])
    for name, values in raw.items():
        one = np.abs(values.astype(np.float64))
        others = tuple(axis for axis in range(1, one.ndim) if axis not in axes[name])
        each = one.max(axis=others).reshape(len(one), -1)
        for what, want in (("largest", each.max(axis=0)), ("mean", each.mean(axis=0))):
            got = np.asarray(getattr(found[name], what))
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-6, err_msg=f"{name}, {what}")
    return links
