"""Concrete shapes of all values, and the results of small integer computations in the graph.

`read_graph` is the one way from a Model to a Graph. It runs ONNX shape inference once over the whole graph, then visits
the nodes in order and closes the gaps. A node whose inputs are all constant (and `Shape`, which reads no values) yields
a computed constant, which ONNX's reference implementation evaluates when its values are asked for. Where an output has
no shape yet, inference is repeated for its node, with those constants known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import onnx

from onnxnorm.errors import ModelError
from onnxnorm.model.boundary import COMPLAINTS, first_line, model_errors
from onnxnorm.model.constants import Constant, stored_constants
from onnxnorm.model.evaluation import Evaluator
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph, Node, input_specs, ordered_nodes, readers_of
from onnxnorm.model.guards import NegativeSizeError
from onnxnorm.model.inference import Inference, claimed_values, counted_values, infer_node, inferred_outputs
from onnxnorm.model.inputs import InputSpec
from onnxnorm.model.sizes import Known, differences, is_allowed, other_sizes, resized
from onnxnorm.model.tensors import MOST_AXES
from onnxnorm.model.windows import has_room

__all__ = ["assumed_shapes", "check_fitting", "check_legal", "read_graph", "sample_shapes"]

DEFAULT_SIZE = 224
DEFAULT_CHANNELS = 3
_DOUBLINGS = 9  # of the assumed size, where layers have no output
ROWS = 5
"""The number of rows assumed where only a run can tell."""


def sample_shapes(
    specs: tuple[InputSpec, ...], size: tuple[int, int] | None = None, side: int = DEFAULT_SIZE
) -> dict[str, tuple[int, ...]]:
    """A concrete shape of every input, for one sample; open axes get `size` (height, width), or `side` without it."""
    height, width = size or (side, side)
    shapes = {}
    for spec in specs:
        if spec.value is not None:
            shapes[spec.name] = spec.repeated(1).shape
            continue
        shape = [side if dim is None else dim for dim in spec.shape]
        if spec.batch is not None and spec.shape[spec.batch] is None:
            shape[spec.batch] = 1
        if len(shape) == 4 and spec.batch == 0:
            channels_last = spec.shape[3] is not None and spec.shape[1] is None
            spatial = (1, 2) if channels_last else (2, 3)
            for axis, given in zip(spatial, (height, width), strict=True):
                shape[axis] = given if spec.shape[axis] is None else shape[axis]
            if not channels_last and spec.shape[1] is None:
                shape[1] = DEFAULT_CHANNELS
        shapes[spec.name] = tuple(shape)
    return shapes


@model_errors("the graph")
def assumed_shapes(model: Model, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes as `sample_shapes` gives them, larger where layers would have no output for inputs of 224.

    Raises ModelError if the graph is not consistent.
    """
    specs = input_specs(model)
    usual = sample_shapes(specs, size)
    if sample_shapes(specs, size, 2 * DEFAULT_SIZE) == usual:  # no size is open
        return usual
    inference = Inference.of(model)
    for doublings in range(_DOUBLINGS):
        shapes = sample_shapes(specs, size, DEFAULT_SIZE << doublings)
        with suppress(NegativeSizeError):  # that of what has no room
            if has_room(model.proto, inference.whole(shapes)[0]):
                return shapes
    return usual


