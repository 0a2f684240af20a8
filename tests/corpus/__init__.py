"""An adversarial corpus: small graphs, each a corner where a rescaler can go wrong, with what must be found there.

`@case` registers a function that builds a model, with what its plan must be when graph outputs are kept: how many
filters are free, tied and pinned; which values are free or pinned in all their channels; how many scales one has. One
module per theme; importing this package registers all of them.
"""

from tests.corpus import architectures, borders, bounds, chains, constants, gates, joins, layers, movement, odd
from tests.corpus.case import CASES, Build, Case, case
from tests.corpus.net import BFLOAT16, DOUBLE, FLOAT, FLOAT16, INF, OPEN, Dims, Net, feeds

__all__ = [
    "BFLOAT16",
    "CASES",
    "DOUBLE",
    "FLOAT",
    "FLOAT16",
    "INF",
    "OPEN",
    "Build",
    "Case",
    "Dims",
    "Net",
    "architectures",
    "borders",
    "bounds",
    "case",
    "chains",
    "constants",
    "feeds",
    "gates",
    "joins",
    "layers",
    "movement",
    "odd",
]
