"""How each operator with a law is drawn: by name, functions that add it to a graph behind a value."""

from __future__ import annotations

from collections.abc import Mapping

from tests.helpers.draws.choices import CHOICES
from tests.helpers.draws.computed import COMPUTED
from tests.helpers.draws.draw import Step
from tests.helpers.draws.elements import ELEMENTS
from tests.helpers.draws.layers import LAYERS
from tests.helpers.draws.moves import MOVES
from tests.helpers.draws.spatial import SPATIAL

__all__ = ["CATALOG", "OPERATORS"]

CATALOG: Mapping[str, Step] = ELEMENTS | CHOICES | COMPUTED | LAYERS | MOVES | SPATIAL
"""Steps by name: the operator, and after a space a kind of it."""

OPERATORS = frozenset(name.split(" ")[0] for name in CATALOG)
