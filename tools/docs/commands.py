"""Pages that are written from the commands themselves.

The page of commands, one section per command, is added to the site when that is built (tools/docs/hooks.py). The table
of every option stands at the end of docs/command-line.md, where this writes it:

    python -m tools.docs.commands
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from onnxnorm.cli.app import app

__all__ = ["OPTIONS", "PAGE", "options", "page"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
OPTIONS = "## Every option\n"

HEAD = """\
# Commands

What `--help` says, for every command. Options may also stand in a file or in variables, and files that nobody names
have [defaults](command-line.md). Exit codes: 0 done; 1 an input is wrong: a file, a model, an image, or the value of an
option; 2 the command line is wrong: an option or a command that does not exist, or something is missing; 3 verification
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
    for spelled, meaning, _ in parameters(name, command):
        yield f"| <code>{cell(spelled)}</code> | {cell(meaning)} |"
    yield ""


def options() -> str:
    """The section of every option: how it is spelled, which commands have it, and what their help says."""
    group: Any = typer.main.get_command(app)
    having: dict[tuple[str, str], list[str]] = {}
    for name, command in group.commands.items():
        for spelled, meaning, is_option in parameters(name, command):
            if is_option:
                having.setdefault((spelled, meaning), []).append(name)
    lines = [OPTIONS, "| option | of | meaning |\n|---|---|---|"]
    for (spelled, meaning), names in sorted(having.items(), key=lambda row: row[0][0].rpartition("--")[2].lower()):
        of = "all" if len(names) == len(group.commands) else ", ".join(names)
        lines.append(f"| <code>{cell(spelled)}</code> | {of} | {cell(meaning)} |")
    return "\n".join([*lines, ""])


def parameters(name: str, command: Any) -> Iterator[tuple[str, str, bool]]:
    """How each argument and option of a command is spelled, what it means, and whether it is an option."""
    context = command.context_class(command, info_name=name)
    for parameter in command.params:
        if (record := parameter.get_help_record(context)) is not None:
            spelled, meaning = (" ".join(part.split()) for part in record)
            yield spelled, meaning, parameter.opts[0].startswith("-")


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return html.escape(text, quote=False).replace("|", "&#124;")


def main() -> None:
    """Write the table of options again."""
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(OPTIONS)
    PAGE.write_text(f"{before.rstrip()}\n\n{options()}", encoding="utf-8")


if __name__ == "__main__":
    main()
