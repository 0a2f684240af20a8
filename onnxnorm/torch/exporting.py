"""Exports a module to a ModelProto whose initializers are the module's parameters, under their own names.

An export for a runtime would fold batch normalization into convolutions, merge constants that have the same values, and
transpose weights once and for all. Here nothing of that may happen, since the constants have to find their way back.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.torch.holding import separate_copies
from onnxnorm.torch.installed import load_torch

__all__ = ["export_module"]

_OPSETS = {"dynamo": 18, "torchscript": 17}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


def export_module(
    module: Any, example: Mapping[str, Any], state: Mapping[str, Any], exporters: Sequence[str]
) -> tuple[onnx.ModelProto, str]:
    """Export a module with the first exporter that can.

    Args:
        module: the module, in evaluation mode.
        example: one tensor for each argument of its `forward`, by the names of the inputs, in order.
        state: its parameters and buffers by name.
        exporters: the exporters to try.

    Returns:
        The model, whose first axes are free, and the exporter that made it.

    Raises:
        ModelError: if none of them can.
    """
    failures = []
    for exporter in exporters:
        export = _with_dynamo if exporter == "dynamo" else _with_torchscript
        with _quiet():
            proto, failure = _attempt(export, module, example, state)
        if proto is not None:
            separate_copies(proto, state)
            return proto, exporter
        failures.append(f"{exporter}: {failure}")
    raise ModelError(
        f"PyTorch cannot export {type(module).__name__} to ONNX ({'; '.join(failures)}); give example= if the module "
        "needs other inputs than these, or normalize the part of it that can be exported"
    )


def _attempt(export: Any, *arguments: Any) -> tuple[onnx.ModelProto | None, str]:
    """The model, or None and why there is none."""
    try:
        return export(*arguments), ""
    except Exception as error:  # noqa: BLE001 - exporters raise anything; all of it is passed on in one message
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = _COLOURS.sub("", str(cause)).strip().splitlines() or [""]
        return None, f"{type(cause).__name__}: {lines[0][:200]}"


def _with_dynamo(module: Any, example: Mapping[str, Any], state: Mapping[str, Any]) -> onnx.ModelProto:
    torch = load_torch()
    from onnxscript import optimizer

    free = torch.export.Dim.AUTO
    program = torch.onnx.export(
        module,
        tuple(example.values()),
        input_names=list(example),
        dynamic_shapes=tuple({0: free} if tensor.ndim else None for tensor in example.values()),
        opset_version=_OPSETS["dynamo"],
        dynamo=True,
        optimize=False,
        verbose=False,
    )

    def foldable(node: Any) -> bool | None:
        """Shapes of parameters are computed, parameters never; about other nodes the optimizer decides."""
        if node.op_type == "Shape":
            return True
        return False if any(value is not None and value.name in state for value in node.inputs) else None

    optimizer.fold_constants(program.model, should_fold=foldable)
    optimizer.remove_unused_nodes(program.model)
    proto: onnx.ModelProto = program.model_proto
    return proto


def _with_torchscript(module: Any, example: Mapping[str, Any], state: Mapping[str, Any]) -> onnx.ModelProto:
    torch = load_torch()
    del state
    file = io.BytesIO()
    torch.onnx.export(
        module,
        tuple(example.values()),
        file,
        input_names=list(example),
        dynamic_axes={name: {0: "batch"} for name, tensor in example.items() if tensor.ndim},
        opset_version=_OPSETS["torchscript"],
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )
    return onnx.load_model_from_string(file.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from printing and warning about what their caller has no hand in."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    core = load_torch()._C
    graphs = getattr(core, "_jit_onnx_log", None)  # prints the whole graph where an export fails, whatever `verbose` is
    try:
        if graphs is not None:
            core._jit_onnx_log = _print_nothing
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if graphs is not None:
            core._jit_onnx_log = graphs
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _print_nothing(*_: Any) -> None:
    pass
