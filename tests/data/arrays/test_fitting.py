"""Arrays on disk: read in parts, mapped or streamed, never whole; what does not fit is refused with the expectation."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxnorm.data.arrays.npy import open_npy, open_npz
from onnxnorm.data.arrays.reader import open_arrays
from onnxnorm.data.arrays.rows import StoredRows, StreamedRows
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec

Array = npt.NDArray[Any]
F32 = np.dtype(np.float32)
SPEC = InputSpec("x", (None, 3, 4), F32)
SAMPLES = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)


def read(path: Path, size: int, *specs: InputSpec) -> dict[str, Array]:
    specs = specs or (SPEC,)
    file = open_arrays(path, specs)
    blocks = list(file.blocks(size, 1))
    assert all(block.count == size for block in blocks[:-1])
    assert sum(block.count for block in blocks) == file.total
    assert [name for block in blocks for name in block.names] == [f"{path}[{i}]" for i in range(file.total)]
    for block in blocks:
        for spec in specs:
            assert block.feeds[spec.name].dtype == spec.dtype
            assert block.feeds[spec.name].flags.c_contiguous
    return {spec.name: np.concatenate([block.feeds[spec.name] for block in blocks]) for spec in specs}


WRITERS: dict[str, Callable[[Path, Array], None]] = {
    "npy": np.save,
    "stored": lambda path, array: np.savez(path, x=array),
    "compressed": lambda path, array: np.savez_compressed(path, x=array),
}


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(count=st.integers(1, 9), size=st.sampled_from([1, 2, 3, 7, 50]), big_endian=st.booleans())
def test_any_chopping_reads_the_same_samples(
    tmp_path: Path, kind: str, fortran: bool, count: int, size: int, big_endian: bool
) -> None:
    samples = np.random.default_rng(count).normal(size=(count, 3, 4)).astype(np.float32)
    stored = samples.astype(">f4" if big_endian else "<f4", order="F" if fortran else "C")
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    WRITERS[kind](path, stored)
    np.testing.assert_array_equal(read(path, size)["x"], samples)


def test_a_npz_is_read_in_place_where_stored_and_streamed_where_compressed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", y=np.zeros((5, 7)), x=SAMPLES)
    np.savez_compressed(tmp_path / "b.npz", x=SAMPLES)
    stored, compressed = open_npz(tmp_path / "a.npz")["x"], open_npz(tmp_path / "b.npz")["x"]
    assert isinstance(stored, StoredRows)
    np.testing.assert_array_equal(stored.mapped(), SAMPLES)
    assert isinstance(compressed, StreamedRows)


def test_ten_gigabytes_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.npy"
    shape = (17_000, 3, 224, 224)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 4 * 17_000 * 3 * 224 * 224)
    assert path.stat().st_size > 10e9
    rows = open_npy(path)
    assert isinstance(rows, StoredRows)
    assert isinstance(rows.mapped(), np.memmap)
    tracemalloc.start()
    blocks = open_arrays(path, [InputSpec("x", (None, 3, 224, 224), F32)]).blocks(8, 1)
    assert [next(blocks).count for _ in range(3)] == [8, 8, 8]
    blocks.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_compressed_array_is_streamed(tmp_path: Path) -> None:
    array = np.zeros((2_000, 3, 32, 32), np.float32)
    np.savez_compressed(tmp_path / "a.npz", x=array)
    tracemalloc.start()
    blocks = open_arrays(tmp_path / "a.npz", [InputSpec("x", (None, 3, 32, 32), F32)]).blocks(10, 1)
    assert sum(block.count for block in blocks) == 2_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 8


def test_bfloat16_comes_back_from_numpys_void(tmp_path: Path) -> None:
    samples = SAMPLES.astype(ml_dtypes.bfloat16)
    spec = InputSpec("x", (None, 3, 4), np.dtype(ml_dtypes.bfloat16))
    np.save(tmp_path / "a.npy", samples)
    np.savez_compressed(tmp_path / "a.npz", x=samples)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(read(tmp_path / name, 2, spec)["x"], samples)
    with pytest.raises(DataError, match="takes float32"):
        open_arrays(tmp_path / "a.npy", [SPEC])


def test_one_array_for_several_inputs_names_both_ways_out(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SAMPLES)
    with pytest.raises(DataError, match=r"a \.npz file with an array for each, or one value .* --input NAME=VALUE"):
        open_arrays(tmp_path / "a.npy", [SPEC, InputSpec("t", (), F32)])


def test_several_inputs_by_name_however_each_is_stored(tmp_path: Path) -> None:
    specs = (InputSpec("left:0", (None, 2), F32), InputSpec("right/x", (1, None, 3), np.dtype(np.int64)))
    left, right = np.arange(14, dtype=np.float32).reshape(7, 2), np.arange(42).reshape(7, 2, 3)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array, compression in (("left:0", left, 0), ("right/x", right, 8), ("other", right, 0)):
            np.save(tmp_path / "member.npy", array)
            archive.write(tmp_path / "member.npy", f"{name}.npy", compression)
    arrays = read(path, 3, *specs)
    np.testing.assert_array_equal(arrays["left:0"], left)
    np.testing.assert_array_equal(arrays["right/x"], right)


def test_a_lone_array_may_have_any_name_but_among_several_the_inputs(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, anything=SAMPLES)
    np.testing.assert_array_equal(read(path, 4)["x"], SAMPLES)
    np.savez(path, labels=np.zeros(7), x=SAMPLES)
    np.testing.assert_array_equal(read(path, 4)["x"], SAMPLES)
    np.savez(path, labels=np.zeros(7), images=SAMPLES)
    with pytest.raises(DataError, match="holds 'labels', 'images', but no array for 'x'"):
        open_arrays(path, [SPEC])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 4, 3), np.float32), r"shape is \(7, 4, 3\), but input 'x' takes \(N, 3, 4\)"),
        (np.zeros((3, 4), np.float32), r"takes \(N, 3, 4\)"),
        (np.zeros((7, 3, 4), np.float64), r"dtype is float64, but input 'x' takes float32.*astype\('float32'\)"),
        (np.zeros((0, 3, 4), np.float32), "at least one sample"),
        (np.zeros((7, 3, 4), "V2"), "takes float32"),
        (np.zeros((7, 3, 4), [("a", "f4")]), "takes float32"),
        (np.array([[{}]]), "pickled"),
        (np.array(1.0), "takes"),
    ],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, kind: str, array: Array, message: str) -> None:
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    WRITERS[kind](path, array)
    with pytest.raises(DataError, match=message) as caught:
        open_arrays(path, [SPEC])
    assert str(path) in str(caught.value)


def test_inputs_need_equal_numbers_of_samples_and_a_npz(tmp_path: Path) -> None:
    specs = [SPEC, InputSpec("y", (None, 2), F32)]
    np.savez(tmp_path / "a.npz", x=SAMPLES, y=np.zeros((6, 2), np.float32))
    with pytest.raises(DataError, match="differ in the number of samples"):
        open_arrays(tmp_path / "a.npz", specs)
    np.save(tmp_path / "a.npy", SAMPLES)
    with pytest.raises(DataError, match=r"inputs 'x', 'y'; give a \.npz"):
        open_arrays(tmp_path / "a.npy", specs)
    with pytest.raises(DataError, match="no batch axis"):
        open_arrays(tmp_path / "a.npy", [InputSpec("x", (), F32)])


@pytest.mark.parametrize("dtype", ["V2", "V0", [("a", "f4"), ("b", "f4")]])
def test_one_value_for_all_samples_of_a_type_that_does_not_fit(tmp_path: Path, dtype: Any) -> None:
    specs = [SPEC, InputSpec("y", (), F32)]
    np.savez(tmp_path / "a.npz", x=SAMPLES, y=np.zeros((), dtype))
    with pytest.raises(DataError, match="but input 'y' takes float32"):
        open_arrays(tmp_path / "a.npz", specs)
    value = np.array(3, ml_dtypes.bfloat16)  # NumPy stores it as two void bytes
    np.savez(tmp_path / "a.npz", x=SAMPLES, y=value)
    assert open_arrays(tmp_path / "a.npz", [SPEC, InputSpec("y", (), value.dtype)]).shared["y"] == value


@pytest.mark.parametrize(
    "content", [b"", b"junk" * 50, b"\x93NUMPY\x01\x00\x10\x00{'descr': 1}    ", b"\x93NUMPY\x09\x00"]
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_junk_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="not a readable"):
        open_arrays(tmp_path / name, [SPEC])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    WRITERS[kind](path, SAMPLES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cut off|not a readable"):
        open_arrays(path, [SPEC])


@pytest.mark.parametrize("shape", [(True, 3, 4), (7, 3, True), (False, 3, 4)])
def test_a_truth_value_in_a_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """NumPy takes it for a number in some places, and not in others."""
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(bytes(4 * 7 * 3 * 4))
    with pytest.raises(DataError, match=r"is damaged: its shape is .*; write it again"):
        read(tmp_path / "a.npy", 2)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_of_compression_that_numpy_does_not_write_are_refused(tmp_path: Path, method: int) -> None:
    """A kilobyte of bzip2 can be gigabytes, which Python's zipfile unpacks in one step."""
    np.save(tmp_path / "member.npy", SAMPLES)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.write(tmp_path / "member.npy", "x.npy")
    with pytest.raises(DataError, match=rf"\['x'\] is compressed by method {method} .*numpy.savez_compressed"):
        open_arrays(tmp_path / "a.npz", [SPEC])


