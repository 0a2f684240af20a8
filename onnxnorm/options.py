"""Options, declared once: each is a field of a frozen dataclass that carries what the command line says about it.

The room that acts on an option declares it (`data/images/options.py`, `calibration/options.py`, ...). The command line
builds its flags from the fields, the API its keywords and their documentation, and the same object is handed down to
the code that reads it. So an option is added in one place::

    @dataclass(frozen=True, kw_only=True)
    class BatchOptions(Options):
        limit: int | None = option(None, "Use at most this many samples.", panel=RUNNING, least=1)
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from onnxnorm.errors import OptionError

__all__ = ["FILTERS", "IMAGES", "RUNNING", "Flag", "Options", "choices_of", "documented", "flags_of", "option"]

IMAGES, RUNNING, FILTERS = "Images", "Running", "What is normalized"
"""Headings under which `--help` lists options."""

Kind = TypeVar("Kind", bound="Options")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Flag:
    """What the command line says about an option.

    `spelling` is the flag where it is not the field's name with dashes, `short` its one letter; `kind` the type that
    the command line parses where the API takes more; `choices` gives the allowed values where a table holds them and
    not the field's type; `least` is the smallest number allowed. Without `panel` an option stands among the general
    ones.
    """

    help: str
    panel: str | None = None
    metavar: str | None = None
    spelling: str | None = None
    short: str | None = None
    kind: Any = None
    choices: Callable[[], Iterable[str]] | None = None
    least: int | None = None


def option(default: Any, help: str, **words: Any) -> Any:  # noqa: A002 - the word that command lines have for it
    """Declare a field of an `Options` class that is also a flag; `words` are the other fields of `Flag`."""
    return field(default=default, metadata={"flag": Flag(help, **words)})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all options. Every value is checked against the choices and the least number of its flag.

    Raises:
        OptionError: if a value is not allowed.
    """

    def __post_init__(self) -> None:
        for item, flag in flags_of(type(self)):
            value, name = getattr(self, item.name), spelled(item)
            allowed = choices_of(type(self), item)
            if allowed and value is not None and value not in allowed:
                raise OptionError(f"{name} {value!r} is unknown; choose one of {', '.join(allowed)}")
            if flag.least is not None and value is not None and value < flag.least:
                raise OptionError(f"{name} must be at least {flag.least}, not {value}")

    @classmethod
    def of(cls: type[Kind], options: Kind | None, keywords: Mapping[str, Any]) -> Kind:
        """Options from an object, from keywords, or from an object with some values replaced by keywords.

        Raises:
            TypeError: if there is no option of the name of a keyword.
            OptionError: if a value is not allowed.
        """
        names = [item.name for item in fields(cls)]
        for name in keywords:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
                raise TypeError(f"there is no option {name!r}{hint}")
        return cls(**keywords) if options is None else replace(options, **keywords)

    def part(self, cls: type[Kind], **changes: Any) -> Kind:
        """The options of another class, with the values of all fields that both have, but for `changes`."""
        mine = {item.name for item in fields(self)}
        shared = {item.name: getattr(self, item.name) for item in fields(cls) if item.name in mine}
        return cls(**shared | changes)


def flags_of(cls: type[Options]) -> list[tuple[Field[Any], Flag]]:
    """The fields of an `Options` class that are flags, in order; the others are for Python only."""
    return [(item, item.metadata["flag"]) for item in fields(cls) if "flag" in item.metadata]


def spelled(item: Field[Any]) -> str:
    """The flag of a field, as it is typed: `--batch-size`."""
    flag: Flag = item.metadata["flag"]
    return (flag.spelling or "--" + item.name.replace("_", "-")).partition("/")[0]


def choices_of(cls: type[Options], item: Field[Any]) -> tuple[str, ...]:
    """The allowed values of a field: those of its flag's table, or of its `Literal` type; empty if any will do."""
    flag: Flag = item.metadata["flag"]
    if flag.choices is not None:
        return tuple(flag.choices())
    hint = _hints(cls)[item.name]
    parts = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    return tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))


def documented(cls: type[Options]) -> Callable[[Function], Function]:
    """Give a function that takes `options` and `**keywords` the signature and the documentation of all options."""

    def dress(function: Function) -> Function:
        import inspect

        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hints = _hints(cls)
        keyword = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(i.name, keyword, default=i.default, annotation=hints[i.name]) for i in fields(cls)]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        lines = [f"    {item.name}: {flag.help}" for item, flag in flags_of(cls)]
        title = f"Options (keywords, or the fields of `{cls.__name__}` handed over as `options`):"
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{title}\n" + "\n".join(lines) + "\n"
        return function

    return dress


def _hints(cls: type[Options]) -> dict[str, Any]:
    return get_type_hints(cls)
