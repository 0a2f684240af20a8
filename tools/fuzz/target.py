"""What a target of the fuzzer is: a generator of damaged files, and the operation that reads them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

__all__ = ["TARGETS", "Files", "Target", "generator", "load_target"]

Files = Mapping[str, bytes]
"""The content of each file of a case, by name."""

TARGETS = ("models", "operators", "features", "statistics", "images", "arrays", "records")


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        name: name of the target, and of the module that has it.
        seeds: returns the undamaged inputs, by name, each as files.
        damage: returns the files of a case, damaged at random; what it draws decides the case alone.
        read: reads the files in a folder in the way that a user would; draws options from the generator.
    """

    name: str
    seeds: Callable[[], Mapping[str, Files]]
    damage: Callable[[np.random.Generator], Files]
    read: Callable[[Path, np.random.Generator], object]


def load_target(name: str) -> Target:
    """Return the target of this name: the `TARGET` of its module, which is in this package if it has no dots."""
    target: Target = import_module(name if "." in name else f"tools.fuzz.{name}").TARGET
    return target


def generator(name: str, seed: int) -> np.random.Generator:
    """Return the generator of a case; the same for the same target and seed, whatever ran before."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed])
