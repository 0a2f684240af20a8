"""The arrays of a file of weights: `.pth`, `.h5`, `.npz`, `.safetensors`. Nothing in it is unpickled or run.

Only arrays of one and of four axes are read: weights and biases of convolutions. Names are those of the file, but for
the layers of Keras 3: its files number them by class (`layers/conv2d_3/vars/0`) and keep the names that layers had in
an attribute, which stands in its place here (`layers/block2_conv2/vars/0`).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import DataError, ModelError, OptionError
from onnxnorm.exporting.formats import FORMATS
from onnxnorm.model.boundary import COMPLAINTS, first_line

__all__ = ["Array", "read_arrays"]

Array = NDArray[np.float32]

_LARGEST = 1 << 26  # elements of an array; the largest one of a VGG has 2.4 million
_AXES = (1, 4)

_BROKEN: tuple[type[Exception], ...] = (*COMPLAINTS, pickle.UnpicklingError, EOFError, struct.error, DataError)
"""What the readers raise at a file that is damaged, or something else than its ending says."""


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of one and of four axes in a file, as float32, by name.

    Raises:
        ModelError: if the file is not there, or cannot be read as what its ending says.
        OptionError: if the package that reads such files is not installed.
    """
    ending = path.suffix.lower()
    if ending not in _READERS:
        hint = "; an ONNX model is measured by onnxnorm calibrate" if ending == ".onnx" else ""
        raise ModelError(f"{path}: the ending should be one of {', '.join(_READERS)}{hint}")
    if not path.is_file():
        raise ModelError(
            f"{path} {'is not a regular file' if path.exists() else 'does not exist'}; name a file of weights"
        )
    _check_package(FORMATS[".pth" if ending == ".pt" else ending].package, ending)
    try:
        return {name: _checked(name, values) for name, values in _READERS[ending](path)}
    except MemoryError as error:
        raise ModelError(f"{path} needs more memory than there is; use a larger machine") from error
    except _BROKEN as error:
        raise ModelError(f"{path} cannot be read as {ending} ({first_line(error)}); save it again") from error


def _check_package(package: str | None, ending: str) -> None:
    if package is None:
        return
    try:
        import_module(package)
    except ImportError as error:
        extra = next(kind.extra for kind in FORMATS.values() if kind.package == package)
        raise OptionError(
            f"{ending} files are read by {package} ({error}); install it: pip install 'onnxnorm[{extra}]', or save the "
            "weights as .safetensors or .npz"
        ) from error


def _checked(name: str, values: Any) -> Array:
    array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"array {name!r} has numbers that are not finite")
    return array


def _wanted(name: str, shape: tuple[int, ...]) -> bool:
    """Whether an array is read. Raises ValueError if it has more elements than any weight of a VGG."""
    if len(shape) not in _AXES:
        return False
    if int(np.prod(shape, dtype=object)) > _LARGEST:
        raise ValueError(f"array {name!r} of shape {shape} has more than {_LARGEST:,} elements, too many for a VGG")
    return True


# --- one reader for each format --------------------------------------------------------------------------------------


def _from_torch(path: Path) -> Iterator[tuple[str, Any]]:
    """A state_dict, also inside a checkpoint that has it under `state_dict` or `model`."""
    import torch

    found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        found = found.get(key, found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping):
        raise TypeError(f"it holds a {type(found).__name__}, not a state_dict")
    for name, tensor in found.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and _wanted(name, tuple(tensor.shape)):
            yield str(name), tensor.detach().float().numpy()


def _from_h5(path: Path) -> Iterator[tuple[str, Any]]:
    """Every dataset but those of an optimizer. Values that lie in other files are not read."""
    import h5py

    datasets: list[tuple[str, Any]] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and "optimizer" not in name:
            datasets.append((name, item))

    with h5py.File(path, "r") as file:
        file.visititems(note)
        for name, item in datasets:
            if item.shape is None or not _wanted(name, item.shape) or item.dtype.kind not in "fiu":
                continue
            if item.external or item.is_virtual:
                raise ValueError(f"the values of {name!r} lie in another file")
            yield _named_layer(name, item.parent), item[()]


def _named_layer(name: str, group: Any) -> str:
    """The name of a dataset of Keras 3 with its layer's own name, if the file tells it; other names as they are."""
    given = group.attrs.get("name")
    parts = name.split("/")
    if isinstance(given, str) and len(parts) > 2 and parts[-2] == "vars":
        parts[-3] = given
    return "/".join(parts)


def _from_npz(path: Path) -> Iterator[tuple[str, Any]]:
    from onnxnorm.data.arrays.npy import open_npz

    for name, rows in open_npz(path).items():
        if rows.dtype.kind in "fiu" and _wanted(name, rows.shape):
            yield name, rows.whole(np.dtype(np.float32))


def _from_safetensors(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                if _wanted(name, tuple(file.get_slice(name).get_shape())):
                    yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".pth": _from_torch,
    ".pt": _from_torch,
    ".h5": _from_h5,
    ".npz": _from_npz,
    ".safetensors": _from_safetensors,
}
