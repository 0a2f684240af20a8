"""Options from environment variables: `ONNXNORM_CALIBRATE_PRESET` is `--preset` of `onnxnorm calibrate`.

The parser makes the names. Here is what must not come from a variable: help, version and installing completion would
take the place of the command, and the rest of `COMMAND_LINE_ONLY` may cost a model.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from onnxnorm.cli.settings import COMMAND_LINE_ONLY

__all__ = ["Command", "Group"]

_KEPT = COMMAND_LINE_ONLY | {"help", "install_completion", "show_completion"}


def _kept(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if hasattr(parameter, "allow_from_autoenv"):
            parameter.allow_from_autoenv &= parameter.name not in _KEPT
            parameter.show_envvar = False  # the name follows from the option's; a line for each would hide the help
    return parameters


class Command(TyperCommand):
    """A command whose options come from variables too, but for some."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with what tells where they may come from."""
        return _kept(super().get_params(ctx))


class Group(TyperGroup):
    """The application itself, whose options only the command line sets."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with what tells where they may come from."""
        return _kept(super().get_params(ctx))
