"""A page of the report, read back."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """A page read back: every element closed, its attributes, its text, and its tables by section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.section = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag == "td":
            self.rows[self.section][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text.append(data)
        if "td" in self.open:
            row = self.rows[self.section][-1]
            row[-1] += f" {data}" if self.open[-1] == "small" and row[-1] else data

    def table(self, section: str) -> list[list[str]]:
        """The cells of a section's tables."""
        return [row for row in self.rows.get(section, []) if row]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def svgs(self) -> list[ET.Element]:
        return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", self.html, re.DOTALL)]
