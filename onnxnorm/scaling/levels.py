"""Levels of freedom: how much of a graph a rewrite may change.

==============  =======================================================  =====================================
level           what may change                                          what it opens
==============  =======================================================  =====================================
`constants`     values of constants                                      chains, BatchNormalization, gates
`attributes`    numbers in attributes too: epsilon, alpha, bounds        normalization by the own input
`nodes`         constant multiplications may be added on edges           everything
==============  =======================================================  =====================================
"""

from __future__ import annotations

from typing import Literal

__all__ = ["LEVELS", "Level"]

Level = Literal["constants", "attributes", "nodes"]

LEVELS: tuple[Level, ...] = ("constants", "attributes", "nodes")
