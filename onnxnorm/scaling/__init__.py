"""The law of scales: which channels may be rescaled, which must share a scale, and how constants follow.

**Invariant.** Write `v' = s ⊙ v` for a value of the rewritten network, with one scale `s > 0` per channel. The
rewritten network computes the original function exactly when every operator keeps that equation true and every graph
input and output has `s = 1`.

**Algorithm.**

1. A *slot* is one unknown scale. Every value carries an integer array of slot ids, of the value's rank, with size 1
   on each axis along which the scale does not vary: `(1, C, 1, 1)` for an NCHW activation. NumPy's broadcasting is
   the rule of propagation (`slots`).
2. The *walk* visits the nodes in order and asks the law of each operator (`operators/`), which hands slots on, makes
   fresh ones, ties them, pins them to 1, or relates three of them as a product; and which says how the node's constants
   depend on them: an *edit*, `new = old * scale[times] / scale[over]` (`walk`). An operator without a law is a barrier:
   everything it reads and writes is pinned. So the walk can be less effective on a graph that it does not know, but
   never wrong.
3. Ties make *groups* of slots that share one scale; a group with a pinned member is pinned and knows why (`groups`).
4. *Filters* are found, and the value where each is measured (`filters`); a *plan* says all this to people (`plan`).

Nothing here knows images, sessions, files or options. Numbers come later: `onnxnorm.rewriting` chooses one scale per
group and puts it into the edits.
"""

from onnxnorm.scaling.filters import Layer, Measure, Site, find_layers
from onnxnorm.scaling.groups import Groups
from onnxnorm.scaling.plan import Plan, make_plan
from onnxnorm.scaling.slots import Barrier, Edit, Ids
from onnxnorm.scaling.walk import Trace, trace

__all__ = [
    "Barrier",
    "Edit",
    "Groups",
    "Ids",
    "Layer",
    "Measure",
    "Plan",
    "Site",
    "Trace",
    "find_layers",
    "make_plan",
    "trace",
]
