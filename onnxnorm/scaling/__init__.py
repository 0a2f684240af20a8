"""The law of scales: which channels may be rescaled, which must share a scale, and how constants follow.

**Invariant.** Write `v' = s ⊙ v` for a value of the rewritten network, with one scale `s > 0` per channel. The
rewritten network computes the original function if every operator keeps that equation true and every graph input and
output has `s = 1`.

**Algorithm.**

1. A *slot* is one unknown scale. Every value carries an integer array of slot ids, of the value's rank, with size 1
   on each axis along which the scale does not vary: `(1, C, 1, 1)` for an NCHW activation. NumPy's broadcasting is
   the rule of propagation (`slots`).
2. The *walk* visits the nodes in order and applies the law of each operator (`operators/`). A law passes slots on,
   makes fresh ones, ties them, pins them to 1, or relates them as products and powers. It also states how the node's
   constants depend on them: an *edit*, `new = old * scale[times] / scale[over]` (`walk`). An operator without a law is
   a barrier: everything that it reads and writes is pinned. So on a graph with unknown operators the walk can be less
   effective, but never wrong.
3. Ties make *groups* of slots that share one scale. A group with a pinned member is pinned as a whole, and carries the
   reason. With products and powers, groups are combinations of unknowns (`groups`, `elimination`).
4. A search finds the *filters* and the value where each is measured (`filters`, `composites`). A *plan* summarizes all
   this (`plan`, `freedom`).
5. Where multiplications may be added, a search over a walk with open edges says where (`openings`, `bridges`).

Nothing here depends on images, sessions, files or options. Numbers come later: `onnxnorm.rewriting` computes one scale
per group and applies the edits with it.
"""

from onnxnorm.scaling.bridges import Choice, choose_openings
from onnxnorm.scaling.filters import Layer, Measure, Site, find_layers
from onnxnorm.scaling.groups import Groups
from onnxnorm.scaling.plan import Plan, make_plan
from onnxnorm.scaling.slots import Barrier, Edit, Ids
from onnxnorm.scaling.walk import Trace, trace

__all__ = [
    "Barrier",
    "Choice",
    "Edit",
    "Groups",
    "Ids",
    "Layer",
    "Measure",
    "Plan",
    "Site",
    "Trace",
    "choose_openings",
    "find_layers",
    "make_plan",
    "trace",
]
