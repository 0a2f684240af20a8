"""The verdict on a rewritten model, and the sentence that says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxnorm.display import Shown, counted, html_block, html_table
from onnxnorm.verification.fp16 import Fp16

__all__ = ["OutputVerdict", "Verification", "all_same"]


@dataclass(frozen=True)
class OutputVerdict:
    """The verdict on one graph output: errors over all samples, the runtime's own noise, and the tolerance used."""

    same: bool
    max_relative_error: float
    relative_rms_error: float
    bit_identical: bool
    worst_axis: int
    worst_channel: int
    worst_channel_error: float
    noise: float
    tolerance: float


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """The verdict on a rewritten model; the errors are those of its worst output in the comparison that decided.

    Attributes:
        same: whether it is the same function.
        max_relative_error: `max|a - b| / max|a|`.
        relative_rms_error: root mean square of `a - b` over that of `a`.
        bit_identical: whether all outputs are the same bits, as the networks run.
        samples: number of samples compared.
        graph_identical: whether nothing but the values of constants differs.
        compared_in: the element type of the comparison that decided: the first one that failed, else the sharpest.
        comparisons: the verdict on each output by name, for each element type compared in.
        not_compared: the element type of a comparison that could not be made, and why; None if all were.
        attributes_changed: number of attributes that differ.
        nodes_added: number of nodes that the rewritten model has more.
        constants_copied: number of constants that it has more, copies of others.
        functions_inlined: whether it has the original's own functions inlined.
        time_ratio: how long the rewritten model takes, compared with the original; None if too few batches were timed.
        fp16: the headroom in float16, where that was asked for.
        preprocessing: how images were prepared, as statistics record it; None if there were none.
        as_calibrated: whether that is how they were prepared at the calibration, as the rewritten model records.
    """

    same: bool
    max_relative_error: float
    relative_rms_error: float
    bit_identical: bool
    samples: int
    graph_identical: bool
    compared_in: str
    comparisons: dict[str, dict[str, OutputVerdict]]
    not_compared: str | None = None
    attributes_changed: int = 0
    nodes_added: int = 0
    constants_copied: int = 0
    functions_inlined: bool = False
    time_ratio: float | None = None
    fp16: Fp16 | None = field(default=None, repr=False)
    preprocessing: Mapping[str, Any] | None = field(default=None, repr=False)
    as_calibrated: bool = False

    @property
    def outputs(self) -> dict[str, OutputVerdict]:
        """The verdict on each output in the comparison that decided."""
        return self.comparisons[self.compared_in]

    @property
    def noise(self) -> float:
        """The runtime's own noise: the original against itself with graph optimizations on and off."""
        return max(verdict.noise for verdict in self.outputs.values())

    @property
    def graph(self) -> str:
        """What differs in the graph, as a phrase."""
        if self.graph_identical:
            return "the same but for constants' values"
        changes = ["constants' values"]
        if self.attributes_changed:
            changes.append(counted(self.attributes_changed, "other attribute"))
        if self.nodes_added:
            changes.append(f"{counted(self.nodes_added, 'node')} more")
        if self.constants_copied:
            changes.append(counted(self.constants_copied, "copied constant"))
        if self.functions_inlined:
            changes.append("its functions inlined")
        if not changes[1:]:
            return "not the same"
        return f"the same but for {', '.join(changes[:-1])} and {changes[-1]}"

    @property
    def rounding_only(self) -> bool:
        """Whether it was refused as it runs, though the two compute the same in float32."""
        return not self.same and self.compared_in != "float32" and "float32" in self.comparisons

    def __str__(self) -> str:
        on = f"on {counted(self.samples, 'sample')}"
        on += f" (not compared in {self.not_compared})" if self.not_compared else ""
        if self.bit_identical and self.same:
            return f"the same function: outputs are bit-identical {on}"
        name, worst = _worst(self.outputs)
        errors = f"{worst.max_relative_error:.1e} of the largest magnitude (tolerance {worst.tolerance:.1e}, "
        errors += f"the runtime's own noise {worst.noise:.1e})"
        others = [kind for kind in self.comparisons if kind != self.compared_in]
        if others or self.not_compared:
            errors += f", computed in {self.compared_in}"
        if self.same:
            also = "".join(f", and by {_said(kind, self.comparisons[kind])}" for kind in others)
            return f"the same function: outputs differ by at most {errors}{also} {on}"
        channel = (
            f"; channel {worst.worst_channel} (of axis {worst.worst_axis}) is off by " if worst.worst_axis > 0 else ""
        )
        channel += f"{worst.worst_channel_error:.1e} of its own magnitude" if channel else ""
        hint = ""
        if worst.noise * 3 >= worst.tolerance / 2 and worst.max_relative_error < 10 * worst.tolerance:
            hint = "; this network amplifies rounding: --power-of-two rounds no constant"
        if self.rounding_only:
            also = _said(others[0], self.comparisons[others[0]])
            hint = f"; by {also}, so it is the rounding or the range of {self.compared_in}: --power-of-two rounds "
            hint += "no constant, a smaller --target needs less range"
        return f"not the same function: output {name!r} differs by {errors}{channel}{hint}"

    def _repr_html_(self) -> str:
        """The verdict, and the errors of each output as a table."""
        columns = (
            "output",
            "compared in",
            "same",
            ">largest error",
            ">RMS error",
            ">tolerance",
            ">runtime's own noise",
        )
        rows = [
            (
                name,
                kind,
                "yes, the same bits" if output.bit_identical and output.same else "yes" if output.same else "no",
                *(f"{item:.1e}" for item in (output.max_relative_error, output.relative_rms_error)),
                *(f"{item:.1e}" for item in (output.tolerance, output.noise)),
            )
            for kind, outputs in self.comparisons.items()
            for name, output in outputs.items()
        ]
        return html_block(str(self), html_table(columns, rows), f"graph: {self.graph}")

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `verify --json` prints it."""
        comparisons = {
            kind: {name: vars(verdict) for name, verdict in verdicts.items()}
            for kind, verdicts in self.comparisons.items()
        }
        return {
            "same": self.same,
            "max_relative_error": self.max_relative_error,
            "relative_rms_error": self.relative_rms_error,
            "bit_identical": self.bit_identical,
            "outputs": comparisons[self.compared_in],
            "samples": self.samples,
            "graph_identical": self.graph_identical,
            "attributes_changed": self.attributes_changed,
            "nodes_added": self.nodes_added,
            **({"constants_copied": self.constants_copied} if self.constants_copied else {}),
            **({"functions_inlined": True} if self.functions_inlined else {}),
            "time_ratio": self.time_ratio,
            "compared_in": self.compared_in,
            "comparisons": comparisons,
            "not_compared": self.not_compared,
            **({"fp16": self.fp16.to_json()} if self.fp16 else {}),
        }


def all_same(verdicts: Mapping[str, OutputVerdict]) -> bool:
    """Whether every output is the same."""
    return all(verdict.same for verdict in verdicts.values())


def _worst(verdicts: Mapping[str, OutputVerdict]) -> tuple[str, OutputVerdict]:
    return max(verdicts.items(), key=lambda item: (not item[1].same, item[1].max_relative_error))


def _said(kind: str, verdicts: Mapping[str, OutputVerdict]) -> str:
    return f"{_worst(verdicts)[1].max_relative_error:.1e} in {kind}"
