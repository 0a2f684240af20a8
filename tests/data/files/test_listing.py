"""Stores are listed by many threads, and what comes out is what one sorted list of everything would be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from onnxnorm.data import remote
from onnxnorm.data.files import stores
from onnxnorm.data.files.discovery import discover, identity
from onnxnorm.data.images.decoding import image_extensions
from onnxnorm.errors import DataError

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra remote)")

TREE = [
    *("a.png", "b.JPG", "notes.txt", "data.npy", ".hidden.png", ".git/a.png", "a/b.png", "a-b/c.png", "a/.cache/d.png"),
    *("a/b/c/d/e/f/g.png", "a/b/c.png", "z/1.png", "z/10.png", "z/2.png", "a.png.d/x.webp", "é/x.png", "豈/x.png"),
    *("😀/y.png", "A/a.png", "empty.d/notes.md"),
]


def expected(system: Any, root: str) -> list[tuple[str, str, int]]:
    """All that `find` finds, as before: path, name, size, in the order of the parts of the names."""
    named = [
        (PurePosixPath(path).relative_to(root), path, info) for path, info in system.find(root, detail=True).items()
    ]
    return [
        (system.unstrip_protocol(path), name.as_posix(), info["size"])
        for name, path, info in sorted(named, key=lambda entry: entry[0].parts)
        if not any(part.startswith(".") for part in name.parts) and name.suffix.lower() in image_extensions()
    ]


def got(uri: str) -> list[tuple[str, str, int]]:
    return [(str(file.path), file.name, file.size) for file in discover([uri]).files]


@pytest.fixture(params=["memory", "flat"])
def system(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A store that is walked, and one that lists everything below a folder at one go."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    found.pseudo_dirs[:] = [""]
    kind = type(found)
    if request.param == "flat":
        kind.find = lambda self, path, detail, base=kind.find: base(self, path, detail=detail)
    yield found
    if request.param == "flat":
        del kind.find
    found.store.clear()
    found.pseudo_dirs[:] = [""]


def fill(system: Any, *names: str) -> None:
    for number, name in enumerate(names):
        system.pipe(f"/bucket/photos/{name}", b"x" * number)


@pytest.mark.parametrize("threads", [1, 3, 32])
def test_the_same_as_one_sorted_list(system: Any, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "THREADS", threads)
    fill(system, *TREE, *(f"many/{number % 40}/{number}.png" for number in range(300)))
    for uri, root in (("memory://bucket/photos", "/bucket/photos"), ("memory://bucket/photos/", "/bucket/photos")):
        assert got(uri) == expected(system, root)
    assert got("memory://bucket") == expected(system, "/bucket")
    assert discover(["memory://bucket/photos"]).ignored == 3
    assert [name for _, name, _ in got("memory://bucket/photos/a.png")] == ["a.png"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("onnxnorm-data")]


def test_uris_that_lie_in_each_other_count_a_file_once(system: Any) -> None:
    fill(system, *TREE)
    every = got("memory://bucket/photos")
    found = discover(["memory://bucket/photos/z", "memory://bucket/photos", "memory://bucket/photos/a.png"])
    assert sorted(str(file.path) for file in found.files) == sorted(uri for uri, _, _ in every)
    assert [file.name for file in found.files][:4] == ["1.png", "10.png", "2.png", "A/a.png"]
    assert identity(found.files)["files"] == len(every)


def test_a_folder_that_cannot_be_listed_is_named(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder is left out silently, however deep."""
    fill(system, *(f"{number:02}/deep/er/a.png" for number in range(40)))
    refused = "/bucket/photos/07/deep/er"
    kind = type(system)
    plain_ls, plain_find = kind.ls, kind.find

    def ls(self: Any, path: str, detail: bool = True, **words: Any) -> Any:
        if path == refused:
            raise PermissionError("not yours")
        return plain_ls(self, path, detail=detail, **words)

    def find(self: Any, path: str, detail: bool = True) -> Any:
        if refused.startswith(path):
            raise PermissionError("not yours")
        return plain_find(self, path, detail=detail)

    monkeypatch.setattr(kind, "ls", ls)
    if "find" in vars(kind):
        monkeypatch.setattr(kind, "find", find)
    with pytest.raises(DataError, match=r"memory:///bucket/photos/07.* cannot be listed: PermissionError: not yours"):
        discover(["memory://bucket/photos"])


