"""`restore`: undo a rewrite."""

from __future__ import annotations

import os
from pathlib import Path

from onnxnorm.api.common import check_output
from onnxnorm.errors import VerificationError
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.rewriting import Restored, restore_model

__all__ = ["restore"]


def restore(
    rewritten: ModelLike,
    output: str | os.PathLike[str] | None = None,
    *,
    scales: str | os.PathLike[str] | None = None,
    verify: bool = True,
    in_place: bool = False,
) -> Restored:
    """Undo a rewrite: bit for bit after power-of-two scales, up to rounding otherwise.

    Args:
        rewritten: a path, or a ModelProto, that `rewrite` or `normalize` made.
        output: the file to write; None to write none.
        scales: the sidecar file with the record of the scales, if it is not beside the model.
        verify: whether to refuse to write a model that must be the original bit for bit and is not.
        in_place: whether `output` may be `rewritten` itself, which is lost then.

    Returns:
        The restored model, and how well it is known to be the original.

    Raises:
        ModelError: if the model was not rewritten, or its record is missing or damaged.
        OptionError: if `output` cannot be written.
        VerificationError: if a restored model that must be the original is not. Nothing is written then.
    """
    opened = Model.open(rewritten)
    if output is not None:
        check_output(output, opened, scales, in_place=in_place)
    restored = restore_model(opened, None if scales is None else Path(scales))
    if verify and restored.exact and not restored.same:
        raise VerificationError(
            "the restored model is not the original that the rewrite recorded (another digest): the model was changed "
            "after it was rewritten; --no-verify writes what comes out"
        )
    if output is not None:
        restored.model.write(Path(output))
    return restored
