"""An image in an archive is the image that it is on disk: counted once, by shards, on resuming, and when merging."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.errors import DataError, StatisticsError
from onnxnorm.statistics import Statistics
from tests.helpers.commands import DEMO, SOME, run, succeeded

Members = list[tuple[str, bytes]]
IMAGES: Members = [(f"photos/{path.name}", path.read_bytes()) for path in SOME]


def tarred(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: Members, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


WRITERS: dict[str, Callable[[Path, Members], Path]] = {
    "x.tar": tarred,
    "x.tar.gz": lambda path, members: tarred(path, members, "w:gz"),
    "x.TGZ": lambda path, members: tarred(path, members, "w:gz"),
    "x.zip": zipped,
    "stored.zip": lambda path, members: zipped(path, members, zipfile.ZIP_STORED),
}


@pytest.fixture(params=WRITERS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return WRITERS[request.param](tmp_path / request.param, IMAGES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same images as files."""
    for name, data in IMAGES:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(data)
    return tmp_path / "files"


def measured(data: Any, **options: Any) -> Statistics:
    return onnxnorm.calibrate(DEMO, data, preset="unit", provider="cpu", **options)


def check_equal(one: Statistics, other: Statistics) -> None:
    assert one.images == other.images
    for value, moments in one.values.items():
        np.testing.assert_allclose(moments.mean, other.values[value].mean, rtol=1e-6)


def test_the_same_means_as_from_files(archive: Path, folder: Path) -> None:
    statistics = measured(archive, batch_size=2)
    check_equal(statistics, measured(folder, batch_size=2))
    assert statistics.inputs["data"] == "1 archive(s) with 6 image(s)"
    assert not statistics.skipped


def test_an_image_in_two_places_is_not_merged(archive: Path, folder: Path, tmp_path: Path) -> None:
    """Fingerprints are those of images: in an archive, in another one, or on disk."""
    with pytest.raises(StatisticsError, match="images would be counted twice"):
        onnxnorm.merge([measured(archive), measured(folder)])
    for write in (tarred, zipped):
        other = write(tmp_path / f"part{archive.suffix}.{write.__name__[:3]}", IMAGES[4:])
        with pytest.raises(StatisticsError, match="images would be counted twice"):
            onnxnorm.merge([measured(other), measured(archive)])
    distinct = tarred(tmp_path / "other.tar", [("1.jpg", IMAGES[0][1]), ("2.jpg", IMAGES[1][1])])
    assert onnxnorm.merge([measured(archive), measured(distinct)]).images == 8


def test_fingerprints_are_those_of_what_was_measured(archive: Path, folder: Path) -> None:
    """The first two images of the archive and the other four on disk have nothing in common."""
    two = measured(archive, limit=2, batch_size=1, threads=1)
    rest = [folder / name for name, _ in IMAGES[2:]]
    assert onnxnorm.merge([two, measured(rest)]).images == 6
    with pytest.raises(StatisticsError, match="images would be counted twice"):
        onnxnorm.merge([two, measured(folder / IMAGES[1][0])])


def test_shards_of_an_archive(archive: Path) -> None:
    halves = [measured(archive, shard=f"{index}/2") for index in range(2)]
    check_equal(onnxnorm.merge(halves), measured(archive))
    with pytest.raises(StatisticsError, match="counted twice"):
        onnxnorm.merge([halves[0], measured(archive)])


def test_given_twice_an_archive_counts_once(archive: Path) -> None:
    assert measured([archive, archive]).images == 6


def test_a_run_is_resumed(archive: Path, tmp_path: Path) -> None:
    """What a checkpoint says is done is not measured again, the rest once."""
    checkpoint = tmp_path / "s.partial"
    stopped = 0

    def stop(progress: onnxnorm.Progress) -> None:
        nonlocal stopped
        stopped = progress.done
        if progress.done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(onnxnorm.Interrupted):
        measured(archive, batch_size=1, threads=1, checkpoint=checkpoint, progress=stop)
    assert 2 <= stopped < 6
    resumed: list[int] = []
    statistics = measured(
        archive,
        batch_size=1,
        threads=1,
        checkpoint=checkpoint,
        resume=True,
        progress=lambda progress: resumed.append(progress.resumed),
    )
    assert resumed[0] == stopped
    check_equal(statistics, measured(archive))


def test_damaged_images_are_skipped_by_name(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        path = write(tmp_path / name, [IMAGES[0], ("bad.jpg", b"no image"), IMAGES[1]])
        statistics = measured(path)
        assert statistics.images == 2
        assert statistics.skipped == ((f"{path}/bad.jpg", "it is not an image that Pillow can read"),)
        assert len(next(iter(statistics.files.values()))) == 2 + 1


def test_what_is_no_archive_is_named(tmp_path: Path, archive: Path) -> None:
    whole = archive.read_bytes()
    for name, data in {
        "text.tar": b"words",
        "empty.tar": b"",
        "a.tar.gz": b"words",
        "b.zip": b"PK\3\4 words",
        f"cut-{archive.name}": whole[: len(whole) // 2],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            measured(tmp_path / name)
    assert "text.tar" in run("calibrate", DEMO, tmp_path / "text.tar", "-o", tmp_path / "s").error


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match="a header has 8,589,934,592 bytes"):
        measured(tmp_path / "x.tar")


def test_commands_read_archives(archive: Path, tmp_path: Path) -> None:
    done = succeeded("normalize", DEMO, archive, "--preset", "unit", "-o", tmp_path / "n.onnx", "--json").json
    assert done["statistics"]["images"] == 6
    assert succeeded("verify", DEMO, tmp_path / "n.onnx", archive, "--preset", "unit", "--json").json["samples"] == 6
    assert "it is an input" in run("calibrate", DEMO, archive, "-o", archive).error
