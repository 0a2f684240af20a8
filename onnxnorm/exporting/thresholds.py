"""One number per layer as JSON: the statistic of the layer as a whole, which spiking networks take as its threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxnorm.atomic import write_atomically
from onnxnorm.errors import OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.rewriting import measure, needs_images
from onnxnorm.scaling import find_layers, trace
from onnxnorm.statistics import Statistics

__all__ = ["Thresholds", "export_thresholds"]


@dataclass(frozen=True)
class Thresholds:
    """What was written.

    Attributes:
        path: the file.
        content: what is in it: model, statistic, images, and a list of layers, in the order of the graph.
    """

    path: Path
    content: Mapping[str, Any]

    def __str__(self) -> str:
        count, name = len(self.content["layers"]), self.content["statistic"]
        return f"thresholds of {count:,} layers ({name} over all activations of a layer)\nwritten to {self.path}"


def export_thresholds(model: Model, statistics: Statistics, path: Path, statistic: str) -> Thresholds:
    """Write the statistic of every layer to a JSON file, atomically.

    Raises:
        OptionError: if the statistic is not measured on images, or the file is no .json or cannot be written.
        StatisticsError: if the statistics were measured on another model, or lack what is needed.
    """
    if path.suffix.lower() != ".json":
        raise OptionError(f"thresholds are written as JSON, and {path} does not end in .json; give -o FILE.json")
    if not needs_images(statistic):
        raise OptionError(f"--statistic {statistic} says nothing about how large activations are; choose max, or p99.9")
    statistics.check_model(model.digest())
    traced = trace(read_graph(model, statistics.shapes))
    layers = find_layers(traced, statistics.filters)
    found = measure(statistic, model, traced, layers, statistics, "layer")
    rows = [
        {
            "layer": layer.node,
            "value": layer.site.value,
            "absolute": layer.site.measure == "mean_abs",
            "filters": layer.channels,
            "threshold": float(entry.statistic[0]) if np.isfinite(entry.statistic[:1]).any() else None,
        }
        for layer, entry in zip(layers, found, strict=True)
    ]
    content = {"model": statistics.model, "statistic": statistic, "images": statistics.images, "layers": rows}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode(), OptionError)
    return Thresholds(path, content)
