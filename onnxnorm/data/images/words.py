"""The options of the command line that prepare images as a record says, as few as possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxnorm.data.images.choosing import preprocessing_for
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.data.images.preprocessing import Preprocessing
from onnxnorm.errors import InputError, OptionError
from onnxnorm.model.inputs import InputSpec

__all__ = ["image_words"]

_ORDER = ("layout", "preset", "channels", "mean", "std", "resize", "size")  # without resizing there is no size


def image_words(record: Mapping[str, Any] | None, specs: Sequence[InputSpec]) -> list[str]:
    """Return the options for the preprocessing that statistics record.

    Args:
        record: the preprocessing; None if arrays were measured.
        specs: the inputs of the model.

    Returns:
        Flags and values in turn; none if the defaults do, or if no options prepare images in this way.
    """
    images = [spec for spec in specs if len(spec.shape) == 4]
    if not record or not images:
        return []
    try:
        return _words(Preprocessing.from_json(record), images[0])
    except InputError:
        return []


def _words(wanted: Preprocessing, spec: InputSpec) -> list[str]:
    chosen: dict[str, Any] = {}
    for name in _ORDER:
        made = _made(spec, chosen)
        value = getattr(wanted, name)
        if made is None or getattr(made, name) != value:  # None: more has to be said, such as a layout
            chosen[name] = value
    made = _made(spec, chosen)
    if made is None or any(getattr(made, name) != getattr(wanted, name) for name in _ORDER):
        return []
    return [word for name, value in chosen.items() for word in (f"--{name}", _text(name, value))]


def _made(spec: InputSpec, chosen: Mapping[str, Any]) -> Preprocessing | None:
    try:
        return preprocessing_for(spec, ImageOptions(**chosen))
    except OptionError:
        return None


def _text(name: str, value: str | Sequence[float]) -> str:
    if isinstance(value, str):
        return value
    return ("x" if name == "size" else ",").join(f"{number:.9g}" for number in value)
