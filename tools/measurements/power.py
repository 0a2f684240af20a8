"""What the verification catches: right rewrites, each with one thing wrong, on graphs of several depths and dtypes.

    python -m tools.measurements.power

Prints the table of docs/verification.md. A cell counts the damaged rewrites that were caught among those tried, over
all depths and seeds; the first two rows count right rewrites that were accepted. Below it, what was not caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxnorm.model.files import Model
from onnxnorm.rewriting import rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.rewriting.record import write_entries
from onnxnorm.runtime import Runtime
from onnxnorm.verification import Verification, verify_models

__all__ = ["KINDS", "MUTATIONS", "Kind", "Subject", "network", "subject", "verdict"]

DEPTHS = (2, 4, 8, 16, 30)
SEEDS = (0, 1, 2)
CHANNELS = 16
_RUNTIME = Runtime("cpu", 2)


@dataclass(frozen=True)
class Kind:
    """A column of the table: the dtype inside, that of input and output, and whether the record stays in the model."""

    name: str
    inside: np.dtype[np.generic]
    border: np.dtype[np.generic]
    recorded: bool = True


def _kinds() -> Iterator[Kind]:
    float32, float16, bfloat16 = (np.dtype(kind) for kind in (np.float32, np.float16, ml_dtypes.bfloat16))
    yield Kind("float32", float32, float32)
    yield Kind("float16", float16, float16)
    yield Kind("bfloat16", bfloat16, bfloat16)
    yield Kind("float16 inside", float16, float32)
    yield Kind("float16, no record", float16, float16, recorded=False)


KINDS = tuple(_kinds())


@dataclass(frozen=True)
class Subject:
    """A network, its rewritten version, and the middle layer that mutations change."""

    original: onnx.ModelProto
    rewritten: onnx.ModelProto
    depth: int
    middle: int
    generator: np.random.Generator


Mutation = Callable[[Subject, onnx.ModelProto], None]


def network(kind: Kind, depth: int, seed: int) -> onnx.ModelProto:
    """Convolutions with ReLUs between them; two layers in the middle read the same weights, where there are enough."""
    generator = np.random.default_rng((depth, seed))
    inner, outer = (helper.np_dtype_to_tensor_dtype(dtype) for dtype in (kind.inside, kind.border))
    nodes, constants, value = [], [], "x"
    if inner != outer:
        nodes.append(helper.make_node("Cast", ["x"], ["x_cast"], to=inner))
        value = "x_cast"
    for layer in range(depth):
        inputs = CHANNELS if layer else 3
        shared = layer == depth // 2 + 1 and layer < depth - 1
        weights = f"w{layer - shared}"
        if not shared:
            spread = np.exp(generator.standard_normal((CHANNELS, 1, 1, 1)) * 0.7 - 0.49)
            drawn = generator.standard_normal((CHANNELS, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs)) * spread
            constants.append(numpy_helper.from_array(drawn.astype(kind.inside), weights))
        bias = (generator.standard_normal(CHANNELS) * 0.1).astype(kind.inside)
        constants.append(numpy_helper.from_array(bias, f"b{layer}"))
        nodes.append(helper.make_node("Conv", [value, weights, f"b{layer}"], [f"c{layer}"], pads=[1] * 4))
        value = f"c{layer}"
        if layer < depth - 1:
            nodes.append(helper.make_node("Relu", [value], [f"r{layer}"]))
            value = f"r{layer}"
    nodes.append(helper.make_node("Cast", [value], ["y"], to=outer))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", outer, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", outer, ["n", CHANNELS, 16, 16])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def subject(kind: Kind, depth: int, seed: int, *, power_of_two: bool = False) -> Subject:
    """A network with a right rewrite of it."""
    proto = network(kind, depth, seed)
    options = ScaleOptions(statistic="weights", power_of_two=power_of_two)
    rewritten = rewrite_model(Model.open(proto), None, options).model.to_proto()
    if not kind.recorded:
        write_entries(rewritten, {})
    return Subject(proto, rewritten, depth, max(0, depth // 2 - 1), np.random.default_rng(seed))


def verdict(pair: Subject, rewritten: onnx.ModelProto) -> Verification:
    """Verify a version of the rewritten model on random inputs."""
    dtype = helper.tensor_dtype_to_np_dtype(pair.original.graph.input[0].type.tensor_type.elem_type)
    x = np.random.default_rng(1).standard_normal((4, 3, 16, 16)).astype(dtype)
    return verify_models(Model.open(pair.original), Model.open(rewritten), [{"x": x}], runtime=_RUNTIME)


def _changed(change: Callable[[NDArray[np.float64], np.random.Generator], None], name: str = "w") -> Mutation:
    """Change one constant of the middle layer in float64, and round it to its type again."""

    def mutate(pair: Subject, proto: onnx.ModelProto) -> None:
        tensor = _tensor(proto, f"{name}{pair.middle}")
        values = numpy_helper.to_array(tensor)
        changed = values.astype(np.float64)
        change(changed, pair.generator)
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))

    return mutate


def _times(factor: float) -> Mutation:
    def change(values: NDArray[np.float64], generator: np.random.Generator) -> None:
        values[generator.integers(len(values))] *= factor

    return _changed(change)


def _swap(values: NDArray[np.float64], generator: np.random.Generator) -> None:
    one, other = generator.choice(len(values), 2, replace=False)
    values[[one, other]] = values[[other, one]]


def _all_times(values: NDArray[np.float64], _: np.random.Generator) -> None:
    values *= 1.01


def _as_before(name: str, after: int = 0) -> Mutation:
    """Put the original's constant back, in a layer after the middle one."""

    def mutate(pair: Subject, proto: onnx.ModelProto) -> None:
        full = f"{name}{pair.middle + after}"
        _tensor(proto, full).CopyFrom(_tensor(pair.original, full))

    return mutate


