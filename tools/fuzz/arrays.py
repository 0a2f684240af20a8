"""Arrays: .npy headers and .npz members with other shapes, types, orders and lengths, and damaged bytes."""

from __future__ import annotations

import bz2
import io
import struct
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from onnxnorm.data.opening import open_data
from onnxnorm.model.inputs import InputSpec
from tools.fuzz.mutations import ODD_INTEGERS, damage_bytes, pick
from tools.fuzz.target import Files, Target

__all__ = ["TARGET"]

_SHAPE = (5, 3, 4)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_TYPES = ("<f4", ">f4", "|V2", "<f8", "<f2", "|O", "<U3", "|b1", "<M8[s]", "", "f4,f4", "<f99", "|V0", "|S0", "\x00")
_BZIP2_END = 0x177245385090  # ends a bzip2 stream; a checksum follows
_NAMES = (".npy", "x.npy.npy", "a/b.npy", "x", "é.npy", "x\x00.npy")


@cache
def _seeds() -> Mapping[str, Files]:
    values = np.random.default_rng(0).normal(size=_SHAPE).astype(np.float32)
    plain = {"c.npy": _npy(values), "f.npy": _npy(np.asfortranarray(values)), "big.npy": _npy(values.astype(">f4"))}
    packed = {
        f"{method}{order}.npz": _npz({"x.npy": _npy(np.asarray(values, order=order))}, method)
        for method in _METHODS[:2]
        for order in ("C", "F")
    }
    two = _npz({"x.npy": _npy(values), "z.npy": _npy(values[:, 0])}, zipfile.ZIP_STORED)
    return {name: {name: content} for name, content in (plain | packed | {"two.npz": two}).items()}


def _npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _npz(members: Mapping[str, bytes], method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def _damage(random: np.random.Generator) -> Files:
    seeds = _seeds()
    name = pick(random, sorted(seeds))
    content = seeds[name][name]
    kind = int(random.integers(6))
    if kind == 0:
        return {name: damage_bytes(random, content)}
    if name.endswith(".npy"):
        return {name: _array(random, content)}
    if kind == 1:
        return {name: _directory(random, content)}
    if kind == 2 and random.integers(2000) == 0:
        return {name: _bomb()}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        method = pick(random, _METHODS) if random.integers(9) == 0 else archive.infolist()[0].compress_type
    chosen = pick(random, sorted(members))
    damaged = _array(random, members.pop(chosen))
    members[pick(random, _NAMES) if random.integers(4) == 0 else chosen] = damaged
    return {name: _npz(members, method)}


def _array(random: np.random.Generator, content: bytes) -> bytes:
    """Return a .npy file with another header, or with damaged bytes."""
    if random.integers(4) == 0:
        return damage_bytes(random, content, 2)
    shape: Any = list(_SHAPE)
    for _ in range(int(random.integers(3))):
        shape[int(random.integers(len(shape)))] = pick(random, (*ODD_INTEGERS, True, 0.5, "3", None, 10**30))
    if random.integers(4) == 0:
        shape = pick(random, ([], [5], [5, 3, 4, 1], [1] * 70, [0, 2**62, 2**62]))
    dtype: Any = pick(random, _TYPES) if random.integers(3) == 0 else "<f4"
    if random.integers(12) == 0:
        dtype = pick(random, ([("a", "<f4")], [("a", "<f4", (2**31,))], None, 7, ["<f4"], {"names": ["a"]}))
    order: Any = pick(random, (True, False)) if random.integers(5) else pick(random, (0, 2, None, "C"))
    header = repr({"descr": dtype, "fortran_order": order, "shape": tuple(shape)}).encode()
    if random.integers(4) == 0:
        header = damage_bytes(random, header, 2)
    elif random.integers(12) == 0:
        header = pick(random, (b"(" * 300 + b")" * 300, b"-" * 3000 + b"1", b"9" * 6000, b"\x00", b"{" * 99))
    values = content[-4 * int(np.prod(_SHAPE)) :]
    return _start(pick(random, (1, 1, 1, 2, 2, 3)), header) + values


def _header(dtype: str, fortran: bool, shape: tuple[int, ...]) -> bytes:
    return _start(2, repr({"descr": dtype, "fortran_order": fortran, "shape": shape}).encode())


def _start(version: int, header: bytes) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header


def _directory(random: np.random.Generator, content: bytes) -> bytes:
    """Damage a number of the zip directory or of a local header: sizes, offsets, flags, methods, versions."""
    data = bytearray(content)
    marks = [at for at in range(len(data)) if content[at : at + 4] in {b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"}]
    for _ in range(int(random.integers(1, 4))):
        width = pick(random, (2, 4))
        at = pick(random, marks) + 4 + 2 * int(random.integers(20))
        data[at : at + width] = (pick(random, ODD_INTEGERS) % (1 << (8 * width))).to_bytes(width, "little")
    return bytes(data)


@cache
def _bomb() -> bytes:
    """Return an archive of a few kilobytes with a bzip2 member of 1.5 GB, in samples of 48 bytes.

    The stream is put together from copies of one block of zeros, which takes no time; compressing them would.
    """
    zeros, copies = 4 * 10**7, 37
    rows = (copies + 1) * zeros // 48
    head = _header("<f4", False, (rows, *_SHAPE[1:]))
    blocks = [_bzip2_block(head + bytes(zeros)), *[_bzip2_block(bytes(zeros))] * copies]
    bits, crc = "".join(blocks), 0
    for block in blocks:
        crc = ((crc << 1 | crc >> 31) & 0xFFFFFFFF) ^ int(block[48:80], 2)
    bits += f"{_BZIP2_END:048b}{crc:032b}"
    packed = b"BZh9" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    content = _npz({"x.npy": packed}, zipfile.ZIP_STORED)
    old = struct.pack("<2I", len(packed), len(packed))
    content = content.replace(old, struct.pack("<2I", len(packed), len(head) + (copies + 1) * zeros))
    data, method = bytearray(content), struct.pack("<H", zipfile.ZIP_BZIP2)
    data[8:10] = method
    at = content.index(b"PK\x01\x02") + 10
    data[at : at + 2] = method
    return bytes(data)


def _bzip2_block(data: bytes) -> str:
    """Return the bits of the only block of a bzip2 stream."""
    stream = bz2.compress(data)
    bits = f"{int.from_bytes(stream, 'big'):0{8 * len(stream)}b}"
    return bits[32 : bits.rindex(f"{_BZIP2_END:048b}")]


def _read(folder: Path, random: np.random.Generator) -> object:
    file = next(iter(folder.iterdir()))
    specs = [InputSpec("x", pick(random, ((None, 3, 4), (2, 3, None), (None, None, None))), np.dtype(np.float32))]
    if file.name == "two.npz":
        specs.append(InputSpec("z", (None, 4), np.dtype(np.float32)))
    return list(open_data(file, specs).batches(int(random.integers(1, 8)), threads=1))


TARGET = Target("arrays", _seeds, _damage, _read)
