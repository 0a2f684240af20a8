"""Writing the constants of a model to a file of another framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxnorm.atomic import written_atomically
from onnxnorm.errors import ModelError, OptionError
from onnxnorm.exporting.formats import format_of
from onnxnorm.exporting.layouts import lay_out
from onnxnorm.exporting.options import ExportOptions
from onnxnorm.model.constants import stored_constants
from onnxnorm.model.files import Model
from onnxnorm.rewriting.recorded_images import recorded_recipe

__all__ = ["Exported", "export_constants"]

_SHOWN = 5


@dataclass(frozen=True)
class Exported:
    """The outcome of `export`.

    Attributes:
        path: the file.
        layout: the layout of its names and axes.
        arrays: the shape of every array in it, by its name there.
        sources: the constant that each array comes from, by the array's name; not those that the layout adds.
        left_out: the constants in floating point for which the layout has no place.
        notes: what the network that loads the file must do as the model does.
    """

    path: Path
    layout: str
    arrays: dict[str, tuple[int, ...]]
    sources: dict[str, str]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def numbers(self) -> int:
        """How many numbers are in the file."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.arrays.values())

    def __str__(self) -> str:
        lines = [f"{len(self.arrays):,} arrays, {self.numbers:,} numbers, layout {self.layout}"]
        if self.left_out:
            more = f" and {len(self.left_out) - _SHOWN:,} more" if len(self.left_out) > _SHOWN else ""
            lines.append(f"left out, since the layout has no place for them: {', '.join(self.left_out[:_SHOWN])}{more}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), f"written to {self.path}"])


def export_constants(model: Model, path: Path, options: ExportOptions) -> Exported:
    """Write the constants of a model to a file, atomically; the format follows from the file's ending.

    Raises:
        OptionError: if format, layout and model do not fit each other, or the file cannot be written.
        ModelError: if a constant cannot be read, or the model's metadata is damaged.
    """
    ending, kind = format_of(path)
    laid, images = lay_out(model, options.layout), _images(model)
    if not laid.entries:
        raise ModelError("the model has no constants, so there is nothing to export; give one with weights")
    kind.check(laid.entries, ending)
    with written_atomically(path, OptionError) as temporary:
        kind.write(temporary, laid.entries)
    sources = {entry.name: entry.constant for entry in laid.entries if entry.constant is not None}
    return Exported(
        path=path,
        layout=options.layout,
        arrays={entry.name: entry.shape for entry in laid.entries},
        sources=sources,
        left_out=_left_out(model, set(sources.values())),
        notes=(*laid.notes, *images),
    )


def _images(model: Model) -> tuple[str, ...]:
    """Say how the images were preprocessed that a rewritten model was calibrated on."""
    recipe = recorded_recipe(model)
    if recipe is None:
        return ()
    return (f"filters have their targets for images as at the calibration, {recipe.describe()}",)


def _left_out(model: Model, used: set[str]) -> tuple[str, ...]:
    constants = stored_constants(model)
    return tuple(name for name, constant in constants.items() if name not in used and constant.dtype.kind == "f")
