"""The commands that are suggested next: ready to be pasted, with the preprocessing that was measured with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from onnxnorm.data.images.options import ImageOptions, preprocessing_for
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.errors import InputError, OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec
from onnxnorm.statistics import Statistics

__all__ = ["image_words", "suggested"]

_ORDER = ("layout", "preset", "channels", "mean", "std", "size", "resize")


def suggested(*words: object) -> str:
    """A command as a line for the shell; a name that starts with a dash is not taken for an option."""
    return "next: onnxnorm " + shlex.join(f"./{word}" if _is_dashed(word) else str(word) for word in words)


def _is_dashed(word: object) -> bool:
    return isinstance(word, Path) and str(word).startswith("-")


def image_words(statistics: Statistics | None, model: Path) -> list[str]:
    """The options, as few as possible, that prepare images as they were for these statistics of a model."""
    record = statistics.inputs.get("preprocessing") if statistics else None
    if not record:
        return []
    try:
        wanted = Preprocessing.from_json(record)
        specs = [spec for spec in input_specs(Model.open(model)) if len(spec.shape) == 4]
        return _words(wanted, specs[0]) if specs else []
    except InputError:
        return []


def _words(wanted: Preprocessing, spec: InputSpec) -> list[str]:
    chosen: dict[str, Any] = {}
    for name in _ORDER:
        made = _made(spec, chosen)
        value = getattr(wanted, name)
        if name == "layout" if made is None else getattr(made, name) != value:  # some models do not tell their layout
            chosen[name] = value
    made = _made(spec, chosen)
    if made is None or any(getattr(made, name) != getattr(wanted, name) for name in _ORDER):
        return []
    return [word for name, value in chosen.items() for word in (f"--{name}", _text(name, value))]


def _made(spec: InputSpec, chosen: dict[str, Any]) -> Preprocessing | None:
    assert set(chosen) <= {item.name for item in fields(ImageOptions)}
    try:
        return preprocessing_for(spec, ImageOptions(**chosen))
    except OptionError:
        return None


def _text(name: str, value: str | Sequence[float]) -> str:
    if isinstance(value, str):
        return value
    return ("x" if name == "size" else ",").join(f"{number:.9g}" for number in value)
