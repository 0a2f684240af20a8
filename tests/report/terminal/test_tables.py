"""Hundreds of dead filters do not flood the terminal; a few are all named."""

from __future__ import annotations

from io import StringIO

import numpy as np
from rich.console import Console

from onnxnorm.report.terminal.tables import added_table, dead_lines
from onnxnorm.rewriting.additions import AddedNode, Additions
from onnxnorm.rewriting.scales import LayerScales
from onnxnorm.scaling.filters import Layer, Site


def layer(name: str, channels: int, dead: list[int]) -> LayerScales:
    flags = np.zeros(channels, np.bool_)
    flags[dead] = True
    ones, no = np.ones(channels), np.zeros(channels, np.bool_)
    plain = Layer(name, "Conv", name, channels, Site(name, 1, "mean"), np.arange(channels))
    return LayerScales(plain, np.where(flags, 0.0, 1.0), ones, ones, flags, no, no)


def test_a_few_are_all_named() -> None:
    assert dead_lines([layer("a", 8, [1, 5]), layer("b", 8, [])]) == ["dead in a, their scale stays 1: 1, 5"]
    assert dead_lines([layer("a", 8, [])]) == []


def test_many_are_counted() -> None:
    lines = dead_lines([layer(f"c{index}", 512, list(range(0, 512, 2))) for index in range(20)])
    assert len(lines) == 7
    assert lines[0] == "dead in c0, their scale stays 1: 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, ... (256 filters)"
    assert lines[5] == "... and 3,840 dead filters in 15 more layers"
    assert "onnxnorm report" in lines[6]


def shown(found: Additions) -> str:
    console = Console(width=120, file=StringIO(), record=True)
    for part in added_table(found):
        console.print(part)
    return console.export_text()


def test_added_nodes_are_listed_with_where_they_are() -> None:
    node = AddedNode("onnxnorm_mul", "Mul", "v", "conv1", ("relu1", "add1"), True, 64, 4096)
    assert added_table(Additions((), (), 0.0)) == []
    text = " ".join(shown(Additions((node,), (), 0.1)).split())
    assert text.endswith("onnxnorm_mul v conv1 relu1, add1, graph output 64 4,096")
    many = shown(Additions((node,) * 11, (), 0.1))
    assert many.count("onnxnorm_mul") == 8
    assert "... and 3 more; onnxnorm report lists all" in many
