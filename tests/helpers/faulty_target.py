"""A target for the fuzzer whose cases fail in every way, by the order of their seeds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

from onnxnorm.errors import DataError
from tools.fuzz.target import Files, Target

WAYS = ("result", "refused", "KeyError", "time", "memory", "crash", "result", "KeyError", "time")
BUSY = WAYS.index("time")  # the other one waits


def _damage(random: np.random.Generator) -> Files:
    return {"way": random.bytes(4)}


def _read(folder: Path, random: np.random.Generator) -> object:
    seed = next(seed for seed in range(len(WAYS)) if random_state(seed) == random.bit_generator.state)
    way = WAYS[seed]
    assert (folder / "way").stat().st_size == 4
    if way == "refused":
        raise DataError("it is damaged")
    if way == "KeyError":
        fail()
    if way == "time":
        end = time.monotonic() + 600
        while time.monotonic() < end:
            time.sleep(0 if seed == BUSY else 600)
    if way == "memory":
        return len(take_memory())
    return os.abort() if way == "crash" else way


def take_memory() -> bytearray:
    """Take a gigabyte and a half, more than a case may."""
    taken = bytearray(3 << 29)
    taken[::4096] = bytes(len(range(0, len(taken), 4096)))  # every page is used
    return taken


def fail() -> NoReturn:
    raise KeyError("a name")


def random_state(seed: int) -> object:
    """The state of the generator of this case when it is read."""
    from tools.fuzz.target import generator

    random = generator(__name__, seed)
    _damage(random)
    return random.bit_generator.state


TARGET = Target(__name__, lambda: {}, _damage, _read)
