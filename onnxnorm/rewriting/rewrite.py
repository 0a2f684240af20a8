"""MODEL + STATS → trace → scales → rewritten model, in memory: nothing is written and nothing run here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting.constants import Clone, apply_edits
from onnxnorm.rewriting.scales import Scales, choose_scales
from onnxnorm.scaling import Plan, Trace, find_layers, make_plan, trace
from onnxnorm.scaling.filters import FilterKind
from onnxnorm.scaling.walk import Outputs
from onnxnorm.statistics import Statistics
from onnxnorm.version import VERSION

__all__ = ["PREFIX", "Rewriting", "output_scales", "rewrite_model"]

PREFIX = "onnxnorm."
OUTPUTS_KEY = f"{PREFIX}outputs"

# Scales of graph outputs up to this many numbers are recorded in the model's metadata.
_RECORDED = 1 << 16


@dataclass(frozen=True)
class Rewriting:
    """A rewritten model, what was done to it, and the scales of graph outputs where those were not kept."""

    model: Model = field(repr=False)
    plan: Plan
    scales: Scales
    changed: tuple[str, ...]
    clones: tuple[Clone, ...]
    outputs: dict[str, NDArray[np.float64]] = field(repr=False)
    unrecorded: tuple[str, ...]


def rewrite_model(
    model: Model,
    statistics: Statistics,
    *,
    target: float = 1.0,
    power_of_two: bool = False,
    outputs: Outputs = "keep",
    filters: FilterKind = "conv",
) -> Rewriting:
    """Scale the constants of a model so that every filter's mean activation is `target`.

    Raises StatisticsError if the statistics were measured on another model.
    """
    digest = model.digest()
    statistics.check_model(digest)
    graph = read_graph(model, statistics.shapes)
    found = trace(graph, outputs)
    layers = find_layers(found, filters)
    scales = choose_scales(found, layers, statistics, target=target, power_of_two=power_of_two)
    rewritten, changed, clones = apply_edits(model, found.edits, scales.of_slot)
    scaled_outputs = _output_scales(found, scales)
    recorded = {name: array for name, array in scaled_outputs.items() if array.size <= _RECORDED}
    _record(rewritten, _provenance(digest, statistics, target, power_of_two), recorded)
    plan = make_plan(found, layers, scales.dead)
    unrecorded = tuple(name for name in scaled_outputs if name not in recorded)
    return Rewriting(rewritten, plan, scales, changed, clones, scaled_outputs, unrecorded)


def output_scales(model: Model) -> dict[str, NDArray[np.float64]]:
    """The recorded scales of graph outputs, by name, each an array that broadcasts against the output.

    Raises ModelError if the record is damaged.
    """
    for entry in model.proto.metadata_props:
        if entry.key == OUTPUTS_KEY:
            return _read_output_scales(entry.value)
    return {}


def _read_output_scales(text: str) -> dict[str, NDArray[np.float64]]:
    try:
        recorded = {
            name: np.asarray(item["scales"], np.float64).reshape(item["shape"])
            for name, item in json.loads(text).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the model's metadata {OUTPUTS_KEY!r} is damaged ({error!r}); rewrite it again") from error
    if not all((np.isfinite(scales) & (scales > 0)).all() for scales in recorded.values()):
        raise ModelError(f"the model's metadata {OUTPUTS_KEY!r} holds scales that are not positive; rewrite it again")
    return recorded


def _output_scales(found: Trace, scales: Scales) -> dict[str, NDArray[np.float64]]:
    arrays = {name: scales.of_slot[found.ids[name]] for name in found.graph.outputs if name in found.ids}
    return {name: array for name, array in arrays.items() if (array != 1).any()}


def _provenance(digest: str, statistics: Statistics, target: float, power_of_two: bool) -> dict[str, str]:
    return {
        "version": VERSION,
        "statistic": "mean",
        "target": repr(target),
        "power_of_two": str(power_of_two).lower(),
        "original": digest,
        "statistics": hashlib.sha256(statistics.to_bytes()).hexdigest(),
        "images": str(statistics.images),
    }


def _record(model: Model, provenance: dict[str, str], outputs: dict[str, NDArray[np.float64]]) -> None:
    """Put the provenance into the metadata, in place of what an earlier rewrite left there."""
    kept = [entry for entry in model.proto.metadata_props if not entry.key.startswith(PREFIX)]
    copies = [(entry.key, entry.value) for entry in kept]
    del model.proto.metadata_props[:]
    for key, value in copies:
        model.proto.metadata_props.add(key=key, value=value)
    for key, value in provenance.items():
        model.proto.metadata_props.add(key=PREFIX + key, value=value)
    if outputs:
        recorded = {
            name: {"shape": array.shape, "scales": array.reshape(-1).tolist()} for name, array in outputs.items()
        }
        model.proto.metadata_props.add(key=OUTPUTS_KEY, value=json.dumps(recorded))
