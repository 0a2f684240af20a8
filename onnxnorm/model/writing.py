"""Writing a model and its data files: at any moment, the old model is there with its old data, or the new with the new.

Everything is first written into a temporary folder beside the target, in the layout that the model has. Then, under the
lock of the folder:

1. Every data file gets a name that no other file has, so that the data of the old model stays as it is. The name is
   claimed by making it, so that two processes never claim the same.
2. The model is renamed onto the target. This is the only step that counts.
3. Data files that only the old model referred to are removed.
4. If a data file could now have a better name (the one that the layout says), it gets that as a second name, a model
   that refers to it there is renamed onto the target, and the first name is removed.

What must be removed, also by the next process if this one was killed, is in the journal (`journal.py`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, takewhile
from operator import ne
from pathlib import Path, PurePosixPath

import onnx

from onnxnorm.atomic import JOURNAL, keep_mode, locked, note_written, obstacle, temporary_path
from onnxnorm.errors import ModelError
from onnxnorm.model.external import entries_of, referenced, simplest, write_data
from onnxnorm.model.journal import clean_up, inside, note, remove_listed
from onnxnorm.model.protobuf import TensorData, join_weights

__all__ = ["Writing"]


@dataclass(frozen=True)
class Writing:
    """One model on its way to a file.

    Attributes:
        proto: the ModelProto without bulky data.
        tensor_data: the bulky data, by the initializer's index.
        source: the file that the model was opened from; None for a ModelProto in memory.
        target: the file to write.
    """

    proto: onnx.ModelProto
    tensor_data: Mapping[int, TensorData]
    source: Path | None
    target: Path

    @property
    def folder(self) -> Path:
        """The folder of the target."""
        return self.target.absolute().parent

    @contextmanager
    def staged(self, beside: AbstractContextManager[object]) -> Iterator[Path]:
        """As `Model.staged`."""
        self.check()
        clean_up(self.folder)
        staging = temporary_path(self.folder)
        try:
            staging.mkdir(mode=0o700)
            (staging / "model").mkdir()
            staged = staging / "model" / self.target.name
            self._write_data(staged.parent)
            self.write_model(staged, {})
            yield staged
            with locked(self.folder), beside:
                _Commit(self, staged, staging / JOURNAL).run()
        except OSError as error:
            raise ModelError(f"cannot write {self.target}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @property
    def locations(self) -> dict[str, list[tuple[int, TensorData]]]:
        """What each data file holds (offset in bytes, data), by its location in the simplest spelling."""
        placed: dict[str, list[tuple[int, TensorData]]] = {}
        for index, tensor_data in self.tensor_data.items():
            tensor = self.proto.graph.initializer[index]
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entries = entries_of(tensor)
                location = self._simplest(entries["location"])
                placed.setdefault(location, []).append((int(entries.get("offset", 0)), tensor_data))
        return placed

    def _simplest(self, location: str) -> str:
        return location if self.source is None else simplest(self.source.parent, location)

    def check(self) -> None:
        """Check that the files can be written.

        Raises:
            ModelError: if not, or if a data file would be the target itself, or outside the target's folder.
        """
        if reason := obstacle(self.target):
            raise ModelError(f"cannot write {self.target}: {reason}")
        root, target = self.folder.resolve(), self.folder.resolve() / self.target.name
        for location in self.locations:
            place = self.folder / location
            resolved = place.parent.resolve() / place.name
            if target == resolved or target in resolved.parents:
                raise ModelError(
                    f"cannot write {self.target}: the model keeps external data at {location!r}, the same place; "
                    "give another name"
                )
            if root not in resolved.parents:
                raise ModelError(
                    f"cannot write {self.target}: the model keeps external data at {location!r}, and a link leads from "
                    f"there to {resolved.parent}, outside the folder; write into another folder"
                )
            if any(part.exists() and not part.is_dir() for part in place.parents):
                raise ModelError(
                    f"cannot write {self.target}: the model keeps external data at {location!r}, and there is a file "
                    "where a folder must be; write into another folder"
                )

    def _write_data(self, folder: Path) -> None:
        for location, placed in self.locations.items():
            assert self.source is not None
            (folder / location).parent.mkdir(parents=True, exist_ok=True)
            write_data(self.source.parent / location, folder / location, placed)

    def write_model(self, path: Path, names: Mapping[str, str]) -> None:
        """Write the model file; data files have these names, by location."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        inline = {
            index: tensor_data
            for index, tensor_data in self.tensor_data.items()
            if proto.graph.initializer[index].data_location != onnx.TensorProto.EXTERNAL
        }
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    location = self._simplest(entry.value)
                    name = names.get(location, location)
                    entry.value = entry.value if name == location and ".." not in entry.value else name
        with path.open("wb") as stream, closing(join_weights(proto.SerializeToString(), inline)) as chunks:
            for chunk in chunks:
                stream.write(chunk)


