"""Random damage to bytes and to JSON values, for all targets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = ["ODD_INTEGERS", "ODD_TEXTS", "damage_bytes", "damage_json", "pick"]

T = TypeVar("T")

ODD_INTEGERS = (
    *(-1, 0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 65535, 65536),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63)),
)
ODD_TEXTS = ("", " ", "x", "0", "-1", "nan", "../x", "/", "a\x00b", "\n", "é", "\U0001f600", "\x1b[31m", "n" * 300)
_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    {"": 0},
    10**40,
)
_WIDTHS = (1, 2, 4, 8)


def pick(random: np.random.Generator, items: Sequence[T]) -> T:
    """Return one of the items."""
    return items[int(random.integers(len(items)))]


def damage_bytes(random: np.random.Generator, data: bytes, most: int = 4) -> bytes:
    """Return the bytes with 1 to `most` changes: bits, numbers, pieces removed, repeated, inserted."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, most + 1))):
        _change(random, changed)
    return bytes(changed)


def _change(random: np.random.Generator, data: bytearray) -> None:
    at = int(random.integers(len(data) + 1))
    length = int(min(random.geometric(0.1), 64))
    kind = int(random.integers(7))
    if kind == 0 and at < len(data):
        data[at] ^= 1 << int(random.integers(8))
    elif kind == 1 and at < len(data):
        data[at] = int(random.integers(256))
    elif kind == 2:
        width = pick(random, _WIDTHS)
        number = pick(random, ODD_INTEGERS) % (1 << (8 * width))
        data[at : at + width] = number.to_bytes(width, "big" if random.integers(2) else "little")
    elif kind == 3:
        del data[at : at + length]
    elif kind == 4:
        data[at:at] = data[at : at + length]
    elif kind == 5:
        data[at:at] = random.bytes(length)
    elif random.integers(4) == 0:
        del data[at:]


def damage_json(random: np.random.Generator, value: Any, most: int = 3) -> Any:
    """Return a copy of a JSON value with 1 to `most` changes anywhere in it."""
    changed = [copy.deepcopy(value)]
    for _ in range(int(random.integers(1, most + 1))):
        _change_json(random, changed)
    return changed[0]


def _change_json(random: np.random.Generator, root: list[Any]) -> None:
    places = list(_places(root))
    container, key = pick(random, places)
    kind = int(random.integers(6))
    if kind == 0 and container is not root:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[pick(random, ODD_TEXTS)] = container.pop(key)
    elif kind == 2 and isinstance(container, list) and container is not root:
        container.append(copy.deepcopy(container[key]))
    elif kind == 3:
        other, name = pick(random, places)
        container[key] = copy.deepcopy(other[name])
    else:
        container[key] = _odd(random)


def _odd(random: np.random.Generator) -> Any:
    kind = int(random.integers(3))
    return copy.deepcopy(pick(random, (ODD_INTEGERS, ODD_TEXTS, _ODD_VALUES)[kind]))


def _places(container: Any) -> Any:
    """Yield each place in a JSON value as its container and its key or index there."""
    for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
        yield container, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
