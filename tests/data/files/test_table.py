"""A table of files is a list of them, in less memory."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxnorm.data.files.table import DataFile, FileTable, FileTableBuilder, Place
from onnxnorm.data.remote import RemoteFile

LETTERS = st.sampled_from(["a", "B", "é", "豈", "😀", "\udcff", "\udc80", " ", "-", ".", "한"])
NAMES = st.lists(st.text(LETTERS, min_size=1, max_size=4).filter(lambda part: part not in {".", ".."}), min_size=1).map(
    "/".join
)


@st.composite
def data_files(draw: st.DrawFn) -> DataFile:
    name = draw(NAMES)
    if draw(st.booleans()):
        uri = draw(st.sampled_from(["memory:///b/", "s3://bucket//x/"])) + name
        return DataFile(RemoteFile(uri), name, "image", draw(st.integers(0, 1 << 50)))
    folder = draw(st.sampled_from([".", "..", "/", "/data/photos", "up/../down"]))
    return DataFile(Path(folder, name), name, draw(st.sampled_from(["image", "array"])), draw(st.integers(0, 1 << 50)))


@given(st.lists(data_files(), max_size=30), st.data())
@settings(deadline=None)
def test_it_is_a_list_of_files(files: list[DataFile], data: st.DataObject) -> None:
    table = FileTable.of(files)
    assert list(table) == files
    assert len(table) == len(files)
    assert [table[row] for row in range(-len(files), len(files))] == files + files
    assert list(table.names()) == [os.fsencode(file.name) for file in files]
    cut = data.draw(st.slices(len(files)) if files else st.just(slice(None, None, -1)))
    assert list(table[cut]) == files[cut]
    rows = data.draw(st.lists(st.integers(0, len(files) - 1)) if files else st.just([]))
    select = pickle.loads(pickle.dumps(table.select(rows)))
    assert list(select) == [files[row] for row in rows]
    assert list(FileTable.joined([select, table, table[:0], table[1:]])) == [*select, *files, *files[1:]]
    assert FileTable.of(table) is table
    for row in (len(files), -len(files) - 1):
        with pytest.raises(IndexError):
            table[row]


def test_names_in_stores_may_have_empty_parts() -> None:
    builder = FileTableBuilder()
    for raw, tidy in (("a.png", True), ("/b//c.png", False), ("./d/./e.png", False)):
        builder.add(Place("s3://b/x/", True, tidy), raw, "image", 1)
    found = list(builder.table())
    assert [str(file.path) for file in found] == ["s3://b/x/a.png", "s3://b/x//b//c.png", "s3://b/x/./d/./e.png"]
    assert [file.name for file in found] == ["a.png", "b/c.png", "d/e.png"]
    assert list(builder.table().names()) == [b"a.png", b"b/c.png", b"d/e.png"]


def test_it_cannot_be_changed_and_holds_no_other_paths() -> None:
    table = FileTable.of([DataFile(Path("a.png"), "a.png", "image", 3)])
    with pytest.raises(ValueError, match="read-only"):
        table.sizes[0] = 3
    with pytest.raises(ValueError, match="does not end"):
        FileTable.of([DataFile(Path("a.png"), "b.png", "image", 3)])


def test_a_file_costs_its_name_and_little_more() -> None:
    """Beside the names: 17 bytes a file, and little for all of them; some files are sent without the others."""
    count, place = 50_000, Place("s3://bucket/photos/", remote=True)
    tracemalloc.start()
    builder = FileTableBuilder()
    for number in range(count):
        builder.add(place, f"n{number % 100:08}/{number:08}.JPEG", "image", 100_000 + number)
    table = builder.table()
    del builder
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    name = len(table[0].name)
    assert held < count * (name + 18)
    assert peak < count * 2.5 * (name + 17)
    chunk = table.select(np.arange(0, 6400, 100))
    assert len(pickle.dumps(chunk)) < 64 * (name + 17) + 1200
    assert table[:] is table
