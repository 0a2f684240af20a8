"""The section on what changed beside constants: the nodes and where they are, attributes, elements and time."""

from __future__ import annotations

import html
import re

import onnx
import pytest

import onnxnorm
from tests.helpers.graphs import model, rand

BODY = """
    a = Conv(x, w) \n s = Sigmoid(a) \n b = Mul(a, s) \n i = InstanceNormalization<epsilon=0.01>(b, g, k)
    c = Conv(i, v) \n z = Add(b, c)
"""


def gated() -> onnx.ModelProto:
    constants = {"w": rand(4, 3, 1, 1), "v": rand(4, 4, 1, 1, seed=1), "g": rand(4), "k": rand(4, seed=2)}
    return model(BODY, {"x": ("n", 3, 8, 8)}, constants)


def section(page: str) -> str:
    found = re.search(r'<section id="changes">.*?</section>', page, re.DOTALL)
    return found.group() if found else ""


def rows(page: str) -> list[list[str]]:
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", section(page))]
    return [[html.unescape(cell) for cell in row] for row in found if row]


def test_nodes_and_attributes_are_listed_with_where_they_are() -> None:
    proto = gated()
    statistics = onnxnorm.calibrate(proto, rand(6, 3, 8, 8))
    done = onnxnorm.rewrite(proto, statistics, allow="nodes")
    found = onnxnorm.write_report(proto, statistics, rewritten=done.model)
    added = {node.name: node for node in done.model.graph.node if node.name in done.rewriting.insertion.nodes}
    listed = {row[0]: row[1:] for row in rows(found.html) if len(row) == 6}
    assert added
    assert set(listed) == set(added)
    labels = {name: node.name or node.output[0] for node in done.model.graph.node for name in node.output}
    known = {name for node in proto.graph.node for name in node.output}
    for name, (value, behind, before, factors, elements) in listed.items():
        (source, _), (product,) = added[name].input, added[name].output
        readers = [node.name or node.output[0] for node in done.model.graph.node if product in node.input]
        assert value in known
        assert value in {source, product} or done.rewriting.insertion.renamed[value] == source
        assert behind == labels[source]
        assert before == ", ".join([*readers, *(["graph output"] if product == "z" else [])])
        assert (factors, elements) == ("4", "256")
    said = section(found.html)
    assert f"{len(added)} node" in said
    assert f"{done.rewriting.touched:.1%} of all elements" in said
    assert done.rewriting.additions.touched == pytest.approx(done.rewriting.touched)
    assert found.verification is not None
    assert found.verification.time_ratio is not None
    assert f"took {found.verification.time_ratio:.2f} times as long" in said
    attributes = [row for row in rows(found.html) if len(row) == 3]
    assert [row[:2] for row in attributes] == ([["epsilon", "1"]] if done.rewriting.attributes_changed else [])


def test_attributes_alone() -> None:
    body = BODY.replace("\n s = Sigmoid(a) \n b = Mul(a, s)", "\n b = Relu(a)")
    constants = {"w": rand(4, 3, 1, 1), "v": rand(4, 4, 1, 1, seed=1), "g": rand(4), "k": rand(4, seed=2)}
    proto = model(body.replace("Add(b, c)", "Sigmoid(c)"), {"x": ("n", 3, 8, 8)}, constants)
    statistics = onnxnorm.calibrate(proto, rand(6, 3, 8, 8))
    done = onnxnorm.rewrite(proto, statistics, allow="attributes")
    page = onnxnorm.write_report(proto, statistics, rewritten=done.model).html
    assert "1 attribute changed." in section(page)
    assert "added" not in section(page)
    (row,) = rows(page)
    assert row[:2] == ["epsilon", "1"]
    assert row[2] in {node.name or node.output[0] for node in proto.graph.node if node.op_type[:8] == "Instance"}


def test_constants_alone_need_no_section() -> None:
    proto = gated()
    statistics = onnxnorm.calibrate(proto, rand(6, 3, 8, 8))
    done = onnxnorm.rewrite(proto, statistics)
    assert not section(onnxnorm.write_report(proto, statistics, rewritten=done.model).html)
    assert not section(onnxnorm.write_report(proto, statistics).html)
