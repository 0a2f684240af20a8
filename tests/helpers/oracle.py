"""The slow, sure way to measure: run a model with raw activations as outputs, and average them in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Statistics, Value
from tests.helpers.graphs import Array, inferred

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """What an oracle measured at one value; arrays have shape `(channels,)`."""

    images: int
    positions: int
    mean: Floats
    largest: Floats
    image_means: Floats
    image_weights: Floats


def activations(proto: onnx.ModelProto, feeds: Mapping[str, Array], values: Sequence[str]) -> dict[str, Array]:
    """The values of a graph on these inputs."""
    raw = onnx.ModelProto()
    raw.CopyFrom(proto)
    known = inferred(proto)
    del raw.graph.output[:]
    for name in values:
        elem_type = known[name].tensor_type.elem_type if name in known else onnx.TensorProto.FLOAT
        raw.graph.output.append(helper.make_tensor_value_info(name, elem_type, None))
    return Runtime("cpu").session(raw).run(feeds)


def measure(
    proto: onnx.ModelProto, batches: Iterable[Mapping[str, Array]], sites: Mapping[Value, int]
) -> dict[Value, Measured]:
    """Measure values, each along its channel axis, over batches whose first axis is the images."""
    means: dict[Value, list[Floats]] = {value: [] for value in sites}
    largest: dict[Value, list[Floats]] = {value: [] for value in sites}
    weights: dict[Value, list[int]] = {value: [] for value in sites}
    for feeds in batches:
        raw = activations(proto, feeds, [value.name for value in sites])
        for value, axis in sites.items():
            array = np.moveaxis(raw[value.name].astype(np.float64), axis, -1)
            array = np.abs(array) if value.measure == "mean_abs" else array
            rows = array.reshape(len(array), -1, array.shape[-1])
            means[value].extend(rows.mean(axis=1))
            largest[value].extend(rows.max(axis=1))
            weights[value].extend([rows.shape[1]] * len(rows))
    found = {}
    for value in sites:
        m, w = np.stack(means[value]), np.asarray(weights[value], np.float64)
        found[value] = Measured(
            images=len(m),
            positions=int(w.sum()),
            mean=(w[:, None] * m).sum(axis=0) / w.sum(),
            largest=np.max(largest[value], axis=0),
            image_means=m,
            image_weights=w,
        )
    return found


def assert_measured(statistics: Statistics, oracle: Mapping[Value, Measured], rtol: float = 1e-5) -> None:
    """Means and maxima agree in every channel that is not vanishingly small; images and positions agree exactly."""
    assert set(statistics.values) == set(oracle)
    for value, want in oracle.items():
        got = statistics.values[value]
        assert (got.images, got.weight) == (want.images, want.positions), value
        live = np.abs(want.mean) > 1e-6 * np.abs(want.mean).max()
        assert live.any()
        np.testing.assert_allclose(got.mean[live], want.mean[live], rtol=rtol, err_msg=value.name)
        assert got.largest is not None
        np.testing.assert_allclose(got.largest, want.largest, rtol=rtol, atol=1e-30, err_msg=value.name)
