"""External data: weights in files beside the model. A location outside the model's folder is refused.

Every tensor of a model is checked, wherever it is: onnx and the runtimes open the file of an unchecked one, relative to
the current folder even.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import first_line
from onnxnorm.model.containers import attribute_tensors, containers, messages
from onnxnorm.model.mapped_data import MappedData, mapped
from onnxnorm.model.protobuf import TensorData, split_weights
from onnxnorm.model.tensors import check_tensor, tensor_size

__all__ = [
    "check_inner_tensors",
    "entries_of",
    "external_data",
    "external_locations",
    "forget_location",
    "referenced",
    "simplest",
    "write_data",
]


def external_data(proto: onnx.ModelProto, path: Path | None, where: str) -> dict[int, MappedData]:
    """Map the external data of all initializers into memory.

    Args:
        proto: the model without its bulky data.
        path: the model's file; external data must lie in its folder or below. None for a ModelProto in memory.
        where: how messages name the model.

    Returns:
        The data by the initializer's index.

    Raises:
        ModelError: if a file is missing or outside the folder, or if an entry does not fit the file or the tensor.
    """
    stored: dict[int, MappedData] = {}
    files: dict[str, memoryview] = {}
    for index, tensor in enumerate(proto.graph.initializer):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            stored[index] = _mapped_tensor(tensor, path, where, files)
    return stored


def check_inner_tensors(proto: onnx.ModelProto, path: Path | None, where: str) -> None:
    """Check the tensors that are not initializers of the main graph: in subgraphs, functions, attributes, sparse ones.

    Args:
        proto: the model.
        path: the model's file; None for a ModelProto in memory.
        where: how messages name the model.

    Raises:
        ModelError: if one is not complete, or is external. Only initializers of subgraphs may be external, inside of
            the model's folder.
    """
    files: dict[str, memoryview] = {}
    main = proto.graph
    for container in containers(main, *proto.functions):
        if isinstance(container, onnx.GraphProto):
            for sparse in container.sparse_initializer:
                for tensor in (sparse.values, sparse.indices):
                    _check_embedded(tensor, f"{where}: sparse initializer {sparse.values.name!r}")
            for tensor in container.initializer if container is not main else ():
                check_tensor(tensor, f"{where}: initializer {tensor.name!r} of a subgraph")
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    _mapped_tensor(tensor, path, where, files)
        for node in container.node:
            label = node.name or next(iter(node.output), "")
            for attribute in node.attribute:
                for tensor in attribute_tensors(attribute):
                    _check_embedded(tensor, f"{node.op_type} node {label!r}")


def _check_embedded(tensor: onnx.TensorProto, what: str) -> None:
    """Check a tensor that must not be external."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError(
            f"{what} keeps its value in another file, which few runtimes accept; "
            "save the model with that value as an initializer"
        )
    check_tensor(tensor, f"the value of {what}")


def _mapped_tensor(tensor: onnx.TensorProto, path: Path | None, where: str, files: dict[str, memoryview]) -> MappedData:
    """Map the data of an external tensor; `files` holds the files that are mapped already, by location."""
    if path is None:
        raise ModelError(f"{where} keeps {tensor.name!r} in another file; load its external data, or give a path")
    entries = entries_of(tensor)
    if len(entries) < len(tensor.external_data):
        raise ModelError(f"{where}: the external data of {tensor.name!r} is given twice; save the model again")
    location = entries.get("location", "")
    if location not in files:
        files[location] = mapped(_inside(path.parent, location, where))
    size = tensor_size(tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise ModelError(f"{where}: offset and length of {tensor.name!r} in {location} are not numbers") from None
    if length != size:
        raise ModelError(f"{where}: {tensor.name!r} needs {size} bytes, its external data says {length}")
    if offset < 0 or length < 0 or offset + length > len(files[location]):
        raise ModelError(
            f"{where}: {tensor.name!r} ends at byte {offset + length} of {location}, which has {len(files[location])}"
        )
    return MappedData(files[location][offset : offset + length], offset)


def external_locations(proto: onnx.ModelProto) -> set[str]:
    """The locations of the external data of all initializers, those of subgraphs included."""
    return {
        entries_of(tensor).get("location", "")
        for container in containers(proto.graph)
        if isinstance(container, onnx.GraphProto)
        for tensor in container.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def entries_of(tensor: onnx.TensorProto) -> dict[str, str]:
    """Entries of an external tensor that say where its data lies: location, offset, length."""
    return {entry.key: entry.value for entry in tensor.external_data}


def referenced(path: Path) -> set[str]:
    """Locations of the external data of all tensors in a file; none if it is no model.

    Raises:
        ModelError: if the file cannot be read.
    """
    try:
        proto = onnx.ModelProto.FromString(split_weights(mapped(path))[0])
    except (ValueError, DecodeError):
        return set()
    return {
        entries_of(tensor).get("location", "") for tensor in messages(proto) if isinstance(tensor, onnx.TensorProto)
    } - {""}


def simplest(folder: Path, location: str) -> str:
    """The simplest spelling of a location: no `.`, and no `..`, which may lead elsewhere than it seems after a link."""
    if ".." in PurePosixPath(location).parts:
        location = os.path.relpath((folder / location).resolve(), folder.resolve())
    return PurePosixPath(location).as_posix()


def _inside(folder: Path, location: str, where: str) -> Path:
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        exists = path.is_file()
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # NUL, a name too long, links that go round
        raise ModelError(f"{where}: external data at {location!r} cannot be a file ({first_line(error)})") from error
    if not location or Path(location).is_absolute() or root not in path.parents:
        raise ModelError(f"{where}: external data at {location!r} is outside the model's folder; it is not followed")
    if not exists:
        raise ModelError(f"{where}: its external data file {location!r} is missing")
    return path


def forget_location(tensor: onnx.TensorProto) -> None:
    """Turn an external tensor, in place, into one whose data is in the model."""
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def write_data(source: Path, target: Path, placed: list[tuple[int, TensorData]]) -> None:
    """Copy a data file and overwrite changed data (given with its offset in bytes); offsets and padding stay."""
    shutil.copyfile(source, target)
    with target.open("r+b") as stream:
        for offset, tensor_data in placed:
            if isinstance(tensor_data, MappedData):
                continue
            stream.seek(offset)
            for chunk in tensor_data.chunks():
                stream.write(chunk)
