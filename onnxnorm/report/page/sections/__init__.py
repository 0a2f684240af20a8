"""The sections of the page, in order. Each is a module with a `SECTION`, and a template next to it."""

from importlib import import_module

from onnxnorm.report.page.section import Section

__all__ = ["SECTIONS"]

_NAMES = (
    "notes",
    "changes",
    "means",
    "scales",
    "certainty",
    "fp16",
    "layers",
    "barriers",
    "dead",
    "skipped",
    "next",
    "provenance",
)

SECTIONS: list[Section] = [import_module(f"{__name__}.{name}").SECTION for name in _NAMES]
