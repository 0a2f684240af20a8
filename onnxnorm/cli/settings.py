"""Options from files: `--config FILE`, and `[tool.onnxnorm]` of the pyproject.toml in the current folder.

A key is an option without its dashes. Keys of the table itself are for every command that has the option, those of a
table of a command (`[tool.onnxnorm.calibrate]`, or `[calibrate]` in FILE) for that one. What is nearer wins: command
line, environment variable, FILE, pyproject.toml; in a file, the table of the command.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from onnxnorm.errors import OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["COMMAND_LINE_ONLY", "SETTABLE", "Settable", "Setting", "read_settings"]

PROJECT = Path("pyproject.toml")
COMMAND_LINE_ONLY = frozenset({"config", "in_place", "transform", "version"})
"""Options that only the command line sets: what may cost a model, or runs code, must not come from a forgotten file or
variable."""

_LARGEST = 1 << 24  # bytes of a file of settings


@dataclass(frozen=True)
class Settable:
    """An option that a file may set: its type, and the smallest number allowed."""

    kind: Any
    least: float | None = None

    def problem(self, value: Any) -> str:
        """What is expected instead of a value; empty if it is allowed."""
        kind = self.kind
        if get_origin(kind) is list:
            items = value if isinstance(value, list) else [value]
            wrong = [Settable(get_args(kind)[0]).problem(item) for item in items]
            return f"{max(wrong)}, or an array of that" if any(wrong) else ""
        if get_origin(kind) is Literal:
            return "" if value in get_args(kind) else f"one of {', '.join(map(repr, get_args(kind)))}"
        words, kinds = _KINDS[kind]
        if not isinstance(value, kinds) or isinstance(value, bool) is not (kind is bool):
            return words
        if not isinstance(value, (int, float)):
            return ""
        return f"at least {self.least:g}" if self.least is not None and value < self.least else ""

    def value(self, value: Any) -> Any:
        """A value in the form that the command line parses."""
        return [value] if get_origin(self.kind) is list and not isinstance(value, list) else value


_KINDS: dict[Any, tuple[str, type | tuple[type, ...]]] = {
    bool: ("true or false", bool),
    int: ("a whole number", int),
    float: ("a number", (int, float)),
    str: ("text in quotes", str),
    Path: ("a path in quotes", str),
}

SETTABLE: dict[str, dict[str, Settable]] = {}
"""For each command, what files may set, by the name of the parameter."""


@dataclass(frozen=True)
class Setting:
    """The value of an option, and where it stands, for messages."""

    value: Any = field(repr=False)
    where: str


def read_settings(command: str, config: Path | None) -> dict[str, Setting]:
    """What files say about the options of a command, by the name of the parameter.

    Raises:
        OptionError: if a file cannot be read, or a key of it is unknown, or its value of a wrong type.
    """
    found: dict[str, Setting] = {}
    if PROJECT.is_file():
        tool = _read(PROJECT).get("tool", {})
        if isinstance(tool, Mapping) and "onnxnorm" in tool:
            found |= _Table(PROJECT, "tool.onnxnorm.").of(tool["onnxnorm"], command)
    if config is not None:
        content = _read(config)
        nested = isinstance(content.get("tool"), Mapping)
        table = content["tool"].get("onnxnorm", {}) if nested else content
        found |= _Table(config, "tool.onnxnorm." if nested else "").of(table, command)
    return found


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise OptionError(f"settings {path} are not in a regular file; name one with --config")
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} bytes")
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OptionError(f"settings {path} do not exist; name a TOML file with --config") from None
    except OSError as error:
        raise OptionError(f"settings {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise OptionError(f"settings {path} are not TOML ({error}); correct the file") from error


@dataclass(frozen=True)
class _Table:
    """A table of settings: its file, and what stands before its keys in messages."""

    path: Path
    prefix: str

    def of(self, table: Any, command: str) -> dict[str, Setting]:
        """The settings of one command. The tables of all commands are checked."""
        if not isinstance(table, Mapping):
            raise OptionError(f"{self.path}: {self.prefix.rstrip('.')} must be a table, not {table!r}")
        general = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
        every = {name: settable for options in SETTABLE.values() for name, settable in options.items()}
        found = self._checked(general, every, tuple(SETTABLE))
        mine = {name: setting for name, setting in found.items() if name in SETTABLE[command]}
        for name, own in table.items():
            if isinstance(own, Mapping):
                checked = _Table(self.path, f"{self.prefix}{name}.")._own(own, name)
                mine |= checked if name == command else {}
        return mine

    def _own(self, table: Mapping[str, Any], command: str) -> dict[str, Setting]:
        if command not in SETTABLE:
            raise OptionError(
                f"{self.path}: {self.prefix.rstrip('.')} is a table, and there is no command {command!r}"
                f"{_near(command, SETTABLE)}"
            )
        return self._checked(table, SETTABLE[command], ())

    def _checked(
        self, table: Mapping[str, Any], options: Mapping[str, Settable], tables: tuple[str, ...]
    ) -> dict[str, Setting]:
        found: dict[str, Setting] = {}
        for key, value in table.items():
            name, where = key.replace("-", "_"), f"{self.path}: {self.prefix}{key}"
            if name in COMMAND_LINE_ONLY:
                raise OptionError(f"{where} cannot be set in a file; give --{name.replace('_', '-')} where it is meant")
            if key in tables and name not in options:
                raise OptionError(f"{where} is {_shown(value)}, expected a table of the options of that command")
            if name not in options:
                known = [*(option.replace("_", "-") for option in options), *tables]
                raise OptionError(f"{where} is not an option{_near(key, known)}")
            if expected := options[name].problem(value):
                raise OptionError(f"{where} is {_shown(value)}, expected {expected}")
            if name in found:
                raise OptionError(f"{where} is there twice, with a dash and with an underscore; keep one")
            found[name] = Setting(options[name].value(value), where)
        return found


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(set(known)))}"


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:59] + "…"
