"""Flags of the command line, built from declared options (`onnxnorm.options`).

A command takes its options as one object: `def plan(model: ModelPath, options: PlanOptions, ...)`. `with_flags` gives
typer the same function with one parameter for each flag of the object, and builds the object from their values.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable
from dataclasses import Field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

import typer

from onnxnorm.cli.details import DETAILS
from onnxnorm.cli.settings import COMMAND_LINE_ONLY, SETTABLE, Settable, Setting, read_settings
from onnxnorm.errors import OptionError
from onnxnorm.options import Flag, Options, choices_of, flags_of
from onnxnorm.version import VERSION

__all__ = ["Version", "declare_settable", "origins", "with_flags"]


_METAVARS = {int: "N", float: "R", str: "NAME", Path: "FILE"}
"""What `--help` calls a value whose option does not say."""


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command that takes `Options` objects into one with a parameter per flag of theirs.

    It gets `--config` and `--version` too, and its options may come from files and from environment variables.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []  # the command's own first: files are what a reader of help looks for
    flags: list[inspect.Parameter] = []
    groups: dict[str, type[Options]] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if inspect.isclass(hint) and issubclass(hint, Options):
            groups[parameter.name] = hint
            flags += [_parameter(hint, item, flag) for item, flag in flags_of(hint)]
        else:
            parameters.append(parameter.replace(annotation=_annotated(hint), kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += flags
    for name, default, hint in (("config", None, Config), ("version", False, Version)):
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    parameters.append(inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))

    @wraps(command)
    def run(ctx: typer.Context, **given: Any) -> None:
        del given["version"], given["config"]
        if given.get("verbose"):
            DETAILS.show()
        try:
            for name, group in groups.items():
                values = {item.name: given.pop(item.name) for item, _ in flags_of(group)}
                given[name] = group(**{key: value for key, value in values.items() if value is not None})
            command(**given)
        except OptionError as error:
            raise OptionError(f"{error}{origins(ctx, str(error))}") from error

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
        metavar=flag.metavar or _METAVARS.get(kind),
        min=flag.least,
        case_sensitive=False,
        show_default=default is not None,
        rich_help_panel=flag.panel,
    )
    optional: Any = Optional[kind] if default is None else kind  # noqa: UP045 - `kind` is known only at run time
    hint: Any = Annotated[optional, info]
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def declare_settable(name: str, command: Callable[..., None]) -> None:
    """Note which options of a command, as `with_flags` returns it, may be set by files."""
    SETTABLE[name] = {}
    for parameter in inspect.signature(command).parameters.values():
        hint, *infos = get_args(parameter.annotation) or (None,)
        for info in infos:
            if isinstance(info, typer.models.OptionInfo) and parameter.name not in COMMAND_LINE_ONLY:
                SETTABLE[name][parameter.name] = Settable(_without_none(hint), info.min)


def _configure(ctx: typer.Context, config: Path | None) -> Path | None:
    """Make what files say the defaults of this command. Runs before any other option is looked up."""
    if not ctx.resilient_parsing and ctx.info_name in SETTABLE:
        settings = read_settings(ctx.info_name, config)
        ctx.default_map = {name: setting.value for name, setting in settings.items()}
        ctx.obj = settings
    return config


def origins(ctx: typer.Context, message: str) -> str:
    """Where the options that a message names come from, if that is not the command line."""
    settings: dict[str, Setting] = ctx.obj or {}
    found = []
    for flag in dict.fromkeys(re.findall(r"--([a-z0-9-]+)", message)):
        name = flag.replace("-", "_")
        source = getattr(ctx.get_parameter_source(name), "name", "")
        if source == "DEFAULT_MAP" and name in settings:
            found.append(f"--{flag} comes from {settings[name].where}")
        elif source == "ENVIRONMENT":
            found.append(f"--{flag} comes from the variable {ctx.auto_envvar_prefix}_{name.upper()}")
    return f" ({'; '.join(found)})" if found else ""


def _print_version(requested: bool) -> None:
    if requested:
        print(f"onnxnorm {VERSION}")  # noqa: T201 - the version is the output
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_configure,
        is_eager=True,
        envvar="ONNXNORM_CONFIG",
        metavar="FILE",
        help="Take options from a TOML file; what is on the command line or in ONNXNORM_COMMAND_OPTION wins.",
        show_default=False,
    ),
]


def _plain_type(group: type[Options], item: Field[Any]) -> Any:
    """The type of a field without None."""
    return _without_none(get_type_hints(group)[item.name])


def _annotated(hint: Any) -> Any:
    """A hint without the `Optional` around it that `get_type_hints` of Python 3.10 adds where the default is None."""
    inner = _without_none(hint)
    return inner if get_origin(inner) is Annotated else hint


def _without_none(hint: Any) -> Any:
    """The first of the types of a union that is not None; other types as they are."""
    if get_origin(hint) not in {Union, types.UnionType}:
        return hint
    return next(part for part in get_args(hint) if part is not type(None))
