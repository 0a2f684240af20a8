"""The one place where what onnx, protobuf, NumPy and onnx-graphsurgeon raise at a broken model becomes a ModelError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import DecodeError, EncodeError
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError

from onnxnorm.errors import MemoryShortageError, ModelError, OnnxnormError

__all__ = ["COMPLAINTS", "first_line", "lacks_memory", "model_errors"]

COMPLAINTS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    DecodeError,
    EncodeError,
    InferenceError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValidationError,
    ValueError,
)
"""What the libraries raise at a model that they cannot interpret. RecursionError is a RuntimeError."""


# What ONNX Runtime, its arena, C++, CUDA, cuDNN and cuBLAS say where memory is short.
_NO_MEMORY = re.compile(
    "bad_alloc|bad allocation|out of memory|failed to allocate|available memory of|alloc_failed|out_of_memory", re.I
)


@contextmanager
def model_errors(what: str) -> Iterator[None]:
    """Turn any error that a broken model causes inside the block into a ModelError that names the model's part.

    It is also a decorator. What broke is kept as the cause, which --verbose shows.

    Args:
        what: how the message names what is read, such as "the graph".

    Raises:
        ModelError: instead of the errors of the libraries.
        MemoryShortageError: instead of MemoryError.
    """
    try:
        yield
    except OnnxnormError:
        raise
    except MemoryError as error:
        raise MemoryShortageError(
            f"{what} needs more memory than there is; its shapes may be wrong, else use a larger machine"
        ) from error
    except RecursionError as error:
        raise ModelError(f"{what} is nested too deeply to be read; export the model again, flatter") from error
    except COMPLAINTS as error:
        raise ModelError(
            f"{what} cannot be read as legal ONNX ({type(error).__name__}: {first_line(error)}); "
            "check it with onnx.checker, and export the model again"
        ) from error


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of an error's message, cut to a length that fits on a terminal."""
    line = next(iter(str(error).strip().splitlines()), "no reason given")
    return line if len(line) <= longest else f"{line[:longest]}..."


def lacks_memory(error: BaseException) -> bool:
    """Whether ONNX Runtime, a library of CUDA, or NumPy failed because it could not allocate memory."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None
