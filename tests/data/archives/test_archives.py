"""Archives are read as the files in them would be, as they stand; what is not read is counted, and nothing escapes."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxnorm
from onnxnorm.data.archives import members
from onnxnorm.data.archives.index import archive_index
from onnxnorm.data.dataset import Dataset
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.opening import open_data
from onnxnorm.errors import DataError, DataWarning, StatisticsError
from onnxnorm.model.inputs import InputSpec
from tests.helpers.calibrations import close, net

SPEC = InputSpec("x", (None, 3, 8, 8), np.dtype(np.float32))
RAW = ImageOptions(preset="raw")
Entries = dict[str, bytes]


def png(value: int, size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, "png")
    return stream.getvalue()


def as_tar(mode: Any) -> Callable[[Path, Entries], None]:
    def write(path: Path, entries: Entries) -> None:
        with tarfile.open(path, mode) as archive:
            for name, data in entries.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    return write


def as_zip(method: int) -> Callable[[Path, Entries], None]:
    def write(path: Path, entries: Entries) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    return write


WRITERS: dict[str, Callable[[Path, Entries], None]] = {
    "a.tar": as_tar("w"),
    "a.tar.gz": as_tar("w:gz"),
    "a.TGZ": as_tar("w:gz"),
    "stored.zip": as_zip(zipfile.ZIP_STORED),
    "deflated.zip": as_zip(zipfile.ZIP_DEFLATED),
}
ENTRIES = {f"shard/{number:03}.png": png(number) for number in range(20)}
MORE = {
    "shard/000.json": b"{}",
    "shard/001.json": b"{}",
    "shard/000.cls": b"3",
    "README": b"hello",
    "inside.tar": b"x",
    "inside.zip": b"x",
    "__MACOSX/._000.png": b"x",
    ".DS_Store": b"x",
}


@pytest.fixture(params=WRITERS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    WRITERS[request.param](path, {**ENTRIES, **MORE})
    return path


def opened(*paths: Path | str) -> Dataset:
    return open_data(list(paths), [SPEC], RAW)


def flat(dataset: Dataset, **words: Any) -> list[int]:
    return [int(s.ravel()[0]) for batch in dataset.batches(3, threads=2, **words) for s in batch.feeds["x"]]


def test_images_in_order_and_the_rest_counted(archive: Path) -> None:
    dataset = opened(archive)
    assert dataset.total == 20
    assert flat(dataset) == flat(dataset) == list(range(20))
    assert flat(dataset, limit=7) == list(range(7))
    assert next(iter(dataset.batches(1))).names == (f"{archive}/shard/000.png",)
    assert dataset.describe() == (
        "1 archive(s) with 20 image(s), 4 other member(s) ignored (2 .json + 1 .cls + 1 no ending), "
        "2 archive(s) inside not followed"
    )
    assert dataset.identity["files"] == 1
    assert dataset.identity["bytes"] == archive.stat().st_size


def test_nothing_is_written_and_no_other_file_is_opened(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are never paths: members named like files outside are read from the archive."""
    outside = archive.parent / "outside.png"
    outside.write_bytes(png(99))
    evil = {"../outside.png": png(1), str(outside): png(2), "a/../../b.png": png(3)}
    WRITERS[archive.name](archive, evil)
    before = sorted(archive.parent.rglob("*"))
    assert flat(opened(archive)) == [1, 2, 3]
    assert sorted(archive.parent.rglob("*")) == before
    assert outside.read_bytes() == png(99)


def test_shards_resume_and_merge_as_with_files(archive: Path, tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "net.onnx")
    words: dict[str, Any] = {"preset": "unit", "resize": "none", "provider": "cpu", "batch_size": 2}
    folder = tmp_path / "files"
    (folder / "shard").mkdir(parents=True)
    for name, data in ENTRIES.items():
        (folder / name).write_bytes(data)
    expected = onnxnorm.calibrate(tmp_path / "net.onnx", folder, **words)
    whole = onnxnorm.calibrate(tmp_path / "net.onnx", archive, **words)
    close(whole, expected)
    parts = [onnxnorm.calibrate(tmp_path / "net.onnx", archive, shard=f"{i}/3", **words) for i in range(3)]
    close(onnxnorm.merge(parts), expected)
    with pytest.raises(StatisticsError, match="counted twice"):
        onnxnorm.merge([whole, parts[0]])
    other = tmp_path / f"copy-{archive.name}"
    other.write_bytes(archive.read_bytes())
    copied = onnxnorm.calibrate(tmp_path / "net.onnx", [other, folder], **words)
    assert copied.images == 40

    def stop(progress: Any) -> None:
        if progress.done >= 6:
            raise KeyboardInterrupt

    point = tmp_path / "point"
    with pytest.raises(KeyboardInterrupt):
        onnxnorm.calibrate(tmp_path / "net.onnx", archive, checkpoint=point, progress=stop, **words)
    resumed = onnxnorm.calibrate(tmp_path / "net.onnx", archive, checkpoint=point, resume=True, **words)
    close(resumed, expected)
    assert resumed.inputs["sources"] == whole.inputs["sources"]
    prints = [next(iter(statistics.files.values())) for statistics in (resumed, whole)]
    np.testing.assert_array_equal(prints[0], prints[1])


def test_selected_samples_can_be_sent_away(archive: Path) -> None:
    import pickle

    rows = np.array([1, 4, 19])
    ((offset, reader),) = pickle.loads(pickle.dumps(opened(archive).select(rows)))
    blocks = list(reader.blocks(8, 2))
    assert offset == 0
    assert [block.indices[0] for block in blocks] == rows.tolist()
    assert [int(block.feeds["x"].ravel()[0]) for block in blocks] == rows.tolist()
    (block,) = reader.select(np.array([2])).blocks(8, 1) if reader.numbers is None else list(reader.blocks(8, 1))[2:]
    assert int(block.feeds["x"].ravel()[0]) == 19


