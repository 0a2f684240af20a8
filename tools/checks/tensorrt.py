"""Ask NVIDIA's own parser and builder whether a rewritten model is the same network as its original.

    python -m tools.checks.tensorrt ORIGINAL REWRITTEN [--size HxW] [--capability SM89]

Needs the package `tensorrt-rtx`, and no GPU. Both models are parsed and built into an engine for a GPU of this compute
capability, and what came out is compared:

* every layer: its type, name, settings, inputs and outputs with shapes and dtypes, and the number and dtype of its
  weights; constants that are integers (the target of a Reshape, say) have to be equal in value;
* the size of the two engines, up to a few bytes by which builds of one model differ.

Whether an engine of the original can be refitted from the rewritten model by name is said apart: it cannot where the
rewrite changed a number that TensorRT keeps as a setting of a layer, such as the bound of a Clip (ReLU6), or where it
cloned a constant. Then build a new engine.

Exits with 1 if the parser or the builder rejects one of them, or if the networks differ. Running an engine, building
one that is stripped or refittable, and refitting itself need a GPU and are not tried.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxnorm.data.images.options import parsed_size
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import sample_shapes

# Of every layer: what says nothing about the network.
_LEFT_OUT = {"metadata", "num_ranks"}
_SHOWN = 10
_SIZE_NOISE = 1e-3  # two builds of one model differ by some bytes
_BATCHES = (1, 1, 8)  # least, best, most


class RejectedError(Exception):
    """NVIDIA's parser or builder does not take the model."""


