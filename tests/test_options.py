"""Options are declared once: flags, keywords, help and checks come from the field."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Optional

import pytest
import typer

import onnxnorm
from onnxnorm.api import options as verbs
from onnxnorm.cli.flags import with_flags
from onnxnorm.errors import OptionError
from onnxnorm.options import Options, documented, flags_of, option

COLOURS = {"red": 1, "green": 2}
EVERY = [getattr(verbs, name) for name in verbs.__all__]


@dataclass(frozen=True, kw_only=True)
class Paint(Options):
    """One option of each kind."""

    colour: str = option("red", "Of the paint.", choices=lambda: COLOURS)
    finish: Literal["matt", "glossy"] | None = option(None, "How it shines.")
    coats: int = option(1, "How often.", least=1)
    quick: bool = option(False, "Do not wait.", short="-Q")
    names: tuple[str, ...] = option((), "May be repeated.", kind=list[str])
    secret: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wall(Paint):
    """More of it."""

    height: float = option(2.5, "In metres.", spelling="--high")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "blue"}, "--colour 'blue' is unknown; choose one of red, green"),
        ({"finish": "dull"}, "--finish 'dull' is unknown; choose one of matt, glossy"),
        ({"coats": 0}, "--coats must be at least 1, not 0"),
    ],
)
def test_values_are_checked_wherever_they_come_from(values: dict[str, Any], message: str) -> None:
    for make in (Paint, Wall, lambda **given: Paint.of(None, given), lambda **given: Paint.of(Wall(), given)):
        with pytest.raises(OptionError, match=message.replace("(", r"\(")):
            make(**values)


def test_keywords_replace_what_an_object_has() -> None:
    assert Wall.of(Wall(coats=2, height=3.0), {"coats": 3}) == Wall(coats=3, height=3.0)
    assert Wall(coats=2).part(Paint, secret="x") == Paint(coats=2, secret="x")
    with pytest.raises(TypeError, match="there is no option 'coat'; did you mean 'coats'"):
        Wall.of(None, {"coat": 3})
    with pytest.raises(TypeError, match="there is no option 'zzz'; there are colour, finish"):
        Wall.of(None, {"zzz": 3})


def ran(words: list[str]) -> tuple[Wall, str] | int:
    """What a command with these flags is called with, or its exit code."""
    seen: list[Any] = []

    def command(name: str, paint: Wall) -> None:
        seen.extend([paint, name])

    app = typer.Typer(add_completion=False)
    app.command()(with_flags(command))
    with suppress(SystemExit):
        app(words, prog_name="paint")
    return (seen[0], seen[1]) if seen else 2


def test_a_field_is_a_flag() -> None:
    assert ran(["x"]) == (Wall(), "x")
    words = ["x", "--colour", "green", "--finish", "matt", "--coats", "2", "-Q", "--names", "a", "--names", "b"]
    expected = Wall(colour="green", finish="matt", coats=2, quick=True, names=["a", "b"], height=3.0)  # type: ignore[arg-type]
    assert ran([*words, "--high", "3"]) == (expected, "x")
    for wrong in (["--colour", "blue"], ["--finish", "dull"], ["--coats", "0"], ["--height", "1"], ["--secret", "x"]):
        assert ran(["x", *wrong]) == 2, wrong


def test_a_hint_that_python_made_optional() -> None:
    """Python 3.10 does that to a parameter whose default is None, and its argument or flag would be lost."""
    seen: list[Any] = []

    def command(name: str, paint: Paint, words: Any = None) -> None:
        seen.append((name, paint.coats, words))

    inner = Annotated[list[str] | None, typer.Argument(metavar="WORDS")]
    command.__annotations__ |= {"words": Optional[inner], "name": str, "paint": Paint}  # noqa: UP045 - as Python makes it
    app = typer.Typer(add_completion=False)
    app.command()(with_flags(command))
    with suppress(SystemExit):
        app(["x", "a", "b", "--coats", "2"], prog_name="paint")
    assert seen == [("x", 2, ["a", "b"])]


def test_a_field_is_in_the_signature_and_in_the_documentation() -> None:
    @documented(Wall)
    def paint(name: str, *, options: Wall | None = None, **keywords: Any) -> Wall:
        """Paint it."""
        del name
        return Wall.of(options, keywords)

    assert list(inspect.signature(paint).parameters) == ["name", "options", *(item.name for item in fields(Wall))]
    assert "coats: How often." in (paint.__doc__ or "")
    assert paint("x", coats=4).coats == 4


@pytest.mark.parametrize("group", EVERY)
def test_every_option_says_what_it_does(group: type[Options]) -> None:
    assert group() == group.of(None, {})
    for item, flag in flags_of(group):
        assert flag.help.rstrip().endswith((".", ")")), item.name


@pytest.mark.parametrize("name", ["calibrate", "normalize", "plan", "rewrite", "verify", "write_report"])
def test_verbs_have_their_options_in_their_signature(name: str) -> None:
    verb = getattr(onnxnorm, name)
    assert "options" in inspect.signature(verb).parameters
    assert "Options (keywords" in (verb.__doc__ or "")
    with pytest.raises(TypeError, match="there is no option 'presett'"):
        verb("no.onnx", "no", presett="caffe")
