"""Options for how many samples are read, and how many at a time."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnorm.options import RUNNING, Options, option

__all__ = ["DEFAULT_BATCH", "BatchOptions"]

DEFAULT_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """The number of samples in a batch and in all; None means the model's own batch size, and no limit."""

    batch_size: int | None = option(None, "Default: the model's own, else 8.", panel=RUNNING, least=1)
    limit: int | None = option(None, "Use at most this many samples.", panel=RUNNING, least=1)
