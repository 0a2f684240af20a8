"""Random little graphs around single operators, with open sizes, for the fuzzer of laws.

`draw_graph` makes one from a seed: a layer with weights, one to three operators with random attributes, and another
layer. What the operators see is known from a run, so that constants fit them.
"""

from tests.helpers.draws.catalog import CATALOG, OPERATORS
from tests.helpers.draws.draw import Draw, Drawn, IllegalDrawError, draw_graph

__all__ = ["CATALOG", "OPERATORS", "Draw", "Drawn", "IllegalDrawError", "draw_graph"]
