"""A file that became something else since it was listed is no reason to wait for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxnorm.data.arrays.npy import open_npy, open_npz
from onnxnorm.data.files.fingerprints import fingerprints
from onnxnorm.data.files.table import DataFile
from onnxnorm.data.images.decoding import ImageError, read_image
from onnxnorm.data.local import open_regular
from onnxnorm.data.opening import open_data
from onnxnorm.data.remote import RemoteFile
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are those of POSIX")
READERS: tuple[tuple[Callable[[Path], object], type[Exception]], ...] = (
    (open_regular, OSError),
    (read_image, ImageError),
    (open_npy, DataError),
    (open_npz, DataError),
    (lambda path: RemoteFile(path.as_uri()).open(), OSError),
)


@pytest.mark.parametrize(("read", "error"), READERS)
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, read: Callable[[Path], object], error: type[Exception]) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(error, match="it is not a regular file"):
        read(tmp_path / "a.png")


def test_fingerprints_do_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    file = DataFile(tmp_path / "a.png", "a.png", "image", 7)
    assert fingerprints([file], 4)[0, 1] == 0


def test_an_image_that_becomes_a_named_pipe_is_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    dataset = open_data(tmp_path, [InputSpec("x", (None, 3, 8, 8), np.dtype(np.float32))])
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    assert sum(batch.count for batch in dataset.batches(1)) == 2
    assert [item.reason for item in dataset.skipped] == ["it is not a regular file"]


def test_an_array_that_becomes_a_named_pipe_is_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 3, 8, 8), np.float32))
    dataset = open_data(tmp_path / "a.npy", [InputSpec("x", (None, 3, 8, 8), np.dtype(np.float32))])
    (tmp_path / "a.npy").unlink()
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(DataError, match="was changed or removed while it was read"):
        list(dataset.batches(2))
