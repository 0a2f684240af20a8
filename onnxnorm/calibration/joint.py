"""One output instead of hundreds: what is one row a sample is put side by side inside the graph.

Every output of a run has a price, and so has every array for NumPy. A network has hundreds of them, and a light one
takes a few milliseconds.

The runtime runs nodes in the order in which a walk backwards comes to them, and what measures must run early
(`layout`). So outputs are joined only if all that have rows of samples are: others would be measured at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.graph import Graph
from onnxnorm.model.inputs import fixed_batch

__all__ = ["Columns", "Joint", "Outputs", "has_one_row", "join", "rows_of"]

Columns: TypeAlias = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Joint:
    """The outputs of a probe that became one.

    Attributes:
        name: that output, of shape `(samples, columns)`; empty if there is none.
        places: the columns of each output in it.
    """

    name: str = ""
    places: Mapping[str, slice] = field(default_factory=dict, repr=False)

    def widths(self, names: Sequence[str]) -> tuple[int, ...]:
        """How many columns each of several outputs has."""
        return tuple(place.stop - place.start for place in (self.places[name] for name in names))

    def columns(self, names: Sequence[str]) -> Columns:
        """The columns of several outputs, one behind the other."""
        places = [self.places[name] for name in names]
        if all(left.stop == right.start for left, right in pairwise(places)):
            return slice(places[0].start, places[-1].stop)
        return np.concatenate([np.arange(place.start, place.stop) for place in places])


@dataclass(frozen=True)
class Outputs(Mapping[str, NDArray[Any]]):
    """The outputs of a probe by the names that they had before some were joined."""

    results: Mapping[str, NDArray[Any]] = field(repr=False)
    joint: Joint

    @property
    def joined(self) -> NDArray[Any]:
        """The joint output."""
        return self.results[self.joint.name]

    def __getitem__(self, name: str) -> NDArray[Any]:
        place = self.joint.places.get(name)
        return self.results[name] if place is None else self.joined[:, place]

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self.results if name != self.joint.name)
        yield from self.joint.places

    def __len__(self) -> int:
        return len(self.results) - bool(self.joint.name) + len(self.joint.places)


def rows_of(result: NDArray[Any], batch: int, value: str) -> NDArray[Any]:
    """Return an output as `(batch, k, channels)`: k rows for each sample. Raises ModelError if that does not fit."""
    channels = math.prod(result.shape[1:])
    if result.shape[0] % batch:
        raise ModelError(
            f"value {value!r} has {result.shape[0]} rows for {batch} samples: its first axis is not the batch"
        )
    return result.reshape(batch, result.shape[0] // batch, channels)


def has_one_row(graph: Graph, value: str) -> bool:
    """Whether the first axis of a value has one row for each sample, for inputs of any size."""
    feed = next((spec for spec in graph.inputs if spec.batch is not None and spec.value is None), None)
    if feed is None or feed.batch is None or value in graph.claimed:
        return False
    if fixed_batch(graph.inputs) is None and 0 not in graph.batched.get(value, ()):
        return False
    for shapes in (graph.shapes, *(other.shapes for other in graph.resized)):
        own, fed = shapes.get(value), shapes.get(feed.name)
        if not own or not fed or own[0] != fed[feed.batch]:
            return False
    return True


def join(probe: onnx.GraphProto, widths: Mapping[str, int], name: str) -> Joint:
    """Make one output of several, each `(samples, width)` in float32, by a node that stands last.

    Args:
        probe: the graph, which is changed.
        widths: the outputs, in the order of their columns, and how many columns each has.
        name: a name for the new output and its node.
    """
    if len(widths) < 2:
        return Joint()
    others = [output for output in probe.output if output.name not in widths]
    probe.node.append(onnx.helper.make_node("Concat", list(widths), [name], name=name, axis=1))
    del probe.output[:]
    shape = [None, sum(widths.values())]
    probe.output.extend([*others, onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)])
    places, end = dict[str, slice](), 0
    for output, width in widths.items():
        places[output] = slice(end, end := end + width)
    return Joint(name, places)
