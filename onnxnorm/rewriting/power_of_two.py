"""Rounding scales to powers of two. Multiplying by these commutes with rounding while numbers stay in the normal range.

One exponent per unknown is rounded in the logarithm, `e = rint(log2(scale))`; those of all groups follow from them. An
element w of a constant that follows the scales becomes `w * 2 ** (e[times] - e[over])`, and keeps all its bits if its
exponent field E stays that of a normal number::

    1 <= E(w) + e[times] - e[over] <= top          E(w) at least 1, so that a subnormal number may grow but not shrink

Every element thus is a constraint `e[a] - e[b] <= h` between two groups, with h >= 0, so that e = 0 satisfies all of
them. Where the rounded scales violate constraints, exponents are moved towards 0, until none is violated
(`limits.settle`). All this uses the bits of the constants, a few rows at a time. A constant whose range of
exponents shows that no constraint can be violated is read only once.
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
from onnxnorm.rewriting.limits import groups_of, rows_from, settle, tightest
from onnxnorm.rewriting.scales import Scales
from onnxnorm.scaling import Edit, Groups, Trace

__all__ = ["all_bits_kept", "powers_of_two"]

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Format:
    """A floating-point format: integer type of its size, bits of mantissa, exponent field of its largest numbers."""

    bits: type[np.unsignedinteger[Any]]
    mantissa: int
    top: int

    def magnitudes(self, values: NDArray[np.generic]) -> NDArray[np.unsignedinteger[Any]]:
        """The bits without the sign, which order numbers by magnitude; 0 for infinities and NaN."""
        bits: NDArray[np.unsignedinteger[Any]] = values.view(self.bits) & self.bits(np.iinfo(self.bits).max >> 1)
        infinite = self.bits((self.top + 1) << self.mantissa)
        if bits.max(initial=0) >= infinite:
            bits[bits >= infinite] = 0
        return bits


_FORMATS = {
    np.dtype(np.float16): _Format(np.uint16, 10, 30),
    np.dtype(ml_dtypes.bfloat16): _Format(np.uint16, 7, 254),
    np.dtype(np.float32): _Format(np.uint32, 23, 254),
    np.dtype(np.float64): _Format(np.uint64, 52, 2046),
}


def powers_of_two(model: Model, trace: Trace, scales: Scales) -> Scales:
    """Round every scale to a power of two, nearer to 1 where a constant would lose some of its bits otherwise."""
    groups = trace.groups
    logs = np.zeros(groups.count)
    logs[groups.of] = np.log2(scales.of_slot)
    unknowns = np.rint(groups.unknown(logs)).astype(np.int64)
    nearest = groups.at(unknowns)
    exponents, _ = all_bits_kept(model, trace.edits, groups, unknowns)
    return scales.at(np.ldexp(1.0, exponents[groups.of]), (exponents != nearest)[groups.of])


def all_bits_kept(
    model: Model, edits: Sequence[Edit], groups: Groups, unknowns: Integers
) -> tuple[Integers, list[tuple[str, Integers]]]:
    """The exponents `(groups,)` that follow from unknowns, moved towards 0 until every constant keeps all its bits.

    Returns them, and the constraints that were violated on the way: by the name of a constant, an array `(3, n)` of
    groups a and b and bounds h.
    """
    unknowns, exponents = unknowns.copy(), groups.at(unknowns)
    ranges: dict[str, tuple[int, int]] = {}
    for edit in edits:
        if edit.constant.name not in ranges and edit.constant.dtype in _FORMATS:
            ranges[edit.constant.name] = _range(model, edit.constant)
    known = list[tuple[str, Integers]]()
    while True:
        violated = [
            (edit.constant.name, part)
            for edit in edits
            for part in _violated(model, edit, groups.of, exponents, ranges)
        ]
        if not violated:
            return exponents, known
        known += violated
        settle(groups.basis, unknowns, np.concatenate([part for _, part in known], axis=1))
        exponents = groups.at(unknowns)


def _range(model: Model, constant: Constant) -> tuple[int, int]:
    """The smallest and the largest exponent field of a constant's numbers other than 0; (1, 0) if there are none."""
    form = _FORMATS[constant.dtype]
    low, high = np.iinfo(form.bits).max, 0
    for _, values in rows_of(model, constant):
        bits = form.magnitudes(values)
        high = max(high, int(bits.max(initial=0)))
        bits -= form.bits(1)  # which makes 0 the largest
        low = min(low, int(bits.min(initial=np.iinfo(form.bits).max)) + 1)
    return (max(low >> form.mantissa, 1), max(high >> form.mantissa, 1)) if high else (1, 0)


def _violated(
    model: Model, edit: Edit, of: NDArray[np.int64], exponents: Integers, ranges: Mapping[str, tuple[int, int]]
) -> Iterator[Integers]:
    """Constraints of one constant that the exponents violate, as arrays `(3, n)` of groups a and b and bounds h."""
    constant = edit.constant
    low, high = ranges.get(constant.name, (1, 0))
    if low > high:
        return
    form = _FORMATS[constant.dtype]
    times, over = (groups_of(ids, of, len(constant.shape)) for ids in (edit.times, edit.over))
    gain, loss = exponents[times], exponents[over]
    top = np.iinfo(np.int64).max >> 1 if edit.bounds else form.top  # a bound stays at the largest number instead
    if high + gain.max() - loss.min() <= top and low + gain.min() - loss.max() >= 1:
        return
    for start, values in rows_of(model, constant):
        bits = form.magnitudes(values)
        fields = np.maximum((bits >> form.bits(form.mantissa)).astype(np.int64), 1)
        t, o = (np.broadcast_to(rows_from(groups, start, len(values)), values.shape) for groups in (times, over))
        after = fields + exponents[t] - exponents[o]
        for wrong, a, b, bound in (
            ((after > top) & (bits > 0), t, o, top - fields),
            ((after < 1) & (bits > 0), o, t, fields - 1),
        ):
            if wrong.any():
                yield tightest(a[wrong], b[wrong], bound[wrong])
