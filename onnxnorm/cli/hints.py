"""The commands that are suggested next: ready to be pasted, with the preprocessing that was measured with."""

from __future__ import annotations

import shlex
from pathlib import Path

from onnxnorm.data.images.words import image_words
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.statistics import Statistics

__all__ = ["preprocessing_words", "shell_line", "suggested"]


def suggested(*words: object) -> str:
    """What to do next: a command of onnxnorm."""
    return f"next: {shell_line(*words)}"


def shell_line(*words: object) -> str:
    """A command as a line for the shell; a path that starts with a dash is not taken for an option."""
    return "onnxnorm " + shlex.join(f"./{word}" if _is_dashed(word) else str(word) for word in words)


def _is_dashed(word: object) -> bool:
    return isinstance(word, Path) and str(word).startswith("-")


def preprocessing_words(statistics: Statistics | None, model: Path) -> list[str]:
    """The options that prepare images as they were for these statistics of a model."""
    record = statistics.inputs.get("preprocessing") if statistics else None
    return image_words(record, input_specs(Model.open(model))) if record else []
