"""Renders the page: one HTML file that contains everything, runs no scripts and fetches nothing."""

from __future__ import annotations

from importlib.resources import files

from markupsafe import Markup

from onnxnorm.report.data import ReportData
from onnxnorm.report.page.plots import Drawing
from onnxnorm.report.page.section import environment
from onnxnorm.report.page.sections import SECTIONS
from onnxnorm.report.page.tables import preprocessing_text, settings_text, tiles
from onnxnorm.report.page.text import clean
from onnxnorm.report.page.verdict import verdict_of
from onnxnorm.version import VERSION

__all__ = ["page_of"]


def page_of(report: ReportData) -> str:
    """Return the whole page as HTML. The same report gives the same bytes."""
    folder = files("onnxnorm.report.page")
    template = environment().from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    with Drawing.settings():
        sections = [html for html in (section.render(report) for section in SECTIONS) if html]
    return template.render(
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of this package
        version=VERSION,
        model=clean(report.name),
        rewritten=None if report.rewritten_name is None else clean(report.rewritten_name),
        digest=report.digest,
        preprocessing=clean(preprocessing_text(report.statistics.inputs.get("preprocessing"))),
        settings=clean(settings_text(report.settings)),
        planned=report.rewrite is None,
        measured=clean(str(report.statistics)),
        verdict=verdict_of(report),
        tiles=tiles(report, report.errors),
        plan=report.plan,
        sections=sections,
    )
