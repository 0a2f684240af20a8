"""A kind of file is added in one place: a reader, and its registration."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import onnxnorm
from onnxnorm.data.batches import Batch, Skipped
from onnxnorm.data.files.table import FileTable
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.readers import Reader, printable
from onnxnorm.data.selection import Indices, RowSelector, all_rows
from onnxnorm.data.sources import Source, kind_of, register, source_number, sources, unregister
from onnxnorm.model.inputs import InputSpec
from tests.helpers.graphs import model, rand


@dataclass(frozen=True)
class TextReader:
    """Reads `.txt` files of numbers, one sample each."""

    files: FileTable
    spec: InputSpec
    numbers: Indices | None = None
    sample_bytes: int | None = None
    preprocessing: None = None

    @property
    def total(self) -> int:
        """Number of files."""
        return len(self.files)

    @property
    def file_count(self) -> int:
        """The same."""
        return len(self.files)

    def blocks(
        self, size: int, threads: int, selected: RowSelector = all_rows
    ) -> Generator[Batch | Skipped, None, None]:
        """Yield one sample a file."""
        for row in selected(0, len(self.files)).tolist():
            path = self.files[row].path
            index = row if self.numbers is None else int(self.numbers[row])
            try:
                sample = np.loadtxt(path, np.float32).reshape(1, *(side or 1 for side in self.spec.shape[1:]))
            except ValueError as error:
                yield Skipped(printable(path), str(error), index)
            else:
                yield Batch({self.spec.name: sample}, 1, (printable(path),), (index,))

    def select(self, rows: Indices) -> TextReader:
        """These files alone."""
        return replace(self, files=self.files.select(rows), numbers=rows)


def open_text(files: FileTable, specs: Sequence[InputSpec], options: ImageOptions) -> list[Reader]:
    return [TextReader(files, specs[0])]


TEXT = Source(
    kind="text",
    one="a text file of numbers",
    files="text files",
    endings=lambda: frozenset({".txt"}),
    remote=False,
    open=open_text,
    describe=lambda count, readers: f"{count} text file(s)",
)


@pytest.fixture
def text() -> Iterator[None]:
    register(TEXT)
    yield
    unregister("text")


def test_a_source_of_ones_own(text: None, tmp_path: Path) -> None:
    """Texts among arrays, one of them damaged: the means are those of the same numbers as arrays."""
    samples = rand(9, 3, 4, 4)
    folder = tmp_path / "data"
    folder.mkdir()
    for index, sample in enumerate(samples[:5]):
        np.savetxt(folder / f"{index}.txt", sample.reshape(-1))
    (folder / "5.txt").write_text("no number")
    np.save(folder / "6.npy", samples[5:])
    proto = model("y = Conv(x, w)  z = Relu(y)", {"x": ("N", 3, 4, 4)}, {"w": rand(4, 3, 3, 3)})
    statistics = onnxnorm.calibrate(proto, folder, provider="cpu")
    assert statistics.inputs["data"] == "1 array file(s) with 4 sample(s), 6 text file(s)"
    assert [Path(name).name for name, _ in statistics.skipped] == ["5.txt"]
    assert statistics.inputs["sources"][0]["files"] == 7
    expected = onnxnorm.calibrate(proto, samples, provider="cpu")
    for value, moments in expected.values.items():
        assert statistics.values[value].images == 9
        np.testing.assert_allclose(statistics.values[value].mean, moments.mean, rtol=1e-6)
    halves = [onnxnorm.calibrate(proto, folder, provider="cpu", shard=f"{index}/2") for index in (0, 1)]
    assert onnxnorm.merge(halves).images == 9
    with pytest.raises(onnxnorm.DataError, match=r"nor a \.npy or \.npz file .* nor a text file of numbers"):
        onnxnorm.calibrate(proto, Path(__file__), provider="cpu")


def test_without_it_such_files_are_no_data(tmp_path: Path) -> None:
    assert [source.kind for source in sources()] == ["image", "array", "archive"]
    (tmp_path / "1.txt").write_text("1 2 3")
    with pytest.raises(onnxnorm.DataError, match=r"holds no images and no \.npy or \.npz files .* \(1 other files\)"):
        onnxnorm.calibrate(model("z = Conv(x, w)", None, {"w": rand(4, 3, 3, 3)}), tmp_path)


def test_no_kind_and_no_ending_twice(text: None) -> None:
    assert source_number("text") == 3
    assert kind_of("a/B.TXT") == "text"
    for wrong in (TEXT, replace(TEXT, kind="other"), replace(TEXT, kind="image", endings=frozenset)):
        with pytest.raises(ValueError, match="has the kind or an ending of"):
            register(wrong)
    with pytest.raises(ValueError, match="is not 'array'"):
        unregister("array")