@dataclass(frozen=True)
class _Commit:
    """Moving the files of a finished `Writing` to their places."""

    writing: Writing
    staged: Path
    journal: Path

    def run(self) -> None:
        """Steps 1 to 4."""
        writing, folder = self.writing, self.writing.folder
        old = self._old_data()
        for name in old:
            note(self.journal, name, folder / name)
        try:
            names = {}
            for location in writing.locations:
                file = self.staged.parent / location
                keep_mode(file, folder / location if location in old else writing.target)
                names[location] = next(name for name in self._names(location) if self._claim(file, name))
            self._move_model(names)
            remove_listed(folder, self.journal, writing.target)
            with suppress(OSError):
                self._improve(names)
        finally:
            remove_listed(folder, self.journal, writing.target)

    def _old_data(self) -> list[str]:
        """Data files, in the folder, that the model at the target refers to and that are no inputs."""
        target, folder = self.writing.target, self.writing.folder
        if target.is_symlink() or not target.is_file():
            return []
        try:
            names = {simplest(folder, location) for location in referenced(target)}
        except ModelError:
            return []  # it cannot be read, but it can be replaced
        return [
            name
            for name in sorted(names)
            if (place := inside(folder, name)) and place.is_file() and place.resolve() not in self._inputs()
        ]

    def _inputs(self) -> set[Path]:
        """The target, and the files that the model was read from, unless it was the target itself."""
        source, target = self.writing.source, self.writing.target
        if source is None or source.resolve() == target.resolve():
            return {target.resolve()}
        data = {(source.parent / location).resolve() for location in self.writing.locations}
        return {target.resolve(), source.resolve(), *data}

    def _names(self, location: str) -> Iterator[str]:
        """Names for a data file, the best first."""
        stem, target = PurePosixPath(location).name, self.writing.target.name
        numbered = (f"{target}.{number}.{stem}" for number in count(1))
        return chain([location, f"{target}.{stem}"], numbered)

    def _claim(self, file: Path, name: str, *, move: bool = True) -> bool:
        """Give a file a name in the folder, or say that the name is taken."""
        place = self.writing.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        note(self.journal, name, file)
        try:
            os.link(file, place)
        except FileExistsError:
            return False
        except OSError:
            if not move:
                raise
        else:
            return True
        try:  # this file system has no second names
            place.open("xb").close()
        except FileExistsError:
            return False
        os.replace(file, place)
        return True

    def _move_model(self, names: Mapping[str, str]) -> None:
        """Make the model refer to its data files by these names, and rename it onto the target."""
        if not self.staged.exists() or any(location != name for location, name in names.items()):
            self.staged.unlink(missing_ok=True)
            self.writing.write_model(self.staged, names)
        keep_mode(self.staged, self.writing.target)
        os.replace(self.staged, self.writing.target)
        note_written(self.writing.target)

    def _improve(self, names: Mapping[str, str]) -> None:
        """Step 4: better names, where they are free now."""
        better = {}
        for location, name in names.items():
            file = self.writing.folder / name
            free = takewhile(partial(ne, name), self._names(location))
            claimed = next((other for other in free if self._claim(file, other, move=False)), None)
            if claimed is not None:
                better[location] = claimed
        if better:
            self._move_model({**names, **better})