@dataclass(frozen=True)
class Network:
    """What the parser made of a model, as plain data, and the size of the engine in bytes."""

    layers: tuple[dict[str, Any], ...] = field(repr=False)
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    refittable: frozenset[str] = field(repr=False)
    engine: int

    def differences(self, other: Network) -> Iterator[str]:
        """What is not the same, in words."""
        for what in ("inputs", "outputs"):
            if getattr(self, what) != getattr(other, what):
                yield f"{what}: {getattr(self, what)} and {getattr(other, what)}"
        if len(self.layers) != len(other.layers):
            yield f"{len(self.layers)} and {len(other.layers)} layers"
            return
        yield from (text for text, number in self._changes(other) if not number)
        if abs(self.engine - other.engine) > _SIZE_NOISE * self.engine:
            yield f"engines of {self.engine:,} and {other.engine:,} bytes"

    def beyond_refit(self, other: Network) -> Iterator[str]:
        """What a refit by name would not bring over, in words."""
        yield from (text for text, number in self._changes(other) if number)
        for name in sorted(self.refittable ^ other.refittable):
            yield f"weights {name!r} are in one of them only"

    def _changes(self, other: Network) -> Iterator[tuple[str, bool]]:
        """Differences between layers, and whether each is a number that a rewrite may change."""
        for one, two in zip(self.layers, other.layers, strict=False):
            for key in sorted(one.keys() | two.keys()):
                a, b = one.get(key), two.get(key)
                if a != b:
                    yield f"layer {one['name']}: {key} is {a} and {b}", isinstance(a, float) and isinstance(b, float)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("rewritten", type=Path)
    parser.add_argument("--size", metavar="HxW", help="of inputs that leave it open; default 224x224")
    parser.add_argument("--capability", default="SM89", help="compute capability to build for")
    given = parser.parse_args()
    try:
        one, two = (read_network(path, given.size, given.capability) for path in (given.original, given.rewritten))
    except (ImportError, RejectedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path, network in ((given.original, one), (given.rewritten, two)):
        refit = f"{len(network.refittable)} of {len(weight_names(path))} weights refittable under their own names"
        print(f"{path}: parsed and built, {len(network.layers)} layers, {refit}, engine of {network.engine:,} bytes")
    found = list(one.differences(two))
    _show("different", found)
    print("not the same network" if found else "the same network but for numbers")
    baked = list(one.beyond_refit(two))
    _show("not a weight", baked)
    print(f"refit by name: {'no, build a new engine' if baked or found else 'yes, all that changed are weights'}")
    return 1 if found else 0


def _show(what: str, lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        print(f"{what}: {line}")
    if len(lines) > _SHOWN:
        print(f"... and {len(lines) - _SHOWN} more")


def read_network(path: Path, size: str | None = None, capability: str = "SM89") -> Network:
    """Parse a model, build it, and say what came out. Raises RejectedError with NVIDIA's words."""
    trt = _package()
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        raise RejectedError(f"{path} is not parsed: {parser.get_error(0).desc() if parser.num_errors else log.errors}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    _add_profile(builder, network, config, path, size)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RejectedError(f"{path} is not built: {'; '.join(log.errors)}")
    return Network(
        layers=tuple(_layer(trt, network.get_layer(index)) for index in range(network.num_layers)),
        inputs=tuple(_plain(network.get_input(index)) for index in range(network.num_inputs)),
        outputs=tuple(_plain(network.get_output(index)) for index in range(network.num_outputs)),
        refittable=frozenset(name for name in weight_names(path) if network.mark_weights_refittable(name)),
        engine=engine.nbytes,
    )


def _package() -> Any:
    try:
        return import_module("tensorrt_rtx")
    except ImportError as error:
        raise ImportError(f"{error}; install it with: python -m pip install tensorrt-rtx-cu13") from error


def weight_names(path: Path) -> list[str]:
    """The names of the floating-point initializers."""
    proto = Model.open(path).proto
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    return [tensor.name for tensor in proto.graph.initializer if tensor.data_type in floats]


def _logger(trt: Any) -> Any:
    """One that prints nothing and keeps errors; that a name cannot be marked is one, and no failure here."""
    return _logger_class(trt)()


@cache
def _logger_class(trt: Any) -> Any:
    def __init__(self: Any) -> None:  # noqa: N807
        trt.ILogger.__init__(self)
        self.errors = []

    def log(self: Any, severity: Any, message: str) -> None:
        if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
            self.errors.append(message)

    return type("Logger", (trt.ILogger,), {"__init__": __init__, "log": log})


def _add_profile(builder: Any, network: Any, config: Any, path: Path, size: str | None) -> None:
    """Shapes for inputs that leave some open: batches of 1 to 8, and one size."""
    shapes = sample_shapes(input_specs(Model.open(path)), None if size is None else parsed_size(size))
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if all(dim >= 0 for tensor in inputs for dim in tensor.shape):
        return
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        open_batch = tuple(tensor.shape)[:1] == (-1,)
        profile.set_shape(
            tensor.name,
            *((batch, *shapes[tensor.name][1:]) if open_batch else shapes[tensor.name] for batch in _BATCHES),
        )
    config.add_optimization_profile(profile)


@cache
def _classes(trt: Any) -> dict[str, Any]:
    """The class that has a kind of layer's settings, by the kind's name in lower case: `convolution`, ..."""
    names = [name for name in dir(trt) if name.startswith("I") and name.endswith("Layer") and name != "ILayer"]
    return {name.removeprefix("I").removesuffix("Layer").lower(): getattr(trt, name) for name in names}


def _layer(trt: Any, layer: Any) -> dict[str, Any]:
    """Everything that a layer says of itself, as plain data."""
    kind = str(layer.type).rpartition(".")[2]
    found = {
        "layer": kind,
        "inputs": [_plain(layer.get_input(index)) for index in range(layer.num_inputs)],
        "outputs": [_plain(layer.get_output(index)) for index in range(layer.num_outputs)],
    }
    special = _classes(trt).get(kind.replace("_", "").lower())
    if special is not None:
        layer.__class__ = special
    for name in dir(type(layer)):
        if name not in _LEFT_OUT and isinstance(getattr(type(layer), name), property):
            found[name] = _plain(_read(layer, name))
    return found


def _read(layer: Any, name: str) -> Any:
    """A setting; some can only be asked for in certain states, and then say so."""
    try:
        return getattr(layer, name)
    except (RuntimeError, TypeError, ValueError) as error:
        return type(error).__name__


def _plain(value: Any) -> Any:
    """Something to compare: of weights their number and dtype, of integers their values too."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tolist() if value.dtype.kind in "iub" else None)
    if type(value).__name__ == "Weights":
        return (value.size, str(value.dtype))
    if type(value).__name__ == "ITensor":
        return (value.name, tuple(value.shape), str(value.dtype))
    if type(value).__name__ in {"Dims", "Permutation"} or isinstance(value, (tuple, list)):
        return tuple(value)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
