"""`restore`: the original back."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from onnxnorm.errors import VerificationError
from onnxnorm.model.files import Model, ModelLike, check_target
from onnxnorm.rewriting import (
    Restored,
    restore_model,
)

if sys.version_info >= (3, 11):
    pass
else:
    pass

__all__ = ["restore"]


def restore(
    rewritten: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    scales: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> Restored:
    """Undo a rewrite: bit for bit after power-of-two scales, to rounding otherwise. `scales` is the sidecar, if moved.

    With `verify`, raises VerificationError, and writes nothing, if a restored model that must be the original is not.
    """
    found = restore_model(Model.open(rewritten), None if scales is None else Path(scales))
    if verify and found.exact and not found.same:
        raise VerificationError(
            "the restored model is not the original that the rewrite recorded (another digest): the model was changed "
            "after it was rewritten; --no-verify writes what comes out"
        )
    if output is not None:
        check_target(output)
        found.model.write(Path(output))
    return found
