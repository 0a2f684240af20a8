"""What mkdocs asks this project when it builds the site."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File

from tools.docs import commands

__all__ = ["on_files"]


def on_files(files: Any, config: Any) -> Any:
    """Add the page of commands, which is written from the commands themselves."""
    files.append(File.generated(config, "commands.md", content=commands.page()))
    return files
