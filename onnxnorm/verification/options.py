"""What a verification can be told."""

from __future__ import annotations

from dataclasses import dataclass

from onnxnorm.options import Options, option

__all__ = ["ToleranceOptions"]


@dataclass(frozen=True, kw_only=True)
class ToleranceOptions(Options):
    """How far outputs may differ, relative to the largest magnitude; None: as far as rounding explains."""

    tolerance_output: float | None = option(
        None, "Default: that of the dtype, or three times the runtime's own noise.", metavar="R"
    )
