"""A ceiling for every value of a network, by powers of two: `rewrite --ceiling`.

**What is asked.** With `x = log2(scale)`, an integer for every group of slots, the largest magnitude M of a channel
becomes `M * 2 ** x`. Every channel of every value is to end at the ceiling T or below: `x <= floor(log2(T / M))`.
What is there already stays, so of all solutions the one is taken that moves the fewest filters.

**What bounds it.** Groups are combinations of unknowns, `x = B u` (`scaling.groups`). A constant becomes
`w * 2 ** (x[times] - x[over])` and has to survive a conversion to float16: no element may pass 65504, the largest
weight of every filter stays a normal number, and an epsilon does not become 0. All these are linear in u, and `u = 0`
keeps all of them (the network as it is): so there always is a solution, and what cannot be reached is left above T.

**How.** `peaks` reads what was measured, `half` finds what float16 does to constants, `program` is the integer program,
`choose` puts them together, and `outcome` says what is left above the ceiling, and why.
"""

from onnxnorm.rewriting.ceiling.outcome import AboveCeiling, Ceiling

__all__ = ["AboveCeiling", "Ceiling"]
