"""A section of the page: the data that it shows, and its template.

A section is a module in `sections/` with a `SECTION`, and a template next to it. `sections.SECTIONS` has their order.
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
        template: the text of its Jinja template, in which everything but `Markup` is escaped.
        context: returns the variables of the template for a report; None if the section is to be left out.
    """

    template: str
    context: Callable[[ReportData], Mapping[str, Any] | None]

    def render(self, report: ReportData) -> Markup:
        """Return the section as HTML; empty if it is left out."""
        context = self.context(report)
        html = "" if context is None else environment().from_string(self.template).render(**context)
        return Markup(html)  # noqa: S704 - the template has escaped all text


def environment() -> Environment:
    """Return the Jinja environment of all templates: text is escaped, and an undefined name is an error."""
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def template_text(name: str) -> str:
    """Return the template of a section of onnxnorm, by its name."""
    return (files("onnxnorm.report.page.sections") / f"{name}.html.j2").read_text(encoding="utf-8")