def test_damaged_members_are_skipped(archive: Path) -> None:
    WRITERS[archive.name](archive, {**ENTRIES, "x.png": b"junk", "y.png": b"", "z.png": png(5)[:-30]})
    dataset = opened(archive)
    assert flat(dataset) == list(range(20))
    reasons = {Path(item.name).name: item.reason for item in dataset.skipped}
    assert reasons["x.png"] == "it is not an image that Pillow can read"
    assert reasons["y.png"] == "it is empty"
    assert len(reasons) == 3


def test_archives_that_are_cut_off_or_no_archives_are_refused(archive: Path) -> None:
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2 - 100], b"junk" * 400, b""):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is no (zip|tar) file, or is damaged or cut off"):
            opened(archive)


def test_a_tar_without_its_end_may_be_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    WRITERS["a.tar"](path, ENTRIES)
    path.write_bytes(path.read_bytes()[: 20 * 1024])
    with pytest.warns(DataWarning, match="has no end mark, so it may be cut off"):
        assert flat(opened(path)) == list(range(20))


def test_a_tar_whose_header_is_damaged_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    WRITERS["a.tar"](path, ENTRIES)
    content = bytearray(path.read_bytes())
    content[content.index(b"shard/010.png")] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="no header"):
        opened(path)


@pytest.mark.parametrize("name", ["a.tar", "deflated.zip"])
def test_an_archive_that_changes_while_it_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path, ENTRIES)
    dataset = opened(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"\d\d of 20 samples cannot be used: .*damaged in the archive"):
        flat(dataset)


def test_without_images_it_says_what_there_is(tmp_path: Path) -> None:
    cases = {
        "nested": (
            {"a.tar": b"", "b.zip": b""},
            r"no images, but 2 archive\(s\), which are not followed; unpack it once",
        ),
        "texts": ({"a.txt": b"", "b.txt": b""}, r"holds no images \(2 \.txt\)"),
        "empty": ({}, "holds no images; it is empty"),
    }
    for name, (entries, message) in cases.items():
        WRITERS["a.tar"](tmp_path / f"{name}.tar", entries)
        with pytest.raises(DataError, match=message):
            opened(tmp_path / f"{name}.tar")


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(7))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("soft.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        info = tarfile.TarInfo("a.png")
        info.size = len(png(1))
        archive.addfile(info, io.BytesIO(png(1)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        link = zipfile.ZipInfo("soft.png")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, str(secret))
        zipped.writestr("a.png", png(1))
    assert flat(opened(tmp_path / "a.tar", tmp_path / "a.zip")) == [1, 1]
    assert archive_index(tmp_path / "a.tar").others == {"link": 2, "no regular file": 1}
    assert archive_index(tmp_path / "a.zip").others == {"link": 1}


def test_methods_of_compression_that_unpack_without_bounds_are_not_read(tmp_path: Path) -> None:
    as_zip(zipfile.ZIP_BZIP2)(tmp_path / "a.zip", ENTRIES)
    with pytest.raises(DataError, match=r"holds no images \(20 compressed otherwise than by deflate\)"):
        opened(tmp_path / "a.zip")


def test_a_member_that_unpacks_to_more_than_it_says_takes_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zip"
    bomb = bytes(50_000_000)
    WRITERS["deflated.zip"](path, {**ENTRIES, "bomb.png": bomb})
    content = path.read_bytes()
    path.write_bytes(content.replace(len(bomb).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    dataset = opened(path)
    tracemalloc.start()
    assert flat(dataset) == list(range(20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert [item.reason for item in dataset.skipped] == ["it is damaged in the archive, or the archive was changed"]
    monkeypatch.setattr(members, "LARGEST_MEMBER", 999)
    dataset = opened(path)
    flat(dataset)
    assert dataset.skipped[0].reason.startswith("it has more than")


def test_the_archive_is_never_whole_in_memory(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "png")
    entries = {f"{number}.png": stream.getvalue() for number in range(200)}
    for name in ("a.tar", "a.tar.gz", "stored.zip"):
        WRITERS[name](tmp_path / name, entries)
        assert (tmp_path / name).stat().st_size > 20_000_000
        tracemalloc.start()
        count = sum(batch.count for batch in opened(tmp_path / name).batches(2, threads=1))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 200
        assert peak < 6_000_000, name


def test_a_folder_of_shards_is_read_and_archives_beside_images_are_not(tmp_path: Path) -> None:
    for index, name in enumerate(("b.tar", "a.zip")):
        WRITERS["a.tar" if name.endswith("tar") else "stored.zip"](tmp_path / name, {f"{index}.png": png(index)})
    assert flat(opened(tmp_path)) == [1, 0]
    (tmp_path / "c.png").write_bytes(png(9))
    with pytest.warns(DataWarning, match=r"holds 2 archive\(s\) beside other data \(a\.zip\)"):
        dataset = opened(tmp_path)
    assert flat(dataset) == [9]
    assert dataset.ignored == 2
    assert flat(opened(tmp_path / "c.png", tmp_path / "b.tar")) == [9, 0]
    assert opened(tmp_path / "b.tar", os.path.join(tmp_path, ".", "b.tar")).total == 1


def test_archives_feed_one_input(tmp_path: Path) -> None:
    WRITERS["a.tar"](tmp_path / "a.tar", ENTRIES)
    with pytest.raises(DataError, match=r"a\.tar holds images, but the model has the inputs 'x', 'y'"):
        open_data([tmp_path / "a.tar"], [SPEC, InputSpec("y", (None, 1), SPEC.dtype)])
