"""Powers of two: multiplying by them commutes with every rounding, as long as no number leaves the normal range.

Scales are rounded in the logarithm, one per group: `e = rint(log2(scale))`. An element w of a constant that follows
them becomes `w * 2 ** (e[times] - e[over])`, and keeps all its bits if its exponent field stays that of a normal
number::

    1 <= E(w) + e[times] - e[over] <= top          E(w) at least 1, so that a subnormal number may grow but not shrink

Every element is a constraint `e[a] - e[b] <= h` between two groups with h >= 0, so that e = 0 fulfils all of them.
Where the rounded scales break one, the exponent of either group moves towards 0 (of the one that breaks more), until
none is broken. It moves towards 0 only, so this ends; it is conservative, not the nearest solution. All is done on the
bits of the constants, a few rows at a time, and constants whose range shows that nothing can break are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.constants import Constant
from onnxnorm.model.files import Model
from onnxnorm.rewriting.constants import rows_of
from onnxnorm.rewriting.scales import Scales
from onnxnorm.scaling import Edit, Ids, Trace
from onnxnorm.scaling.slots import at_rank

__all__ = ["powers_of_two"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Format:
    """A binary format: its bits as an integer type, bits of mantissa, and the exponent field of its largest numbers."""

    bits: type[np.unsignedinteger[Any]]
    mantissa: int
    top: int

    def magnitudes(self, values: NDArray[np.generic]) -> NDArray[np.unsignedinteger[Any]]:
        """The bits without the sign, which order numbers by magnitude; 0 for what is infinite or not a number."""
        bits: NDArray[np.unsignedinteger[Any]] = values.view(self.bits) & self.bits(np.iinfo(self.bits).max >> 1)
        bits[bits >= self.bits((self.top + 1) << self.mantissa)] = 0
        return bits


_FORMATS = {
    np.dtype(np.float16): _Format(np.uint16, 10, 30),
    np.dtype(ml_dtypes.bfloat16): _Format(np.uint16, 7, 254),
    np.dtype(np.float32): _Format(np.uint32, 23, 254),
    np.dtype(np.float64): _Format(np.uint64, 52, 2046),
}


def powers_of_two(model: Model, trace: Trace, scales: Scales) -> Scales:
    """Round every scale to a power of two, and limit those that would cost a constant some of its bits."""
    of = trace.groups.of
    wanted = np.zeros(trace.groups.count, np.int64)
    wanted[of] = np.rint(np.log2(scales.of_slot)).astype(np.int64)
    wanted[of[0]] = 0
    exponents = _limited(model, trace.edits, of, wanted)
    return scales.at(np.ldexp(1.0, exponents[of]), (exponents != wanted)[of])


def _limited(model: Model, edits: Sequence[Edit], of: NDArray[np.int64], exponents: Integers) -> Integers:
    """The exponents, moved towards 0 until every constant stays exact."""
    exponents = exponents.copy()
    ranges: dict[str, tuple[int, int]] = {}
    for edit in edits:
        if edit.constant.name not in ranges and edit.constant.dtype in _FORMATS:
            ranges[edit.constant.name] = _range(model, edit.constant)
    known = np.empty((3, 0), np.int64)
    while True:
        found = [part for edit in edits for part in _broken(model, edit, of, exponents, ranges)]
        if not found:
            return exponents
        known = np.concatenate([known, *found], axis=1)
        _settle(exponents, known)


def _range(model: Model, constant: Constant) -> tuple[int, int]:
    """The smallest and the largest exponent field of a constant's numbers that are not 0; (1, 0) without any."""
    form = _FORMATS[constant.dtype]
    low, high = np.iinfo(form.bits).max, 0
    for _, values in rows_of(model, constant):
        bits = form.magnitudes(values)
        low = min(low, int(np.min(bits, where=bits > 0, initial=np.iinfo(form.bits).max)))
        high = max(high, int(bits.max(initial=0)))
    return (max(low >> form.mantissa, 1), max(high >> form.mantissa, 1)) if high else (1, 0)


def _broken(
    model: Model, edit: Edit, of: NDArray[np.int64], exponents: Integers, ranges: Mapping[str, tuple[int, int]]
) -> Iterator[Integers]:
    """Constraints `(3, n)` of groups a and b and bounds h that one constant needs and the exponents break."""
    constant = edit.constant
    low, high = ranges.get(constant.name, (1, 0))
    if low > high:
        return
    form = _FORMATS[constant.dtype]
    times, over = (_groups(ids, of, len(constant.shape)) for ids in (edit.times, edit.over))
    gain, loss = exponents[times], exponents[over]
    if high + gain.max() - loss.min() <= form.top and low + gain.min() - loss.max() >= 1:
        return
    for start, values in rows_of(model, constant):
        bits = form.magnitudes(values)
        fields = np.maximum((bits >> form.bits(form.mantissa)).astype(np.int64), 1)
        t, o = (np.broadcast_to(_rows(groups, start, len(values)), values.shape) for groups in (times, over))
        after = fields + exponents[t] - exponents[o]
        for wrong, a, b, bound in (
            ((after > form.top) & (bits > 0), t, o, form.top - fields),
            ((after < 1) & (bits > 0), o, t, fields - 1),
        ):
            if wrong.any():
                yield _tightest(a[wrong], b[wrong], bound[wrong])


def _tightest(a: Integers, b: Integers, bound: Integers) -> Integers:
    """One constraint per pair of groups, with the smallest bound."""
    order = np.lexsort((bound, b, a))
    rows = np.stack([a, b, bound])[:, order]
    first = np.ones(rows.shape[1], np.bool_)
    first[1:] = (rows[:2, 1:] != rows[:2, :-1]).any(axis=0)
    return rows[:, first]


def _settle(exponents: Integers, constraints: Integers) -> None:
    """Move exponents towards 0, in place, until no constraint is broken."""
    a, b, bound = constraints
    while True:
        excess = exponents[a] - exponents[b] - bound
        broken = excess > 0
        if not broken.any():
            return
        can_a, can_b = broken & (exponents[a] > 0), broken & (exponents[b] < 0)
        breaks = np.bincount(a[can_a], minlength=len(exponents)) + np.bincount(b[can_b], minlength=len(exponents))
        moves_a = can_a & (~can_b | (breaks[a] >= breaks[b]))
        steps = np.zeros_like(exponents)
        np.maximum.at(steps, a[moves_a], excess[moves_a])
        np.maximum.at(steps, b[broken & ~moves_a], excess[broken & ~moves_a])
        exponents -= np.sign(exponents) * np.minimum(steps, np.abs(exponents))


def _groups(ids: Ids | None, of: NDArray[np.int64], rank: int) -> Integers:
    """Groups of an edit's slots in the constant's rank (at least 1); that of slot 0, which stays 1, for None."""
    return at_rank(of[np.zeros(1, np.int64) if ids is None else ids], max(rank, 1))


def _rows(groups: Integers, start: int, count: int) -> Integers:
    return groups[start : start + count] if groups.shape[0] > 1 else groups
