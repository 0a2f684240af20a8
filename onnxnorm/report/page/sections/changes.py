"""The section that says what a rewrite changed beside constants: nodes that were added, and attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.section import Section, template_text
from onnxnorm.report.page.text import clean, counted
from onnxnorm.rewriting.additions import Additions, places

__all__ = ["SECTION"]


def _context(report: ReportData) -> Mapping[str, Any] | None:
    found = report.rewrite.additions if report.rewrite else None
    if found is None or not (found.nodes or found.attributes):
        return None
    attributes = sorted((name, clean(node)) for node, name in found.attributes)
    return {
        "summary": list(_summary(report, found)),
        "nodes": [tuple(map(clean, row)) for row in places(found)],
        "attributes": [
            (clean(name), f"{len(nodes):,}", nodes)
            for name, nodes in (
                (name, [node for _, node in pairs]) for name, pairs in groupby(attributes, key=lambda pair: pair[0])
            )
        ],
    }


def _summary(report: ReportData, found: Additions) -> Iterator[str]:
    if found.nodes:
        nodes = counted(len(found.nodes), "node")
        yield f"{nodes} added. They touch {found.touched:.1%} of all elements that the original computes."
    if found.attributes:
        yield f"{counted(len(found.attributes), 'attribute')} changed."
    ratio = report.verification.time_ratio if report.verification else None
    if ratio is not None:
        yield f"In the verification the rewritten model took {ratio:.2f} times as long as the original."
    yield "An engine that was built from the original cannot be refitted by name: build a new one."


SECTION = Section(template_text("changes"), _context)
