"""Finding files: the same list on every machine, each file once, and errors that name the path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxnorm.calibration.discovery import discover, identity
from onnxnorm.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(*data: Path) -> list[str]:
    return [file.name for file in discover(data).files]


def test_folders_are_searched_in_sorted_order_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/z.png", "a/b/c.npz", "a-b.png", "a.npy", "notes.txt", "x.pdf", ".h.png", ".git/i.png")
    found = discover([tmp_path])
    assert [file.name for file in found.files] == ["a/b/c.npz", "a/z.png", "a-b.png", "a.npy", "b.JPG"]
    assert [file.kind for file in found.files] == ["array", "image", "image", "array", "image"]
    assert found.ignored == 2


def test_arguments_keep_their_order_and_a_file_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    assert names(tmp_path / "b.png", tmp_path, tmp_path / "." / "a.png") == ["b.png", "a.png"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "elsewhere/b.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data" / "link")
    os.symlink(tmp_path / "data", tmp_path / "data" / "loop")
    os.symlink(tmp_path / "gone", tmp_path / "data" / "broken.png")
    found = discover([tmp_path / "data"])
    assert [file.name for file in found.files] == ["a.png", "link/b.png"]
    assert found.ignored == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.png", "does not exist"), ("notes.txt", "neither an image"), ("empty", r"no images.*\(1 other files\)")],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, message: str) -> None:
    touch(tmp_path, "notes.txt", "empty/readme.md", "a.png")
    with pytest.raises(DataError, match=message) as caught:
        discover([tmp_path / "a.png", tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)


def test_the_identity_depends_on_names_and_sizes_alone(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "one/b/c.png", "two/b/c.png", "two/a.png")
    first, second = discover([tmp_path / "one"]), discover([tmp_path / "two"])
    (tmp_path / "two" / "a.png").write_bytes(b"ONE/A.PNG")
    (tmp_path / "two" / "b" / "c.png").write_bytes(b"one/b/c.png")
    same = identity(first.files)
    assert same == identity(second.files) == identity(second.files[::-1])
    assert (same["files"], same["bytes"]) == (2, 20)
    (tmp_path / "two" / "a.png").write_bytes(b"longer than before")
    assert identity(second.files) != same
    (tmp_path / "two" / "a.png").unlink()
    with pytest.raises(DataError, match="any more"):
        identity(second.files)
