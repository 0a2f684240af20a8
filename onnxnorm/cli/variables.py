"""Options from environment variables: `ONNXNORM_CALIBRATE_PRESET` is `--preset` of `onnxnorm calibrate`.

The parser makes the names. Here is what must not come from a variable: help, version and installing completion would
take the place of the command, and the rest of `COMMAND_LINE_ONLY` may cost a model.

An option may also leave out its value: `--ceiling` alone is `--ceiling 512`. And help is written for people who do not
know Python: it shows no types, but what a value is, as `FILE` or `N`.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from typer.core import TyperCommand, TyperGroup

from onnxnorm.cli.settings import COMMAND_LINE_ONLY
from onnxnorm.rewriting.options import USUAL_CEILING

__all__ = ["Command", "Group"]

_USUAL = {"--ceiling": USUAL_CEILING}
_KEPT = COMMAND_LINE_ONLY | {"help", "install_completion", "show_completion"}


def _kept(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if hasattr(parameter, "allow_from_autoenv"):
            parameter.allow_from_autoenv &= parameter.name not in _KEPT
            parameter.show_envvar = False  # the name follows from the option's; a line for each would hide the help
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _nothing  # the name of an argument says what it is
        elif getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def _nothing(*_: Any, **__: Any) -> str:
    return ""


def _completed(arguments: list[str]) -> list[str]:
    """The arguments, with their usual value for options that no number follows."""
    done = []
    for word, behind in zip_longest(arguments, arguments[1:], fillvalue=""):
        usual = _USUAL.get(word)
        done.append(word if usual is None or _is_number(behind) else f"{word}={usual:g}")
    return done


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class Command(TyperCommand):
    """A command whose options come from variables too, but for some; a few of them take a value or none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        return super().parse_args(ctx, _completed(args))

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with what tells where they may come from."""
        return _kept(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the name of the command: `[OPTIONS] MODEL DATA...`; in brackets what may be left out."""
        arguments = [item for item in self.get_params(ctx) if item.param_type_name == "argument"]
        return ["[OPTIONS]", *(item.metavar if item.required else f"[{item.metavar}]" for item in arguments)]


class Group(TyperGroup):
    """The application itself, whose options only the command line sets."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, with what tells where they may come from."""
        return _kept(super().get_params(ctx))
