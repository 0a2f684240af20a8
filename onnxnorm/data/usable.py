"""Decides whether enough of the samples could be used."""

from __future__ import annotations

from collections.abc import Sequence

from onnxnorm.data.batches import Skipped
from onnxnorm.data.selection import Selection
from onnxnorm.errors import DataError

__all__ = ["check_usable"]

_REASONS_SHOWN = 3


def check_usable(good: int, bad: Sequence[Skipped], selection: Selection) -> None:
    """Raise DataError if no sample, or less than half of the samples, could be used."""
    if good >= max(len(bad) + selection.unusable, 1):
        return
    if not bad and selection.shard.count > 1:
        raise DataError(f"shard {selection.shard} holds no sample: DATA has fewer than shards; use fewer shards")
    if not bad:
        raise DataError("DATA held no sample; an iterable that can be read only once must be made anew for each run")
    reasons = "; ".join(f"{item.name}: {item.reason}" for item in bad[:_REASONS_SHOWN])
    more = f"; and {len(bad) - _REASONS_SHOWN} more" if len(bad) > _REASONS_SHOWN else ""
    count = len(bad) + selection.unusable
    raise DataError(f"{count} of {good + count} samples cannot be used: {reasons}{more}")
