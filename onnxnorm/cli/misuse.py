"""Errors of the command line itself."""

from __future__ import annotations

import typer

__all__ = ["Missing"]


class Missing(typer.BadParameter):
    """An option that another one needs is missing. The command line is wrong and not a value, so the exit code is 2."""
