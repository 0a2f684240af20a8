"""Cutting a model to chosen layers, changing it, and recording both in its metadata.

The entries, all of whose keys start with `onnxnorm.features.`:

======================  ===============================================================================================
`version`               version of onnxnorm
`source`                SHA-256 digest of the model that was cut
`layers`                the outputs, as JSON: what was asked for, and the value that it is
`pool`, `padding`, `fold_preprocessing`   the changes that were asked for; those of an earlier cut stay
`normalized`            if the source was a rewrite of onnxnorm: how, as JSON (statistic, target, digests)
======================  ===============================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import onnx

from onnxnorm.errors import OptionError
from onnxnorm.extraction.changes import average_pools, fold_preprocessing, reflect_padding
from onnxnorm.extraction.cutting import cut
from onnxnorm.extraction.names import select_values, split_layers
from onnxnorm.extraction.options import FeatureOptions
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.files import Model
from onnxnorm.model.tensors import tensor_size
from onnxnorm.rewriting.record import FEATURES, read_entries, write_entries
from onnxnorm.version import VERSION

__all__ = ["Features", "extract_features"]

# What is said about a rewrite once its record does not fit the graph any more.
_KEPT = ("version", "statistic", "strength", "target", "power_of_two", "original", "statistics", "images")


@dataclass(frozen=True)
class Features:
    """A model that has been cut to chosen layers.

    Attributes:
        cut: the model.
        layers: the value that each layer is, by the name that it was asked for with.
        changes: what else was changed, a sentence each.
        preset: the preset to calibrate with if the preprocessing is in the network now; None if nothing changed there.
        nodes: how many nodes the source and the new model have.
        constants: how many bytes of constants these have.
        path: where the model was written; None if it was not.
    """

    cut: Model = field(repr=False)
    layers: dict[str, str]
    changes: tuple[str, ...]
    preset: str | None
    nodes: tuple[int, int]
    constants: tuple[int, int]
    path: Path | None = None

    @property
    def model(self) -> onnx.ModelProto:
        """The model in memory."""
        return self.cut.to_proto()

    @property
    def outputs(self) -> dict[str, str]:
        """Element type and shape of every output, by its name."""
        return {value.name: _described(value.type) for value in self.cut.proto.graph.output}

    def __str__(self) -> str:
        described = self.outputs
        lines = [
            f"{layer}: {described[value]}" + ("" if layer == value else f", value {value!r}")
            for layer, value in self.layers.items()
        ]
        (before, after), (old, new) = self.nodes, self.constants
        lines += [
            *self.changes,
            f"{after:,} nodes (of {before:,}), {new / 1e6:.1f} MB of constants (of {old / 1e6:.1f})",
        ]
        return "\n".join(lines + ([f"written to {self.path}"] if self.path else []))


@model_errors("the graph")
def extract_features(model: Model, layers: str | Sequence[str], options: FeatureOptions) -> Features:
    """Cut a model to chosen layers, and change it as the options say. The model itself stays as it is.

    Args:
        model: the model.
        layers: names of values, of nodes, or of the VGG literature; or such names separated by commas.
        options: the changes.

    Raises:
        OptionError: if a layer is not known, or a change does not apply.
        ModelError: if the type of a layer cannot be told.
    """
    selected = select_values(model, split_layers(model, layers))
    rewrite = read_entries(model)
    wanted = {item.name: getattr(options, item.name) for item in fields(options) if getattr(options, item.name)}
    if rewrite and wanted:
        flag = "--" + next(iter(wanted)).replace("_", "-")
        raise OptionError(
            f"{flag} changes what filters measure, and the model is normalized already; make the change on the "
            "original model, and calibrate what comes out"
        )
    done = cut(model, list(dict.fromkeys(selected.values())))
    changes = []
    if options.fold_preprocessing is not None:
        changes.append(fold_preprocessing(done, options.fold_preprocessing))
    if options.padding is not None:
        changes.append(reflect_padding(done))
        done = cut(done, list(dict.fromkeys(selected.values())))  # without the zeros that Pads added
    if options.pool is not None:
        changes.append(average_pools(done))
    entries = {"version": VERSION, "source": model.digest(), "layers": json.dumps(selected), **wanted}
    if rewrite:
        entries["normalized"] = json.dumps({key: rewrite[key] for key in _KEPT if key in rewrite})
        write_entries(done.proto, {})  # its record names constants that may be gone
    _record(done.proto, entries)
    return Features(
        cut=done,
        layers=selected,
        changes=tuple(changes),
        preset=None if options.fold_preprocessing is None else "unit",
        nodes=(len(model.proto.graph.node), len(done.proto.graph.node)),
        constants=(_bytes(model.proto.graph.initializer), _bytes(done.proto.graph.initializer)),
    )


def _record(proto: onnx.ModelProto, entries: dict[str, str]) -> None:
    keys = {FEATURES + key for key in entries}
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key not in keys]
    del proto.metadata_props[:]
    for key, value in [*kept, *((FEATURES + key, value) for key, value in entries.items())]:
        proto.metadata_props.add(key=key, value=value)


def _bytes(tensors: Iterable[onnx.TensorProto]) -> int:
    return sum(tensor_size(tensor) for tensor in tensors if tensor.data_type != onnx.TensorProto.STRING)


def _described(kind: onnx.TypeProto) -> str:
    if not kind.HasField("tensor_type"):
        return "not a tensor"
    tensor = kind.tensor_type
    sides = [str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{name} {'x'.join(sides)}" if tensor.HasField("shape") else name
