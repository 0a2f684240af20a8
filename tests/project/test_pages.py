"""Links on every page lead somewhere, commands on it parse, Python on it compiles; the site has every page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from onnxnorm.cli.app import app
from tools.docs.commands import OPTIONS, PAGE, options
from tools.docs.commands import page as commands_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "models").glob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(?:\$ )?(\S.*)$", re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def without_code(text: str) -> str:
    """A page's text without blocks of code and without code in lines."""
    return re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    broken = []
    for target, anchor in LINK.findall(without_code(text)):
        path = folder / target
        if target and not path.exists():
            broken.append(target)
        elif anchor and anchor not in anchors(path.read_text("utf-8") if target else text):
            broken.append(f"{target}#{anchor}")
    return broken


def commands(text: str, program: str) -> list[str]:
    """The lines of a page's blocks that call a program. A line that ends in a backslash goes on in the next one."""
    joined = re.sub(r"\\\n\s*", "", text)
    fenced = [line.removeprefix("$ ") for _, block in BLOCK.findall(joined) for line in block.splitlines()]
    return [line for line in [*fenced, *INDENTED.findall(BLOCK.sub("", joined))] if line.startswith(f"{program} ")]


def parse(line: str) -> None:
    """Parse a command without running it; what is wrong raises a usage error."""
    _, name, *words = shlex.split(line, comments=True)
    group: Any = typer.main.get_command(app)
    if name.startswith("-"):
        assert any(name in parameter.opts for parameter in group.params), name
        return
    group.commands[name].make_context(name, words)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page.read_text("utf-8"), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands(page.read_text("utf-8"), "onnxnorm"):
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_targets_of_make_are_there(page: Path) -> None:
    targets = [shlex.split(line, comments=True)[1] for line in commands(page.read_text("utf-8"), "make")]
    assert [name for name in targets if not re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_compiles(page: Path) -> None:
    for language, block in BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            compile(block, str(page), "exec")


def test_the_checks_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "# A heading, here\n[a](none.md) `[b](c.md)` [d](#a-heading-here) [e](#there) [f](https://x.org)\n"
    assert broken_links(text, tmp_path) == ["none.md", "#there"]
    text = "    $ onnxnorm plan a\n    b\n\n```console\nonnxnorm plan \\\n  c  # d\n```\n"
    assert commands(text, "onnxnorm") == ["onnxnorm plan c  # d", "onnxnorm plan a"]
    parse("onnxnorm plan model.onnx --allow nodes  # a comment")
    for wrong in ("onnxnorm plan", "onnxnorm plan model.onnx --alow nodes", "onnxnorm plan model.onnx --allow node"):
        with pytest.raises(Exception, match=r"(?i)missing|no such option|is not one of"):
            parse(wrong)


def test_the_site_has_every_page() -> None:
    """A page of docs/ that the navigation does not name would be an error of `make docs`."""
    site = (ROOT / "tools" / "docs" / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"^ +- ([\w-]+\.(?:md|ipynb))$", site, re.MULTILINE))
    written = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in {".md", ".ipynb"}}
    assert named == written | {"commands.md"}


def test_the_page_of_commands_has_every_option() -> None:
    text = commands_page()
    group: Any = typer.main.get_command(app)
    sections = re.split(r"^## onnxnorm ", text, flags=re.MULTILINE)[1:]
    assert [section.split()[0] for section in sections] == list(group.commands)
    for section, command in zip(sections, group.commands.values(), strict=True):
        for option in (name for parameter in command.params for name in parameter.opts if name.startswith("--")):
            assert option in section
    for line in commands(text, "onnxnorm"):
        parse(line)


def rows(text: str) -> list[tuple[str, str, str]]:
    """The table of options: flags, commands and meaning, without what versions of the parser write differently."""
    cells = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| <code>")]
    return [
        (re.sub(r" (&lt;|[A-Z]).*", "", flags), names, re.sub(r" \[[^\]]*\]", "", meaning))
        for flags, names, meaning in cells
    ]


def test_the_page_of_the_command_line_has_every_option() -> None:
    """The table is the one that the commands give, and no option of any command is missing from it."""
    written = PAGE.read_text("utf-8")
    table = rows(written[written.index(OPTIONS) :])
    assert table == rows(options()), "run python -m tools.docs.commands"
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        mine = " ".join(flags for flags, names, _ in table if names == "all" or name in names.split(", "))
        for option in (opt for parameter in command.params for opt in parameter.opts if opt.startswith("--")):
            assert re.search(rf"{option}(?![\w-])", mine), (name, option)
