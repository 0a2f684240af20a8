"""What a case of the corpus is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from onnxnorm.scaling.filters import FilterKind

__all__ = ["CASES", "Build", "Case", "case"]

Build = Callable[[], onnx.ModelProto]


@dataclass(frozen=True)
class Case:
    """One graph and its expectations; `rtol` is what the numeric check needs (0: bit for bit), `legal` whether
    ONNX's own checker accepts it (it wants shapes for outputs, and sorted nodes), `runs` whether ONNX Runtime does."""

    name: str
    build: Build = field(repr=False)
    plan: tuple[int, int, int]
    free: tuple[str, ...]
    pinned: tuple[str, ...]
    scales: Mapping[str, int]
    reason: str
    clones: bool
    dead: int
    rtol: float
    filters: FilterKind
    legal: bool
    runs: bool


CASES: dict[str, Case] = {}


def case(
    *plan: int,
    free: str = "",
    pinned: str = "",
    scales: Mapping[str, int] | None = None,
    reason: str = "",
    clones: bool = False,
    dead: int = 0,
    rtol: float = 0.0,
    filters: FilterKind = "conv",
    legal: bool = True,
    runs: bool = True,
) -> Callable[[Build], Build]:
    """Register a graph with its expected counts of free, tied and pinned filters."""

    def register(build: Build) -> Build:
        assert build.__doc__
        assert build.__name__ not in CASES
        counts = (plan[0], plan[1], plan[2])
        CASES[build.__name__] = Case(
            build.__name__, build, counts, tuple(free.split()), tuple(pinned.split()), scales or {},
            reason, clones, dead, rtol, filters, legal, runs,
        )  # fmt: skip
        return build

    return register
