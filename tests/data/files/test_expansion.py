"""Lists of files, patterns and local URIs stand for the same files as the paths themselves."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from onnxnorm.data.files import discovery
from onnxnorm.data.files.discovery import discover, identity, order_digest
from onnxnorm.errors import DataError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three images in two folders."""
    for name in ("a/1.png", "a/2.png", "b/3.png", "a/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*data: str | Path) -> list[str]:
    return [str(file.path) for file in discover(data).files]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("b/3.png\na/1.png\n", ["b/3.png", "a/1.png"]),
        ("\ufeff# photos\n\n  \nb/3.png\r\n a/1.png"[:24] + "\r\na/2.png", ["b/3.png", "a/2.png"]),
        ("a\nb/3.png", ["a/1.png", "a/2.png", "b/3.png"]),
        ("a/*.png\na/2.png\n", ["a/1.png", "a/2.png"]),
        ("b/3.png\0a/1.png\0", ["b/3.png", "a/1.png"]),
    ],
)
def test_a_list_is_the_files_that_it_names(
    content: str, expected: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "list.txt").write_bytes(content.encode())
    assert paths("@list.txt") == expected
    assert paths(f"@{here / 'list.txt'}") == expected
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content.encode())))
    assert paths("@-") == expected
    files = discover(["@list.txt"]).files
    if not any(path == "a" for path in content.split()):
        plain = discover(expected).files
        assert (identity(files), order_digest(files)) == (identity(plain), order_digest(plain))


def test_names_that_are_not_utf8_and_names_like_patterns(here: Path) -> None:
    odd = os.fsdecode(b"a/\xff.png")
    Path(odd).write_bytes(b"x")
    Path("a/[1].png").write_bytes(b"y")
    Path("list").write_bytes(b"a/\xff.png\na/[1].png\n")
    assert paths("@list") == [odd, "a/[1].png"]
    assert paths("a/[1].png") == ["a/[1].png"]
    assert paths("a/[12].png") == ["a/1.png", "a/2.png"]


def test_patterns(here: Path) -> None:
    assert paths("*/*.png") == ["a/1.png", "a/2.png", "b/3.png"]
    assert paths("**/3.png") == ["b/3.png"]
    assert paths("?") == ["a/1.png", "a/2.png", "b/3.png"]


@pytest.mark.parametrize(
    ("given", "content", "message"),
    [
        ("@gone.txt", "", r"the list of files gone\.txt cannot be read: No such file"),
        ("@a", "", "the list of files a cannot be read"),
        ("@list.txt", "", "list.txt names no files; write one path a line"),
        ("@list.txt", "a/1.png\n\ngone.png\n", r"gone\.png \(list\.txt, line 3\) does not exist; give images"),
        ("@list.txt", "list.txt\n", r"list\.txt \(list\.txt, line 1\) is neither"),
        ("@list.txt", "@list.txt\n", r"@list\.txt \(list\.txt, line 1\) does not exist"),
        ("@list.txt", "*.gif\n", r"\*\.gif \(list\.txt, line 1\) matches no file"),
        ("c/*.png", "", r"c/\*\.png matches no file"),
    ],
)
def test_what_cannot_be_used_is_named(given: str, content: str, message: str, here: Path) -> None:
    Path("list.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        discover([given])


def test_local_uris_need_no_fsspec(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "has_fsspec", lambda: False)
    (here / "b" / "4 4.png").write_bytes(b"x")
    assert paths(f"file://{here}/a/1.png", f"file://localhost{here}/b/3.png") == [f"{here}/a/1.png", f"{here}/b/3.png"]
    assert paths(f"file://{here}/b/4%204.png") == [f"{here}/b/4 4.png"]
    assert paths(f"file://{here}/a") == [f"{here}/a/1.png", f"{here}/a/2.png"]
    (here / "c").mkdir()
    (here / "c" / "x.npy").write_bytes(b"")
    monkeypatch.undo()
    assert [file.kind for file in discover([f"file://{here}/c"]).files] == ["array"]
    assert [file.kind for file in discover([f"file://{here}/c/x.npy"]).files] == ["array"]