@pytest.mark.parametrize("kind", ["npy", "stored"])
def test_a_file_that_shrinks_or_goes_after_it_was_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    WRITERS[kind](path, SAMPLES)
    opened = open_arrays(path, [SPEC])
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DataError, match="was changed or removed while it was read"):
        list(opened.blocks(2, 1))
    path.unlink()
    with pytest.raises(DataError, match=r"was changed or removed while it was read .*run it again"):
        list(opened.blocks(2, 1))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_shrinks_between_two_blocks(tmp_path: Path, order: Literal["C", "F"]) -> None:
    path, samples = tmp_path / "a.npy", np.random.default_rng(0).random((6, 3, 64, 64), np.float32)
    np.save(path, np.asarray(samples, order=order))
    blocks = open_npy(path).blocks((np.arange(start, start + 2) for start in (0, 2, 4)), F32)
    np.testing.assert_array_equal(next(blocks), samples[:2])
    path.write_bytes(path.read_bytes()[: -samples[0].nbytes])
    with pytest.raises(DataError, match="was changed or removed while it was read"):
        list(blocks)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kind=st.sampled_from(sorted(WRITERS)), data=st.data())
def test_damage_is_a_data_error_or_goes_unnoticed(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    WRITERS[kind](path, SAMPLES)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read(path, 3)
    except DataError as error:
        assert len(str(error).splitlines()) <= 2  # noqa: PT017 - either outcome is right


def test_a_bad_checksum_inside_a_compressed_array_is_found_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    samples = np.random.default_rng(0).normal(size=(900, 3, 4)).astype(np.float32)
    np.savez_compressed(path, x=samples)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|decompressed"):
        read(path, 100)
