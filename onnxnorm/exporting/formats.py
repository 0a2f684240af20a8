"""File formats for constants: `.safetensors`, `.npz`, `.h5` and `.pth`.

All but `.pth` are written one array at a time, so that only one is in memory.

Each writer takes a path and the arrays. `check` finds out, before anything is written, whether a format can hold all of
them and the packages that it needs are there.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from onnxnorm.errors import OptionError
from onnxnorm.exporting.entries import Entry, arrays_of
from onnxnorm.model.boundary import first_line

__all__ = ["FORMATS", "Format", "format_of"]

_SAFETENSORS = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_NUMPY = set(_SAFETENSORS) - {"bfloat16", "float8_e4m3fn", "float8_e5m2"} | {"complex64", "complex128"}
_TORCH = set(_SAFETENSORS) - {"uint16", "uint32", "uint64"} | {"complex64", "complex128"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        write: writes the arrays to a path.
        dtypes: names of the dtypes that it holds.
        package: the package that it needs; None if it is always there.
        extra: the extra of onnxnorm that installs it.
    """

    write: Callable[[Path, Sequence[Entry]], None]
    dtypes: frozenset[str]
    package: str | None = None
    extra: str | None = None

    def check(self, entries: Sequence[Entry], ending: str) -> None:
        """Check that the arrays can be written.

        Raises:
            OptionError: if a package is missing, an array has a dtype that the format does not have, or a name comes
                twice.
        """
        if self.package is not None:
            try:
                import_module(self.package)
            except ImportError as error:
                raise OptionError(
                    f"{ending} files need {self.package} ({error}); "
                    f"install it: pip install 'onnxnorm[{self.extra}]', or write .safetensors"
                ) from error
        for entry in entries:
            if entry.dtype.name not in self.dtypes:
                raise OptionError(
                    f"{ending} files hold no {entry.dtype.name}, which constant {entry.constant!r} is; "
                    f"write {', '.join(_holding(entry.dtype.name)) or 'another model'}"
                )
            if entry.name == "__metadata__" or "\0" in entry.name:
                raise OptionError(f"a constant called {entry.name!r} has no place in a file; rename it in the model")


def _holding(dtype: str) -> list[str]:
    return [ending for ending, kind in FORMATS.items() if dtype in kind.dtypes]


def format_of(path: Path) -> tuple[str, Format]:
    """The ending of a file's name, and its format. Raises OptionError if there is no such format."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise OptionError(
            f"-o {path}: the ending {ending or 'of the name'} says no format; use one of {', '.join(FORMATS)}"
        )
    return ending, FORMATS[ending]


# --- writers ---------------------------------------------------------------------------------------------------------


def _write_safetensors(path: Path, entries: Sequence[Entry]) -> None:
    """Eight bytes with the length of a JSON header, the header, and the arrays without gaps; large elements first."""
    placed = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in placed:
        size = entry.dtype.itemsize * int(np.prod(entry.shape, dtype=np.int64))
        kind = _SAFETENSORS[entry.dtype.name]
        header[entry.name] = {"dtype": kind, "shape": list(entry.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, values in arrays_of(placed):
            stream.write(values.reshape(-1).view(np.uint8).data)


def _write_npz(path: Path, entries: Sequence[Entry]) -> None:
    """A zip archive with a `.npy` file per array, as `numpy.savez` writes it, but for any name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for entry, values in arrays_of(entries):
            member = zipfile.ZipInfo(f"{entry.name}.npy", _EPOCH)
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


def _write_h5(path: Path, entries: Sequence[Entry]) -> None:
    """A dataset per array; arrays of Keras's layers are grouped as in the weight files of Keras.

    There a layer is a group, whose attribute `weight_names` lists its datasets, and the attribute `layer_names` of the
    file lists the layers. `load_weights(by_name=True)` reads that, and `load_weights` where all layers are the same.
    """
    import h5py

    with h5py.File(path, "w") as file:
        layers: dict[str, list[str]] = {}
        for entry, values in arrays_of(entries):
            name = entry.name
            if entry.layer:
                layers.setdefault(entry.layer, []).append(f"{name}:0")
                name = f"{entry.layer}/{name}:0"
            try:
                file.create_dataset(name, data=values, track_times=False)
            except (ValueError, RuntimeError, TypeError, KeyError) as error:
                raise OptionError(
                    f"an .h5 file has no place for {entry.name!r} ({first_line(error)}); write .safetensors"
                ) from error
        for layer, names in layers.items():
            file[layer].attrs["weight_names"] = np.array([name.encode() for name in names])
        if layers:
            file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
            file.attrs["backend"] = b"tensorflow"
            file.attrs["keras_version"] = b"2.0.0"


def _write_pth(path: Path, entries: Sequence[Entry]) -> None:
    """A plain state_dict, which `torch.load(..., weights_only=True)` reads."""
    import torch

    state = {}
    for entry, values in arrays_of(entries):
        dtype = getattr(torch, entry.dtype.name)
        flat = (
            torch.frombuffer(bytearray(values.tobytes()), dtype=dtype) if values.size else torch.empty(0, dtype=dtype)
        )
        state[entry.name] = flat.reshape(entry.shape)
    try:
        with path.open("wb") as stream:  # given a path, PyTorch makes a name in the file of it
            torch.save(state, stream)
    except RuntimeError as error:  # a disk that is full
        raise OptionError(f"the state_dict cannot be written ({first_line(error)})") from error


FORMATS = {
    ".safetensors": Format(_write_safetensors, frozenset(_SAFETENSORS)),
    ".npz": Format(_write_npz, frozenset(_NUMPY)),
    ".h5": Format(_write_h5, frozenset(_NUMPY), "h5py", "h5"),
    ".pth": Format(_write_pth, frozenset(_TORCH), "torch", "torch"),
}