class Strange:
    """A store like those for objects, whose keys may have empty parts and end with a slash."""

    keys = ("photos/", "photos/a.png", "photos/sub/", "photos/sub/b.png", "photos/sub//c.png", "photos/x/./d.png")

    def __init__(self, *extra: str) -> None:
        self.all = [f"bucket/{key}" for key in (*self.keys, *extra)]

    def isdir(self, path: str) -> bool:
        return True

    def unstrip_protocol(self, path: str) -> str:
        return f"odd://{path}"

    def find(self, path: str, detail: bool) -> dict[str, Any]:
        return {key: {"name": key, "size": 7, "type": "file"} for key in self.all if key.startswith(f"{path}/")}

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        inside = [key[len(path) + 1 :].partition("/") for key in self.all if key.startswith(f"{path}/")]
        folders = {f"{path}/{first}" for first, slash, _ in inside if slash}
        files = [f"{path}/{first}" for first, slash, _ in inside if not slash]
        return [{"name": name, "size": 7, "type": "file"} for name in files] + [
            {"name": name, "size": 0, "type": "directory"} for name in sorted(folders)
        ]


@pytest.mark.parametrize("extra", [(), ("photos//e.png",)])
@pytest.mark.parametrize("threads", [1, 2, 32])
def test_keys_that_are_no_paths(extra: tuple[str, ...], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "THREADS", threads)
    monkeypatch.setattr(stores, "_opened", lambda uri: (Strange(*extra), "bucket/photos"))
    found = discover(["odd://bucket/photos"])
    store = Strange(*extra)
    assert [(str(file.path), file.name, file.size) for file in found.files] == expected(store, "bucket/photos")
    assert found.ignored == 2


def test_a_remote_file_is_read_as_a_whole(system: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(system, "a.png", "b.png")
    file = discover(["memory://bucket/photos"]).files[1].path
    monkeypatch.setattr(type(system), "info", None)
    with file.open("rb") as stream:
        assert stream.read() == b"x"
    monkeypatch.setattr(type(system), "cat_file", None)
    with pytest.raises(OSError, match="TypeError"):
        file.open("rb")


def test_file_uris(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/.d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    assert got(f"file://{tmp_path}") == [(f"file://{tmp_path}/{name}", name, 3) for name in ("a.png", "b/c.png")]
    assert discover([f"file://{tmp_path}"]).ignored == 1


def test_a_name_is_no_uri_again(system: Any) -> None:
    """The file `a.jpg::/b.jpg` of a store is that file, and `a.jpg` is not opened in its place."""
    system.pipe("/bucket/photos/a.jpg", b"another")
    system.pipe("/bucket/photos/a.jpg::/b.jpg", b"its own")
    contents = {}
    for file in discover(["memory://bucket/photos"]).files:
        with file.path.open("rb") as stream:
            contents[file.name] = stream.read()
    assert contents == {"a.jpg": b"another", "a.jpg::/b.jpg": b"its own"}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("zip://*.jpg::file:///photos.zip", "cannot be listed: it names a store inside another one"),
        ("memory://bucket::ftp://host/x", "cannot be listed: it names a store inside another one"),
        ("ssh://host/photos", "cannot be listed: 'ssh' is none of the protocols"),
        ("FTP://host/photos", "cannot be listed: 'ftp' is none of the protocols"),
    ],
)
def test_uris_that_are_refused(uri: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is connected to."""
    monkeypatch.setattr(fsspec, "filesystem", None)
    with pytest.raises(DataError, match=message):
        discover([uri])


def test_a_store_of_the_program_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(type(fsspec.filesystem("memory"))):  # type: ignore[misc]
        protocol = "own-store"

    remote.check_uri("s3://bucket/photos")
    with pytest.raises(DataError, match="own-store"):
        remote.check_uri("own-store://photos")
    monkeypatch.setitem(import_module("fsspec.registry")._registry, "own-store", Own)
    remote.check_uri("own-store://photos")