def _last(pair: Subject, proto: onnx.ModelProto) -> None:
    _changed(_all_times)(Subject(pair.original, pair.rewritten, pair.depth, pair.depth - 1, pair.generator), proto)


def _without_clone(_: Subject, proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = name.partition("_onnxnorm")[0]


def _tensor(proto: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


MUTATIONS: dict[str, Mutation] = {
    "a channel off by 1 %": _times(1.01),
    "a channel off by 3 %": _times(1.03),
    "a channel off by 10 %": _times(1.1),
    "a channel deleted": _times(0.0),
    "two channels swapped": _changed(_swap),
    "a compensation forgotten": _as_before("w", 1),
    "a bias not scaled": _as_before("b"),
    "a clone not made": _without_clone,
    "the last layer times 1.01": _last,
}


def _cell(kind: Kind, name: str, mutation: Mutation | None, power_of_two: bool) -> tuple[str, list[str]]:
    """How many were caught, of how many, and a line for each that was not; of right rewrites, those accepted."""
    hits, tried = 0, 0
    misses = []
    for depth in DEPTHS:
        for seed in SEEDS:
            pair = subject(kind, depth, seed, power_of_two=power_of_two)
            changed = onnx.ModelProto()
            changed.CopyFrom(pair.rewritten)
            if mutation is not None:
                mutation(pair, changed)
                if changed == pair.rewritten:
                    continue  # nothing to break: no constant is shared
            tried += 1
            found = verdict(pair, changed)
            hits += found.same == (mutation is None)
            if found.same != (mutation is None):
                misses.append(f"{kind.name}, {depth} layers, seed {seed}: {name}: {found.max_relative_error:.1e}")
    return f"{hits}/{tried}", misses


def main() -> None:
    rows: list[tuple[str, Mutation | None, bool]] = [
        ("right, exact scales: accepted", None, False),
        ("right, powers of two: accepted", None, True),
        *((f"{name}: caught", mutation, False) for name, mutation in MUTATIONS.items()),
    ]
    misses: list[str] = []
    print("| | " + " | ".join(kind.name for kind in KINDS) + " |")
    print("|---|" + "---:|" * len(KINDS))
    for name, mutation, power_of_two in rows:
        cells = [_cell(kind, name, mutation, power_of_two) for kind in KINDS]
        print(f"| {name} | " + " | ".join(cell for cell, _ in cells) + " |", flush=True)
        misses += [miss for kind, (_, found) in zip(KINDS, cells, strict=True) if kind.recorded for miss in found]
    print("\nNot caught, or refused, where there is a record; the error is that of the output:\n")
    print(*(f"* {miss}" for miss in misses), sep="\n")


if __name__ == "__main__":
    main()
