"""What is installed of PyTorch: the module itself, and its exporters."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from onnxnorm.errors import OptionError

__all__ = ["EXPORTERS", "exporters", "load_torch"]

EXPORTERS = ("dynamo", "torchscript")
"""The exporters, the one that is tried first in front."""


def load_torch() -> Any:
    """The package `torch`. Raises OptionError if it cannot be imported."""
    try:
        import torch
        import torch.onnx
    except ImportError as error:
        raise OptionError(
            f"onnxnorm.torch needs PyTorch ({error}); install it: pip install 'onnxnorm[torch]'"
        ) from None
    return torch


def exporters(wanted: str | None) -> tuple[str, ...]:
    """The exporters to try, in order.

    Args:
        wanted: one of `EXPORTERS`; None for all that are installed.

    Raises:
        OptionError: if the wanted one is unknown or not installed.
    """
    if wanted is not None and wanted not in EXPORTERS:
        raise OptionError(f"exporter {wanted!r} is unknown; choose one of {', '.join(EXPORTERS)}")
    has_dynamo = find_spec("onnxscript") is not None
    if wanted == "dynamo" and not has_dynamo:
        raise OptionError("exporter 'dynamo' needs onnxscript; install it: pip install 'onnxnorm[torch]'")
    if wanted is not None:
        return (wanted,)
    return EXPORTERS if has_dynamo else EXPORTERS[1:]