def read_graph(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Read a model for inputs of these concrete shapes, by name. Raises ModelError if the graph is not legal."""
    with model_errors("the graph"):
        return _read_graph(model, shapes)


def _read_graph(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    nodes, specs = ordered_nodes(model), input_specs(model)
    stored = stored_constants(model)
    inference = Inference.of(model)
    base, rows, more_rows = _with_rows(inference, nodes, stored, shapes)
    others = other_sizes(model, specs, nodes, base, lambda other: _known(inference, nodes, stored, other, rows))
    others += [] if more_rows is None else [(more_rows, False)]
    claimed = base.claimed if more_rows is None else base.claimed | resized(base, more_rows)
    differ = differences(base, others)
    return Graph(
        nodes=nodes,
        inputs=specs,
        outputs=tuple(value.name for value in model.proto.graph.output),
        constants=base.constants,
        shapes=base.shapes,
        types=base.types,
        readers=readers_of(nodes),
        batched=differ.batched,
        varying=differ.varying,
        unsteady=differ.unsteady,
        resized=differ.resized,
        functions=frozenset(("" if f.domain == "ai.onnx" else f.domain, f.name) for f in model.proto.functions),
        claimed=frozenset(claimed),
    )


def _with_rows(
    inference: Inference, nodes: Sequence[Node], stored: Mapping[str, Constant], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Known, int | None, Known | None]:
    """What is known for inputs of these shapes, the number of rows assumed for it, and the same for more rows.

    Rows that only a run can count are assumed where two numbers of them fit the graph; else shapes stay unknown.
    """
    base = _known(inference, nodes, stored, shapes)
    if counted_values(inference.model.proto) <= base.shapes.keys():
        return base, None, None
    try:
        assumed, more = (_known(inference, nodes, stored, shapes, rows) for rows in (ROWS, ROWS + 2))
    except ModelError:
        return base, None, None
    fits = is_allowed(nodes, base, assumed) and is_allowed(nodes, assumed, more)
    return (assumed, ROWS, more) if fits else (base, None, None)


def _known(
    inference: Inference,
    nodes: Sequence[Node],
    stored: Mapping[str, Constant],
    shapes: Mapping[str, tuple[int, ...]],
    rows: int | None = None,
) -> Known:
    """What is known for inputs of these shapes. Raises ModelError if the graph is not consistent for them."""
    known_shapes, types = inference.whole(shapes, rows)
    claimed_shapes, claimed_types = claimed_values(inference.model, shapes)
    constants = dict(stored)
    evaluator = Evaluator(constants)
    for constant in stored.values():
        known_shapes[constant.name] = constant.shape
        types[constant.name] = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
    claimed: set[str] = set()
    for node in nodes:
        unknown = [name for name in node.outputs if name and name not in known_shapes]
        if unknown:
            for name, (elem_type, shape) in infer_node(node, known_shapes, types, constants).items():
                types.setdefault(name, elem_type)
                if shape is not None:
                    known_shapes.setdefault(name, shape)
            if any(name in claimed for name in node.inputs):
                claimed.update(name for name in unknown if name in known_shapes)
        for name in node.outputs:  # the file's own claims count where inference gives nothing
            if name in claimed_types:
                types.setdefault(name, claimed_types[name])
            if name in claimed_shapes and name not in known_shapes:
                known_shapes[name] = claimed_shapes[name]
                claimed.add(name)
        constants.update(evaluator.computed(node, known_shapes, types, constants))
    _check_axes(known_shapes)
    return Known(known_shapes, types, constants, claimed)


def _check_axes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if len(shape) > MOST_AXES:
            raise ModelError(f"value {name!r} has {len(shape)} axes, of which at most {MOST_AXES} are supported")


def check_legal(node: Node, graph: Graph) -> None:
    """Raise ModelError if a node breaks the rules of its operator. It is called when a law has failed at the node."""
    if node.captured():
        return
    try:
        onnx.checker.check_node(node.proto, _context(node))
        inferred_outputs(node, graph.shapes, graph.types, graph.constants)
    except COMPLAINTS as error:
        raise ModelError(
            f"{node.op} node {node.label!r} is not legal ONNX ({first_line(error)}); export it again"
        ) from error


def check_fitting(node: Node, graph: Graph, failure: Exception) -> None:
    """Raise ModelError if a node at which a law has failed could not be checked, as not all its shapes are known."""
    unsure = [name for name in node.inputs if name and (name not in graph.shapes or name in graph.claimed)]
    if unsure:
        raise ModelError(
            f"{node.op} node {node.label!r} has inputs or attributes that do not fit each other "
            f"({first_line(failure)}), which shows only here because the shape of {unsure[0]!r} is not known; "
            "check the model with onnx.checker, and export it again"
        ) from failure


def _context(node: Node) -> onnx.checker.C.CheckerContext:
    context = onnx.checker.C.CheckerContext()
    context.ir_version = onnx.IR_VERSION
    context.opset_imports = {node.proto.domain: node.opset}
    return context
