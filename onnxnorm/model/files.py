"""Opening and writing models: a skeleton that protobuf parses, and the bulky data of its initializers beside it.

`Model.open` maps the file (and its external-data files) into memory and copies nothing; `Model.write` streams it back.
Data inside the model file and external data are treated alike from here on. Code that changes a model
(`onnxnorm.rewriting`) makes a `Model` of another skeleton and other data, which `write` treats in the same way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import model_errors
from onnxnorm.model.checks import check_model
from onnxnorm.model.external import check_inner_tensors, external_data, external_locations, forget_location
from onnxnorm.model.inputs import InputSettings
from onnxnorm.model.mapped_data import MappedData, mapped
from onnxnorm.model.protobuf import Span, TensorData, join_weights, split_weights
from onnxnorm.model.tensors import PACKED, check_tensor, tensor_dtype, value_bytes
from onnxnorm.model.writing import Writing

__all__ = ["Model", "ModelLike"]

ModelLike = str | os.PathLike[str] | onnx.ModelProto


@dataclass(frozen=True)
class Model:
    """An ONNX model.

    Attributes:
        proto: the ModelProto without bulky data.
        tensor_data: the bulky data, by the initializer's index.
        path: the file that it was opened from; None for a ModelProto in memory.
        settings: what is known about its inputs beyond what it says itself.
        inputs_as_constants: whether initializers that are graph inputs too are constants, since nobody feeds them.
        inlined: number of functions of its own that were inlined since it was opened.
        source_digest: its digest before that.
        source: the ModelProto before that.
    """

    proto: onnx.ModelProto
    tensor_data: Mapping[int, TensorData] = field(repr=False)
    path: Path | None = None
    settings: InputSettings = field(default_factory=InputSettings, repr=False)
    inputs_as_constants: bool = False
    inlined: int = 0
    source_digest: str = ""
    source: onnx.ModelProto | None = field(default=None, repr=False)

    @classmethod
    def open(cls, source: ModelLike | Model) -> Model:
        """Open a file or a ModelProto. Raises ModelError if it is missing or not an ONNX model."""
        if isinstance(source, Model):
            return source
        path = None if isinstance(source, onnx.ModelProto) else Path(source)
        buffer = _serialized(source) if isinstance(source, onnx.ModelProto) else mapped(Path(source))
        where = f"model {path}" if path else "the ModelProto"
        try:
            skeleton, spans = split_weights(buffer)
            proto = onnx.ModelProto.FromString(skeleton)
        except (ValueError, DecodeError) as error:
            raise ModelError(f"{where} is not an ONNX file in protobuf form ({error}); export it again") from error
        if not proto.graph.node or not proto.opset_import:
            raise ModelError(f"{where} has no nodes or no opset: it is not an ONNX model")
        with model_errors(where):
            check_model(proto, where)
            stored = {index: _inline(buffer, span) for index, span in spans.items()}
            for index, tensor in enumerate(proto.graph.initializer):
                check_tensor(tensor, f"{where}: initializer {tensor.name!r}", stored.get(index))
            check_inner_tensors(proto, path, where)
            return cls(proto, stored | external_data(proto, path, where), path)

    def fed(self, settings: InputSettings) -> Model:
        """The same model, with more known about its inputs."""
        return replace(self, settings=self.settings.joined(settings)) if settings else self

    @property
    def as_opened(self) -> Model:
        """The model with its own functions, if they were inlined since it was opened."""
        if self.source is None:
            return self
        return replace(self, proto=self.source, inlined=0, source_digest="", source=None)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that the model was opened from, and the files of its external data."""
        if self.path is None:
            return ()
        return (self.path, *(self.path.parent / location for location in sorted(external_locations(self.proto))))

    def values(self, index: int) -> NDArray[np.generic]:
        """Values of the initializer with this index, in its shape; a view of the file if they are bulky."""
        tensor = self.proto.graph.initializer[index]
        tensor_data = self.tensor_data.get(index)
        if tensor_data is None:
            return numpy_helper.to_array(tensor)
        data = tensor_data.buffer if isinstance(tensor_data, MappedData) else b"".join(tensor_data.chunks())
        if tensor.data_type in PACKED:
            packed = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=bytes(data))
            return numpy_helper.to_array(packed)
        return np.frombuffer(data, tensor_dtype(tensor.data_type)).reshape(tuple(tensor.dims))

    def digest(self) -> str:
        """SHA-256 digest of the graph and of every constant, in hexadecimal; the same for every storage layout."""
        if self.source_digest:
            return self.source_digest
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(self.proto)
        for tensor in skeleton.graph.initializer:
            bare = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(bare)
        digest = hashlib.sha256(skeleton.SerializeToString(deterministic=True))
        for index, tensor in enumerate(self.proto.graph.initializer):
            tensor_data = self.tensor_data.get(index)
            for chunk in tensor_data.chunks() if tensor_data else [value_bytes(tensor)]:
                digest.update(chunk)
        return digest.hexdigest()

    def to_proto(self) -> onnx.ModelProto:
        """The whole model as one ModelProto in memory. Raises ModelError over protobuf's 2 GB."""
        proto = onnx.ModelProto()
        proto.ParseFromString(self.to_bytes())
        return proto

    def to_bytes(self) -> bytes:
        """The whole model, external data included, as serialized bytes. Raises ModelError over protobuf's 2 GB."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        for index in self.tensor_data:
            forget_location(proto.graph.initializer[index])
        total = sum(tensor_data.length for tensor_data in self.tensor_data.values())
        if total >= 1 << 31:
            raise ModelError(
                f"{total / 1e9:.1f} GB of weights do not fit one protobuf message; give the model as a path"
            )
        return b"".join(join_weights(proto.SerializeToString(), self.tensor_data))

    def in_place(self) -> tuple[onnx.ModelProto, Path] | None:
        """A ModelProto that refers to the model's own files for its bulky data, so that a runtime loads it uncopied.

        Returns:
            The ModelProto, all bulky data external, and the folder that its locations are relative to. None if the
            model is not in files, if its data was changed after opening, or if its files are in several folders (a
            symbolic link has its data files beside the link and the model elsewhere).
        """
        if self.path is None:
            return None
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        real = self.path.resolve()
        try:
            real.name.encode()
        except UnicodeEncodeError:
            return None  # protobuf holds no such name
        folders: set[Path] = set()
        for index, tensor_data in self.tensor_data.items():
            tensor = proto.graph.initializer[index]
            if not isinstance(tensor_data, MappedData):
                return None
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                folders.add(self.path.parent.resolve())
                continue
            folders.add(real.parent)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in {
                "location": real.name,
                "offset": tensor_data.offset,
                "length": tensor_data.length,
            }.items():
                tensor.external_data.add(key=key, value=str(value))
        return None if len(folders) > 1 else (proto, next(iter(folders), real.parent))

    def check_target(self, target: Path) -> None:
        """Raise ModelError if the model cannot be written to `target` with its data files beside it."""
        Writing(self.proto, self.tensor_data, self.path, target).check()

    @contextmanager
    def staged(self, target: Path, beside: AbstractContextManager[object] | None = None) -> Iterator[Path]:
        """Write to a temporary folder beside `target`, yield the path there, and move the files into place at the end.

        If the block raises, the temporary files are removed and `target` stays as it was. If the process is killed at
        any moment, `target` is the old model with its old data, or the new one with its new data.

        Args:
            target: the file to write.
            beside: entered just before the files are moved, and left after it; it places other files of the model.

        Raises:
            ModelError: if the target cannot be written.
        """
        writing = Writing(self.proto, self.tensor_data, self.path, target)
        with writing.staged(beside or nullcontext()) as staged:
            yield staged

    def write(self, target: Path) -> None:
        """Write the model to `target`, atomically. Raises ModelError if that cannot be written."""
        with self.staged(target):
            pass


def _serialized(proto: onnx.ModelProto) -> memoryview:
    try:
        return memoryview(proto.SerializeToString())
    except (ValueError, EncodeError) as error:
        raise ModelError(
            f"the ModelProto cannot be serialized ({error}); over 2 GB, give the model as a path"
        ) from error


def _inline(buffer: memoryview, span: Span) -> MappedData:
    return MappedData(buffer[span.offset : span.offset + span.length], span.offset, span.field)
