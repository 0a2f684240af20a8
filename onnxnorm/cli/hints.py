"""Advice: the commands that are suggested next, ready to be pasted with the preprocessing, and names of files."""

from __future__ import annotations

import shlex
from pathlib import Path

from onnxnorm.cli.terminal import Terminal
from onnxnorm.data.images.words import image_words
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.statistics import Statistics

__all__ = ["preprocessing_words", "shell_line", "suggested", "tell_ending"]


def suggested(*words: object) -> str:
    """What to do next: a command of onnxnorm."""
    return f"next: {shell_line(*words)}"


def shell_line(*words: object) -> str:
    """A command as a line for the shell; a path that starts with a dash is not taken for an option."""
    return "onnxnorm " + shlex.join(f"./{word}" if _is_dashed(word) else str(word) for word in words)


def _is_dashed(word: object) -> bool:
    return isinstance(word, Path) and str(word).startswith("-")


def tell_ending(terminal: Terminal, output: Path, ending: str) -> None:
    """Say what a file is whose name promises something else. A name without an ending promises nothing."""
    if output.suffix and output.suffix.lower() != ending:
        what = {".onnx": "an ONNX model", ".safetensors": "a safetensors file", ".html": "an HTML page"}[ending]
        terminal.say(
            f"{output} is {what}, whatever its name ends in; programs that go by the ending would look for "
            f"{output.with_suffix(ending).name}"
        )


def preprocessing_words(statistics: Statistics | None, model: Path) -> list[str]:
    """The options that prepare images as they were for these statistics of a model."""
    record = statistics.inputs.get("preprocessing") if statistics else None
    return image_words(record, input_specs(Model.open(model))) if record else []
