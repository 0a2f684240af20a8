"""Options, declared once: each is a field of a frozen dataclass, with what the command line needs to know about it.

The package that uses an option declares it (`data/images/options.py`, `calibration/options.py`, ...). From the fields
the command line builds its flags, and the API its keywords and their documentation. The same object is passed down to
the code that reads it, so an option is added in one place::

    @dataclass(frozen=True, kw_only=True)
    class BatchOptions(Options):
        limit: int | None = option(None, "Use at most this many samples.", panel=RUNNING, least=1)
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from onnxnorm.errors import OptionError

__all__ = [
    "FILTERS",
    "IMAGES",
    "RUNNING",
    "Flag",
    "Options",
    "choices_of",
    "documented",
    "flags_of",
    "option",
    "spelled",
]

IMAGES, RUNNING, FILTERS = "Images", "Running", "What is normalized"
"""Headings under which `--help` lists options."""

Kind = TypeVar("Kind", bound="Options")
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Flag:
    """What the command line needs to know about an option.

    Attributes:
        help: its description.
        panel: heading under which `--help` lists it; None for the general options.
        metavar: name of its value in `--help`.
        spelling: the flag, if it is not the field's name with dashes.
        short: its one-letter flag.
        kind: the type that the command line parses, if the API accepts other types too.
        choices: returns the allowed values, if they are in a table and not in the field's type.
        least: the smallest number allowed.
    """

    help: str
    panel: str | None = None
    metavar: str | None = None
    spelling: str | None = None
    short: str | None = None
    kind: Any = None
    choices: Callable[[], Iterable[str]] | None = None
    least: int | None = None


def option(default: Any, help: str, **words: Any) -> Any:  # noqa: A002 - the usual word for it in command lines
    """Declare a field of an `Options` class that is also a flag; `words` are further attributes of its `Flag`."""
    return field(default=default, metadata={"flag": Flag(help, **words)})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of all options. Every value is checked against the choices and the smallest number of its flag.

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
        """Make options from an object, from keywords, or from an object with some values replaced by keywords.

        Raises:
            TypeError: if a keyword is not the name of an option.
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
        """Options of another class, with the values of all fields that both classes have, except for `changes`."""
        mine = {item.name for item in fields(self)}
        shared = {item.name: getattr(self, item.name) for item in fields(cls) if item.name in mine}
        return cls(**shared | changes)


def flags_of(cls: type[Options]) -> list[tuple[Field[Any], Flag]]:
    """Fields of an `Options` class that are flags, with these, in order; the other fields are for Python only."""
    return [(item, item.metadata["flag"]) for item in fields(cls) if "flag" in item.metadata]


def spelled(item: Field[Any]) -> str:
    """The flag of a field as a user types it, such as `--batch-size`."""
    flag: Flag = item.metadata["flag"]
    return (flag.spelling or "--" + item.name.replace("_", "-")).partition("/")[0]


def choices_of(cls: type[Options], item: Field[Any]) -> tuple[str, ...]:
    """Allowed values of a field: those of its flag's table, or of its `Literal` type; empty if any is allowed."""
    flag: Flag = item.metadata["flag"]
    if flag.choices is not None:
        return tuple(flag.choices())
    return _literals(_hints(cls)[item.name])


@cache
def _literals(hint: Any) -> tuple[str, ...]:
    parts = get_args(hint) if get_origin(hint) in {Union, types.UnionType} else (hint,)
    return tuple(value for part in parts if get_origin(part) is Literal for value in get_args(part))


def documented(cls: type[Options]) -> Callable[[Function], Function]:
    """Decorator that adds all options to signature and docstring of a function of `options` and `**keywords`."""

    def document(function: Function) -> Function:
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

    return document


def _hints(cls: type[Options]) -> Mapping[str, Any]:
    """The types of the fields; kept, since evaluating them takes half a millisecond at each call of the API."""
    key: Any = cls  # type checkers do not take a class of dataclasses for hashable
    return _evaluated(key)


_evaluated = cache(get_type_hints)
