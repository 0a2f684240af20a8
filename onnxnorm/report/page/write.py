"""Renders and writes the page, and checks that the packages of the extra `report` are installed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from onnxnorm.atomic import write_atomically
from onnxnorm.errors import OptionError
from onnxnorm.report.data import ReportData

__all__ = ["check_extra", "rendered", "write_page"]

_NEEDED = ("jinja2", "matplotlib")


def check_extra() -> None:
    """Raise OptionError unless the packages that draw the page are installed."""
    try:
        for name in _NEEDED:
            import_module(name)
    except ImportError as error:
        raise OptionError(
            f"the report needs {' and '.join(_NEEDED)} ({error}); install them: pip install 'onnxnorm[report]'"
        ) from error


def rendered(report: ReportData) -> str:
    """Return the page as HTML. Raises OptionError if the extra `report` is not installed."""
    check_extra()
    from onnxnorm.report.page.page import page_of

    return page_of(report)


def write_page(page: str, target: Path) -> None:
    """Write the page to `target` atomically. Raises OptionError if it cannot be written."""
    write_atomically(target, page.encode("utf-8"), OptionError)
