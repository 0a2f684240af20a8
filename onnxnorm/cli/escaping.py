"""Names come from files that others wrote: characters that control a terminal are shown escaped, as in Python."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["EscapingConsole", "escaped"]

# Control characters but for tab and newline, the separators of lines and paragraphs, and changes of direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""Return the text with `\x1b` and the like in place of characters that control a terminal."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class EscapingConsole(Console):
    """A console that escapes every string it is given, those in the cells of tables too."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string into text of rich."""
        return super().render_str(escaped(text), **options)
