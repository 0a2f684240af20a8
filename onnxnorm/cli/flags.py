"""Flags of the command line, built from declared options (`onnxnorm.options`).

A command takes its options as one object: `def plan(model: ModelPath, options: PlanOptions, ...)`. `with_flags` gives
typer the same function with one parameter for each flag of the object, and builds the object from their values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import Field
from functools import wraps
from typing import Annotated, Any, Literal, Optional, get_type_hints

import typer

from onnxnorm.options import Flag, Options, choices_of, flags_of
from onnxnorm.version import VERSION

__all__ = ["Version", "with_flags"]


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command that takes `Options` objects into one with a parameter per flag of theirs, and `--version`."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Options]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if inspect.isclass(hint) and issubclass(hint, Options):
            groups[parameter.name] = hint
            parameters += [_parameter(hint, item, flag) for item, flag in flags_of(hint)]
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    parameters.append(inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Version))

    @wraps(command)
    def run(**given: Any) -> None:
        del given["version"]
        for name, group in groups.items():
            values = {item.name: given.pop(item.name) for item, _ in flags_of(group)}
            given[name] = group(**{key: value for key, value in values.items() if value is not None})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(group: type[Options], item: Field[Any], flag: Flag) -> inspect.Parameter:
    """The parameter from which typer makes a flag; its value is None if the flag is not given."""
    choices = choices_of(group, item)
    kind: Any = Literal[choices] if choices else flag.kind or _plain_type(group, item)
    default = item.default if item.default not in {None, ()} else None
    info = typer.Option(
        *filter(None, [flag.spelling or "--" + item.name.replace("_", "-"), flag.short]),
        help=flag.help,
        metavar=flag.metavar,
        min=flag.least,
        show_default=default is not None,
        rich_help_panel=flag.panel,
    )
    optional: Any = Optional[kind] if default is None else kind  # noqa: UP045 - `kind` is known only at run time
    hint: Any = Annotated[optional, info]
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"onnxnorm {VERSION}")  # noqa: T201 - the version is the output
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def _plain_type(group: type[Options], item: Field[Any]) -> Any:
    """The type of a field without None."""
    hint = get_type_hints(group)[item.name]
    parts = [part for part in getattr(hint, "__args__", (hint,)) if part is not type(None)]
    return parts[0]
