"""A section of the page: what it shows, and how.

A section is one module in `sections/` with a `SECTION`, and a template beside it; `sections.SECTIONS` gives the order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from onnxnorm.report.data import ReportData

__all__ = ["Section", "environment", "template_text"]


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        template: the text of its Jinja template, in which everything is escaped that is no `Markup`.
        context: what the template shows of a report; None: the section is left out.
    """

    template: str
    context: Callable[[ReportData], Mapping[str, Any] | None]

    def render(self, report: ReportData) -> Markup:
        """The section as HTML; empty if it is left out."""
        context = self.context(report)
        html = "" if context is None else environment().from_string(self.template).render(**context)
        return Markup(html)  # noqa: S704 - the template has escaped what is not ours


def environment() -> Environment:
    """Jinja's environment for all templates: everything is escaped, and a name that is missing is an error."""
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def template_text(name: str) -> str:
    """The template of a section of ours."""
    return (files("onnxnorm.report.page.sections") / f"{name}.html.j2").read_text(encoding="utf-8")
