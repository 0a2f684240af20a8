"""The page of commands, from the commands themselves: the site adds it when it is built (tools/docs/hooks.py)."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import typer

from onnxnorm.cli.app import app

__all__ = ["page"]

HEAD = """\
# Commands

What `--help` says, for every command. Options may also stand in a file or in variables, and files that nobody names
have [defaults](command-line.md). Exit codes: 0 done, 1 an input is wrong, 2 the command line is wrong, 3 verification
failed.
"""


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    lines = [HEAD]
    for name, command in group.commands.items():
        lines += section(name, command)
    return "\n".join(lines)


def section(name: str, command: Any) -> Iterator[str]:
    """One command: what it does, examples, arguments and options."""
    yield f"## onnxnorm {name}\n"
    yield f"{' '.join((command.help or '').split())}\n"
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith("onnxnorm ")]
    yield "\n".join(["```console", *(f"$ {example}" for example in examples), "```", ""])
    yield "| argument | meaning |\n|---|---|"
    context = command.context_class(command, info_name=name)
    for parameter in command.params:
        if (record := parameter.get_help_record(context)) is not None:
            spelled, meaning = (" ".join(part.split()) for part in record)
            yield f"| <code>{cell(spelled)}</code> | {cell(meaning)} |"
    yield ""


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return html.escape(text, quote=False).replace("|", "&#124;")
