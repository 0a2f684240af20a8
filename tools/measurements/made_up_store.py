"""A store for measurements: a bucket of folders, all alike, whose name says how many and how slowly it answers."""

from __future__ import annotations

import time
from typing import Any

import fsspec  # type: ignore[import-untyped]

__all__ = ["MadeUp"]

PAGE = 1000


class MadeUp(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """`madeup://FILES-FOLDERS-SECONDS/photos`, with so many seconds to wait for each thousand names."""

    protocol = "madeup"

    def isdir(self, *_: Any) -> bool:
        """All paths are folders."""
        return True

    def ls(self, path: str, *_args: Any, **_words: Any) -> list[dict[str, Any]]:
        """The folders of the bucket."""
        _, folders, seconds = _meaning(path)
        time.sleep(seconds)
        root = f"{path.split('/', maxsplit=1)[0]}/photos"
        return [{"name": f"{root}/n{number:08}", "size": 0, "type": "directory"} for number in range(folders)]

    def find(self, path: str, *_args: Any, **_words: Any) -> dict[str, dict[str, Any]]:
        """The files in one folder, or in all of them."""
        files, folders, seconds = _meaning(path)
        bucket, _, *inside = path.strip("/").split("/")
        found = {}
        for folder in [int(inside[0][1:])] if inside else range(folders):
            for number in range(files // folders):
                name = f"{bucket}/photos/n{folder:08}/n{folder:08}_{number:08}.JPEG"
                if seconds and number % PAGE == 0:
                    time.sleep(seconds)
                found[name] = {
                    "Key": name,
                    "name": name,
                    "type": "file",
                    "size": 100000 + number,
                    "Size": 100000 + number,
                    "ETag": f'"{number:032x}"',
                    "LastModified": f"2024-01-01T00:00:00.{number:06}Z",
                    "StorageClass": "STANDARD",
                }
        return found


def _meaning(path: str) -> tuple[int, int, float]:
    files, folders, seconds = path.split("/", 1)[0].split("-")
    return int(files), int(folders), float(seconds)
