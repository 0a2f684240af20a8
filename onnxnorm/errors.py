"""The tree of errors that a user can correct, each with the exit code that the command line gives it.

::

    OnnxnormError
    ├── InputError            exit 1: something handed in is wrong
    │   ├── ModelError        a model file or ModelProto
    │   │   └── MemoryShortageError  there is not enough memory to run it
    │   ├── DataError         calibration images or arrays
    │   ├── StatisticsError   a statistics file, or statistics that do not fit
    │   ├── OptionError       the value of an option
    │   └── ProviderError     an execution provider that is not available
    └── VerificationError     exit 3: the rewritten network is not the same function

A message says what is wrong, where, what was expected and what to do, in one or two lines. Any error that is not in
this tree is a bug in onnxnorm, not a mistake of the user.
"""

from __future__ import annotations

__all__ = [
    "BatchWarning",
    "CheckpointWarning",
    "DataError",
    "DataWarning",
    "InputError",
    "MemoryShortageError",
    "MemoryWarning",
    "ModelError",
    "OnnxnormError",
    "OptionError",
    "ProviderError",
    "ProviderWarning",
    "StatisticsError",
    "VerificationError",
]


class OnnxnormError(Exception):
    """Base of all errors that onnxnorm raises on purpose."""

    exit_code = 1


class InputError(OnnxnormError):
    """An input or an option is wrong."""


class ModelError(InputError):
    """A model cannot be read, or is not legal ONNX."""


class MemoryShortageError(ModelError):
    """There is not enough memory to run a model on a batch."""


class DataError(InputError):
    """Calibration images or arrays are missing, unreadable, or do not fit the model."""


class StatisticsError(InputError):
    """A statistics file cannot be read, or does not belong to the model."""


class OptionError(InputError):
    """The value of an option makes no sense."""


class ProviderError(InputError):
    """A requested execution provider is not available."""


class ProviderWarning(UserWarning):
    """An execution provider that would be faster is not available, so another one is used."""


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be written; the run goes on."""


class BatchWarning(UserWarning):
    """A model that leaves its batch open is run with one sample at a time, for which it was made."""


class DataWarning(UserWarning):
    """Some of the data that was given is left out."""


class MemoryWarning(UserWarning):
    """A batch does not fit into memory, so smaller ones are run."""


class VerificationError(OnnxnormError):
    """The rewritten network does not compute the same function; nothing was written."""

    exit_code = 3
