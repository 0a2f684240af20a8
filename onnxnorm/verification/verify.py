"""Run the original and the rewritten network on the same inputs, and judge the difference.

The tolerance follows from the narrowest type that the network computes in and from the network's own noise floor: the
original against itself with graph optimizations on and off. Some networks amplify rounding to per cents; there the
verdict can be no sharper, and says so.

Networks in half precision are compared twice: as they run, at a tolerance that rounding needs, and in float32
(`widen`), at float32's tolerance. Both must hold where the runtime can run both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from onnxnorm.errors import DataError, ModelError, OptionError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.inputs import InputSpec, OpenShape
from onnxnorm.model.tensors import unit_in_last_place
from onnxnorm.rewriting.record import Record, read_entries, read_record
from onnxnorm.runtime import Runtime
from onnxnorm.verification.graphs import graph_difference
from onnxnorm.verification.side_by_side import Feeds, Pair, Scales, SideBySide
from onnxnorm.verification.verdict import Verification, all_same
from onnxnorm.verification.widen import is_half, narrowest_type, unrounded, widened

__all__ = ["verify_models"]

# How far outputs may differ in float32, in units in the last place of the half-precision constants, where no record
# says how these were rounded: half a unit each, and layers add up.
_UNRECORDED_UNITS = 4.0


def verify_models(
    original: Model,
    rewritten: Model,
    feeds: Iterable[Feeds],
    *,
    scales: Scales | None = None,
    tolerance: float | None = None,
    runtime: Runtime | None = None,
    record: Record | None = None,
) -> Verification:
    """Compare two models on the same inputs.

    Args:
        original: the model before.
        rewritten: the model after.
        feeds: inputs by name, batch by batch.
        scales: those of graph outputs that were not kept, by name; they are taken out again.
        tolerance: how far an output may differ, relative to its largest magnitude; None: as far as rounding explains.
        runtime: where the models run.
        record: by what the rewrite multiplied constants; None: as the rewritten model says itself.

    Raises:
        DataError: without feeds.
        ModelError: if a model does not run, or has other inputs or outputs than the other. Inputs are compared before
            anything is run.
        OptionError: if the tolerance is negative.
    """
    if tolerance is not None and not tolerance >= 0:
        raise OptionError(f"the tolerance must not be negative, as {tolerance:g} is")
    original = original.as_opened
    _check_inputs(original, rewritten)
    runs, not_compared = _open(original, rewritten, runtime or Runtime(), record, scales or {})
    samples, specs = 0, input_specs(original)
    for feed in feeds:
        samples += _batch(specs, feed)
        for run in runs:
            run.add(feed)
    if not samples:
        raise DataError("there is nothing to verify on: the data holds no samples")
    difference = graph_difference(original, rewritten, record or _own_record(original, rewritten))
    if not difference.identical:
        runs[-1].time(feed)
    comparisons = {run.kind: run.verdicts(tolerance) for run in runs}
    decided = next((kind for kind, verdicts in comparisons.items() if not all_same(verdicts)), runs[0].kind)
    verdicts = comparisons[decided].values()
    return Verification(
        same=all(all_same(verdicts) for verdicts in comparisons.values()),
        max_relative_error=max(verdict.max_relative_error for verdict in verdicts),
        relative_rms_error=max(verdict.relative_rms_error for verdict in verdicts),
        bit_identical=all(verdict.bit_identical for verdict in comparisons[runs[-1].kind].values()),
        samples=samples,
        graph_identical=difference.identical,
        attributes_changed=difference.attributes_changed,
        nodes_added=difference.nodes_added,
        constants_copied=difference.constants_copied,
        functions_inlined=difference.inlined,
        time_ratio=runs[-1].time_ratio,
        compared_in=decided,
        comparisons=comparisons,
        not_compared=not_compared,
    )


def _check_inputs(original: Model, rewritten: Model) -> None:
    """Raise ModelError if what an input of the original takes cannot be fed to the input of that name in the other."""
    others = {spec.name: spec for spec in input_specs(rewritten)}
    for spec in input_specs(original):
        other = others.get(spec.name)
        if other is not None and (spec.dtype != other.dtype or not _overlap(spec.shape, other.shape)):
            raise ModelError(
                f"the two models have different inputs: {spec} in the original, {other} in the other; give a model and "
                "its own rewritten version"
            )


def _overlap(a: OpenShape, b: OpenShape) -> bool:
    """Whether a shape can be both."""
    return len(a) == len(b) and all(None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True))


def _open(
    original: Model, rewritten: Model, runtime: Runtime, record: Record | None, scales: Scales
) -> tuple[list[SideBySide], str | None]:
    """The comparisons that can be made, the sharpest first and the one as the networks run last; why not all."""
    dtype = narrowest_type(original)
    if not is_half(dtype):
        return [SideBySide(runtime, dtype, (original, rewritten), scales)], None
    record = record or _own_record(original, rewritten)
    rounding = 0.0 if record else _UNRECORDED_UNITS * unit_in_last_place(dtype)
    runs: list[SideBySide] = []
    failures: dict[str, ModelError] = {}

    def attempt(computed_in: np.dtype[Any], models: Callable[[], Pair]) -> None:
        try:
            runs.append(SideBySide(runtime, computed_in, models(), scales, rounding))
        except ModelError as error:
            failures[computed_in.name] = error

    attempt(np.dtype(np.float32), lambda: _widened(original, rewritten, record))
    attempt(dtype, lambda: (original, rewritten))
    if not runs:
        raise failures[dtype.name]
    return runs, "; ".join(f"{kind}: {error}" for kind, error in failures.items()) or None


def _widened(original: Model, rewritten: Model, record: Record | None) -> Pair:
    return widened(original), widened(rewritten, unrounded(original, rewritten, record) if record else None)


def _own_record(original: Model, rewritten: Model) -> Record | None:
    """What a rewritten model records of its rewrite, if it is one of this very original."""
    entries = read_entries(rewritten)
    if not entries or entries.get("original") != original.digest():
        return None
    try:
        return read_record(entries, rewritten.path)
    except ModelError:
        return None  # the comparison is less sharp without, and not wrong


def _batch(specs: Sequence[InputSpec], feed: Feeds) -> int:
    counts = (feed[s.name].shape[s.batch] for s in specs if s.batch is not None and s.value is None and s.name in feed)
    return max(counts, default=1)
