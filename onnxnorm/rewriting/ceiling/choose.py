"""Choosing the exponents of all groups for a ceiling: the program, solved again with every bound that it violates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, vstack

from onnxnorm.rewriting.ceiling.half import HalfBound, epsilons, lost_epsilons, violated_bounds
from onnxnorm.rewriting.ceiling.outcome import Ceiling
from onnxnorm.rewriting.ceiling.peaks import INFINITE, ValuePeaks, at_site, peaks_behind, value_peaks
from onnxnorm.rewriting.ceiling.program import Costs, solve_integers
from onnxnorm.rewriting.ceiling.reasons import above_ceiling
from onnxnorm.rewriting.limits import settle
from onnxnorm.rewriting.opened import Subject
from onnxnorm.rewriting.power_of_two import all_bits_kept
from onnxnorm.rewriting.scales import LayerScales, Scales
from onnxnorm.scaling import Groups, Layer, Trace

__all__ = ["ceiling_scales"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_SECONDS = 20.0  # for one solution, after which it is rounded
_ROUNDS = 30  # solutions with more bounds each, before exponents are moved towards 0 instead
_NODE = 4.0  # what it costs to let the ends of an edge differ, for each channel
_OTHERS = 0.125  # what it costs to move what is no filter, where moving a filter costs 1


@dataclass(frozen=True)
class _Found:
    """Exponents of the groups, the bounds that they keep, and whether no others are known to be better."""

    exponents: Integers = field(repr=False)
    bounds: tuple[HalfBound, ...]
    proven: bool


def ceiling_scales(subject: Subject, measured: Mapping[str, Floats], ceiling: float) -> tuple[Scales, Ceiling]:
    """The scales that bring every value to a ceiling where scales can do that, with the fewest filters moved.

    Args:
        subject: the model, perhaps opened, and a walk over it.
        measured: the largest magnitudes of every value of the original, by its name.
        ceiling: the largest magnitude that is allowed.
    """
    traced, layers = subject.trace, subject.layers
    values = value_peaks(traced, peaks_behind(measured, traced.graph, subject.insertion))
    guards = epsilons(subject.model, traced)
    found = _solved(subject, values, ceiling, guards)
    if guards and _excess(traced.groups, values, found.exponents, ceiling):
        other = _solved(subject, values, ceiling, [])
        better = _excess(traced.groups, values, other.exponents, ceiling)
        found = (
            min(found, other, key=lambda one: _excess(traced.groups, values, one.exponents, ceiling))
            if better
            else other
        )
    exponents = found.exponents
    scales = _scales(traced, layers, measured, exponents)
    above = above_ceiling(traced, values, exponents, ceiling, found.bounds)
    outcome = Ceiling(
        ceiling=ceiling,
        values=len(measured),
        before=sum(bool((array[array < INFINITE] > ceiling).any()) for array in measured.values()),
        above=above,
        infinite=sum(bool((array >= INFINITE).any()) for array in measured.values()),
        moved=sum(int((layer.scale != 1).sum()) for layer in scales.layers),
        lost=lost_epsilons(subject.model, traced, exponents),
        proven=found.proven,
    )
    return scales, outcome


def _solved(subject: Subject, values: Sequence[ValuePeaks], ceiling: float, guards: Iterable[HalfBound]) -> _Found:
    """Solve the program until no constant is violated."""
    traced = subject.trace
    groups, basis = traced.groups, traced.groups.basis
    limits = _limits(groups, values, ceiling)
    known = dict.fromkeys(guards)
    known |= dict.fromkeys(violated_bounds(subject.model, traced, np.zeros(groups.count, np.int64), first=True))
    costs = _costs(subject)
    unknowns, proven = np.zeros(basis.shape[1], np.int64), True
    if not ((limits[1] < 0).any() or any(bound.bound < 0 for bound in known)):
        return _Found(groups.at(unknowns), (), True)
    for _ in range(_ROUNDS):
        solution = solve_integers(*_rows(groups, limits, list(known)), costs, _SECONDS)
        unknowns, proven = solution.unknowns, proven and solution.proven
        violated = [b for b in violated_bounds(subject.model, traced, groups.at(unknowns)) if b not in known]
        if not violated:
            break
        known |= dict.fromkeys(violated)
    else:
        unknowns, proven = _settled(subject, unknowns, known), False
    kept, limits_of = all_bits_kept(subject.model, traced.edits, groups, unknowns)
    own = [HalfBound(a, b, h, name, "bits") for name, limit in limits_of for a, b, h in limit.T.tolist()]
    return _Found(kept, (*known, *own), proven and not own)


def _limits(groups: Groups, values: Sequence[ValuePeaks], ceiling: float) -> tuple[Integers, Integers]:
    """The groups that some value has, and the largest exponent of each with which all of them are at the ceiling."""
    most = np.zeros(groups.count)
    for item in values:
        np.maximum.at(most, item.groups, item.peaks)
    here = np.flatnonzero((most > 0) & (groups.pinned < 0))
    exponents = np.floor(np.log2(ceiling / most[here])).astype(np.int64)
    exponents -= np.ldexp(most[here], exponents) > ceiling
    exponents += np.ldexp(most[here], exponents + 1) <= ceiling
    return here, exponents


def _rows(groups: Groups, limits: tuple[Integers, Integers], bounds: Sequence[HalfBound]) -> tuple[csr_array, Integers]:
    """Values and constants as rows of the program. The rows of pinned groups are empty."""
    a, b = (np.asarray([getattr(bound, end) for bound in bounds], np.int64) for end in ("a", "b"))
    pairs = csr_array(groups.basis[a] - groups.basis[b])
    pairs.eliminate_zeros()
    matrix = csr_array(vstack([groups.basis[limits[0]], pairs]))
    # A wish about a constant that nothing can move is none.
    numbers = np.asarray([bound.bound for bound in bounds], np.int64)
    return matrix, np.concatenate([limits[1], np.where(np.diff(pairs.indptr) > 0, numbers, 0)])


def _costs(subject: Subject) -> Costs:
    """What it costs to move: of each unknown the filters that move with it, and of added nodes each channel."""
    groups, count = subject.trace.groups, subject.trace.groups.basis.shape[1]
    filters = np.concatenate([np.empty(0, np.int64), *(groups.of[layer.slots] for layer in subject.layers)])
    members = np.bincount(filters, minlength=groups.count).astype(np.float64)
    weights = np.asarray(abs(groups.basis).sign().T @ members + _OTHERS, np.float64)
    pairs = [np.empty((2, 0), np.int64)]
    for edit in subject.trace.edits:
        opening = subject.insertion.of.get(edit.constant.name)
        if opening is not None and opening.elements and edit.times is not None:
            over = np.zeros(1, np.int64) if edit.over is None else edit.over
            pairs.append(np.stack([ids.reshape(-1) for ids in np.broadcast_arrays(edit.times, over)]))
    a, b = groups.of[np.unique(np.concatenate(pairs, axis=1), axis=1)]
    added = csr_array(groups.basis[a] - groups.basis[b])
    added.eliminate_zeros()
    added = added[np.flatnonzero(np.diff(added.indptr))]
    forms = csr_array(vstack([csr_array(eye_array(count, dtype=np.int64)), added]))
    return Costs(forms, np.concatenate([weights, np.full(added.shape[0], _NODE)]))


def _settled(subject: Subject, unknowns: Integers, known: dict[HalfBound, None]) -> Integers:
    """Unknowns nearer to 0, by which no constant is violated: the way out when more bounds keep turning up."""
    groups = subject.trace.groups
    while True:
        violated = list(violated_bounds(subject.model, subject.trace, groups.at(unknowns)))
        known |= dict.fromkeys(violated)
        hard = [(bound.a, bound.b, bound.bound) for bound in known if bound.bound >= 0]
        before = unknowns.copy()
        settle(groups.basis, unknowns, np.asarray(hard, np.int64).reshape(-1, 3).T)
        if (unknowns == before).all():
            return unknowns


def _excess(groups: Groups, values: Sequence[ValuePeaks], exponents: Integers, ceiling: float) -> int:
    """Number of values that are above a ceiling and are not pinned there."""
    count = 0
    for item in values:
        free = groups.pinned[item.groups] < 0
        count += bool((item.after(exponents)[free] > ceiling).any())
    return count


def _scales(traced: Trace, layers: Sequence[Layer], measured: Mapping[str, Floats], exponents: Integers) -> Scales:
    of_slot = np.ldexp(1.0, exponents[traced.groups.of])
    of_slot[0] = 1.0
    found = []
    for layer in layers:
        peaks = at_site(measured, layer.site, layer.channels)
        found.append(
            LayerScales(
                layer=layer,
                statistic=peaks,
                standard_error=np.full(layer.channels, np.nan),
                scale=of_slot[layer.slots],
                dead=peaks == 0,
                pinned=traced.groups.is_pinned(layer.slots),
                limited=np.zeros(layer.channels, np.bool_),
            )
        )
    return Scales(of_slot, tuple(found))
