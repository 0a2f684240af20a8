"""onnx-graphsurgeon without its log, which it prints on standard output, where only results belong."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress

__all__ = ["export_graph", "import_graph"]


def import_graph(proto: onnx.ModelProto) -> gs.Graph:
    """Return the model as a graph that can be edited."""
    with LoggerSuppress(G_LOGGER, G_LOGGER.CRITICAL):
        return gs.import_onnx(proto)


def export_graph(graph: gs.Graph) -> onnx.ModelProto:
    """Return the edited graph as a model."""
    with LoggerSuppress(G_LOGGER, G_LOGGER.CRITICAL):
        model: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
        return model
