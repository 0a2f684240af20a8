"""Finding files: the same list on every machine, each file once, and errors that name the path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onnxnorm.data.files import discovery
from onnxnorm.data.files.discovery import discover, identity, order_digest
from onnxnorm.data.files.table import DataFile
from onnxnorm.data.images.decoding import image_extensions
from onnxnorm.errors import DataError
from tests.helpers.odd_tree import odd_tree


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_without_an_ending_is_told_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    """If it is named; what has another ending, or begins otherwise, is no image, and folders are not read for it."""
    for name in ("0af1", "named.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, kind)
    touch(tmp_path, "0b22")
    assert [(file.name, file.kind) for file in discover([tmp_path / "0af1"]).files] == [("0af1", "image")]
    for other in ("named.txt", "0b22"):
        with pytest.raises(DataError, match="neither an image"):
            discover([tmp_path / other])
    with pytest.raises(DataError, match=r"\(3 other files\); images without an ending .* named: .*/\*$"):
        discover([tmp_path])


def test_the_identity_depends_on_names_and_sizes_alone(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "one/b/c.png", "two/b/c.png", "two/a.png")
    first, second = discover([tmp_path / "one"]), discover([tmp_path / "two"])
    (tmp_path / "two" / "a.png").write_bytes(b"ONE/A.PNG")
    (tmp_path / "two" / "b" / "c.png").write_bytes(b"one/b/c.png")
    same = identity(first.files)
    assert same == identity(second.files) == identity(second.files[::-1])
    assert (same["files"], same["bytes"]) == (2, 20)
    (tmp_path / "two" / "a.png").write_bytes(b"longer than before")
    assert identity(discover([tmp_path / "two"]).files) != same


def before(folder: Path) -> tuple[list[DataFile], int]:
    """The files of a folder, put down plainly: everything is walked, then sorted."""
    seen: set[str] = set()
    paths: list[Path] = []
    for root, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(root, name) for name in files if not name.startswith(".")]
    found: list[DataFile] = []
    for path in sorted(paths, key=lambda path: path.relative_to(folder).parts):
        ending = path.suffix.lower()
        if (ending in image_extensions() or ending in {".npy", ".npz"}) and path.is_file():
            kind = "array" if ending.startswith(".np") else "image"
            found.append(DataFile(path, path.relative_to(folder).as_posix(), kind, path.stat().st_size))
    return found, len(paths) - len(found)


def digests(files: Sequence[DataFile]) -> tuple[str, str]:
    """Of the names with their sizes, and of the order, put down plainly."""
    entries = sorted((os.fsencode(file.name), os.stat(file.path).st_size) for file in files)
    named = b"".join(b"%d:%s:%d\n" % (len(name), name, size) for name, size in entries)
    order = b"".join(os.fsencode(file.name) + b"\n" for file in files)
    return f"sha256:{sha256(named).hexdigest()}", f"sha256:{sha256(order).hexdigest()}"


@pytest.mark.parametrize("block", [1, 3, 1 << 18])
def test_odd_trees_give_what_they_always_gave(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, names and digests are in statistics files and checkpoints: they must not change."""
    monkeypatch.setattr(discovery, "_SORTED_AT_ONCE", block)
    odd_tree(tmp_path)
    monkeypatch.chdir(tmp_path / "b")
    for folder in (tmp_path, Path(".."), Path(), Path("../b/..")):
        files, others = before(folder)
        found = discover([folder])
        assert list(found.files) == files
        assert found.ignored == others
        assert (identity(found.files)["digest"], order_digest(found.files)) == digests(files)
        assert identity(files) == identity(found.files)


def test_folders_that_lie_in_each_other_count_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x/a.png", "x/y/b.png", "xy/c.png")
    monkeypatch.chdir(tmp_path)
    assert names(Path("x/y"), tmp_path / "x", Path("xy")) == ["b.png", "a.png", "c.png"]
    assert names(Path("x"), Path("x"), Path("x/../x")) == ["a.png", "y/b.png"]
    assert names(Path("x/a.png"), Path("x/a.png"), Path("xy/c.png"), Path("xy")) == ["a.png", "c.png"]
    assert names(Path("x"), Path("xy")) == ["a.png", "y/b.png", "c.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "secret/b.png")
    (tmp_path / "secret").chmod(0)
    try:
        with pytest.raises(DataError, match="secret cannot be read: Permission denied"):
            discover([tmp_path])
    finally:
        (tmp_path / "secret").chmod(0o700)


def test_an_error_of_the_system_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "secret/b.png")
    plain = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="secret cannot be read: Permission denied"):
        discover([tmp_path])
