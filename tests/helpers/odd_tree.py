"""A folder with every oddity that a file system allows."""

from __future__ import annotations

import os
from pathlib import Path

ODD: list[str | bytes] = [
    *(
        "a/z.png",
        "a-b.png",
        "a.npy",
        "a b/x.PNG",
        "B/y.Jpg",
        "b/.hidden.png",
        ".h/x.png",
        "b/no-ending",
        "b/dot.",
        "c/.png",
    ),
    *(
        "é.png",
        "한국.png",
        "豈.png",
        "😀.png",
        b"\xff.png",
        b"\xfe/x.png",
        "\n.png",
        "x.png/in-a-folder.npz",
        "b/a..png",
    ),
]


def odd_tree(folder: Path) -> None:
    for number, name in enumerate(ODD):
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    (folder / "0-first").symlink_to(folder / "a")
    (folder / "b" / "loop").symlink_to(folder)
    (folder / "b" / "file.png").symlink_to(folder / "a" / "z.png")
    (folder / "b" / "broken.png").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe.png")
