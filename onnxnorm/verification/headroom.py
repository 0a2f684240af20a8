"""Measuring the headroom of two models in float16, on feeds as they pass by (`fp16` says what is counted)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import ModelError
from onnxnorm.model.files import Model
from onnxnorm.model.graph import Graph
from onnxnorm.model.shapes import read_graph
from onnxnorm.runtime import Runtime, Session
from onnxnorm.verification.compare import Comparison, compare
from onnxnorm.verification.fp16 import Fp16, HalfError, ModelRange
from onnxnorm.verification.fp16_model import RangeProbe, ranges_of, rounding

__all__ = ["HeadroomMeter"]

Feeds = Mapping[str, NDArray[Any]]


class HeadroomMeter:
    """Measures both models on feeds as they pass by, for whoever else reads them."""

    def __init__(
        self,
        original: Model,
        rewritten: Model,
        runtime: Runtime | None = None,
        scales: Mapping[str, NDArray[np.float64]] | None = None,
        known: Fp16 | None = None,
    ) -> None:
        """Prepare to measure; sessions are opened with the first feed.

        Args:
            original: the model before the rewrite.
            rewritten: the model after it.
            runtime: where both run.
            scales: those of the rewritten model's outputs, where they were not kept.
            known: what a calibration stored about both; then only outputs are measured.
        """
        runtime = runtime or Runtime()
        self._known = known
        before, after = (known.original, known.rewritten) if known else (None, None)
        self._sides = (_Side(original, runtime, {}, before), _Side(rewritten, runtime, scales or {}, after))

    def watching(self, feeds: Iterable[Feeds]) -> Generator[Feeds, None, None]:
        """The same feeds, each measured before it is handed on."""
        for feed in feeds:
            for side in self._sides:
                side.add(feed)
            yield feed

    def result(self) -> Fp16:
        """What was measured so far."""
        original, rewritten = (side.result() for side in self._sides)
        return Fp16(original, rewritten, self._known.images if self._known else None)


class _Side:
    """One of the two models; its sessions are opened when the first feed tells the shapes."""

    def __init__(
        self, model: Model, runtime: Runtime, scales: Mapping[str, NDArray[np.float64]], known: ModelRange | None
    ) -> None:
        self.model, self.runtime, self.scales, self.known = model, runtime, scales, known
        self.sessions: tuple[RangeProbe, Session, Session | None] | None = None
        self.not_run: str | None = None
        self.values: dict[str, float] = {}
        self.errors: dict[str, Comparison] = {}
        self.counts: dict[str, tuple[int, int]] = {}
        self.graph: Graph | None = None

    def add(self, feed: Feeds) -> None:
        probe, plain, half = self.sessions = self.sessions or self._open(feed)
        results = plain.run(feed)
        for output, name in probe.values.items():
            largest = float(results[output])
            self.values[name] = max(self.values.get(name, 0.0), np.inf if np.isnan(largest) else largest)
        if half is None:
            return
        for name, array in half.run(feed).items():
            if array.dtype.kind != "f":
                continue
            scale = self.scales.get(name, np.ones(()))
            found = compare(results[name] / scale, array / scale)
            self.errors[name] = self.errors[name] + found if name in self.errors else found
            wild, size = self.counts.get(name, (0, 0))
            self.counts[name] = (wild + int((~np.isfinite(array)).sum()), size + array.size)

    def result(self) -> ModelRange:
        outputs = {}
        for name, error in self.errors.items():
            wild, size = self.counts[name]
            outputs[name] = HalfError(error.max_relative_error, error.relative_rms_error, wild / max(1, size))
        found = self.known or ModelRange.of(self.model, self.graph, self.values)
        return replace(found, outputs=outputs, not_run=self.not_run)

    def _open(self, feed: Feeds) -> tuple[RangeProbe, Session, Session | None]:
        graph = self.graph = read_graph(self.model, {name: array.shape for name, array in feed.items()})
        probe = ranges_of(self.model, graph, () if self.known else graph.float_values())
        plain = self.runtime.session(probe.proto, probe.folder)
        try:
            half = self.runtime.session(rounding(self.model, graph))
        except ModelError as error:
            self.not_run, half = str(error), None
        return probe, plain, half
