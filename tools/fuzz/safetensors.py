"""Random damage to safetensors files: the header that onnxnorm keeps in the metadata, the arrays, and the bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from tools.fuzz.mutations import damage_bytes, damage_json, pick

__all__ = ["damage_safetensors"]

_ODD_FLOATS = (0.0, -1.0, 1e308, 1e-308, float("nan"), float("inf"))
_TYPES = (np.float32, np.float16, np.int64, np.uint8, np.bool_, np.uint64)


def damage_safetensors(random: np.random.Generator, content: bytes) -> bytes:
    """Return the content of a file with damage in one or several of its parts."""
    kind = int(random.integers(8))
    if kind == 0:
        return damage_bytes(random, content)
    if kind == 1:
        return _outer(random, content)
    size = struct.unpack_from("<Q", content)[0]
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["onnxnorm"])
    arrays = dict(load(content))
    if kind != 2:
        header = damage_json(random, header)
    if kind in {2, 3}:
        _change_arrays(random, arrays)
    text = json.dumps(header)
    if kind == 7 and random.integers(4) == 0:
        text = pick(random, ("[" * 2000 + "]" * 2000, "", "null", "[]", text[:-9], '{"a": ' * 3000))
    return save(arrays, {"onnxnorm": text})


def _outer(random: np.random.Generator, content: bytes) -> bytes:
    """Damage the header of the safetensors file itself: types, shapes, offsets, metadata."""
    size = struct.unpack_from("<Q", content)[0]
    header = damage_json(random, json.loads(content[8 : 8 + size]))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def _change_arrays(random: np.random.Generator, arrays: dict[str, Any]) -> None:
    for _ in range(int(random.integers(1, 4))):
        if not arrays:
            return
        name = pick(random, sorted(arrays))
        array = arrays[name]
        kind = int(random.integers(6))
        if kind == 0:
            del arrays[name]
        elif kind == 1:
            with np.errstate(all="ignore"):
                arrays[name] = array.astype(pick(random, _TYPES))
        elif kind == 2:
            arrays[name] = array.reshape(pick(random, ((1, -1), (-1, 1), (-1,), (1, 1, -1))))
        elif kind == 3:
            arrays[name] = array[: int(random.integers(len(array) + 1))] if array.ndim else array.reshape(1)
        elif kind == 4 and array.size and array.dtype.kind == "f":
            arrays[name] = array.copy()
            arrays[name].flat[int(random.integers(array.size))] = pick(random, _ODD_FLOATS)
        else:
            arrays[name] = np.resize(array, (0,)) if random.integers(2) else arrays[pick(random, sorted(arrays))]
