"""Records which images were measured, so that none is counted twice when statistics are merged.

A source is one DATA: the digest of its files' names and sizes, their order, and the shards of it that were measured.
The shards I/N and J/M of one source have no index in common unless I = J modulo gcd(N, M).

Different sources can share files too. Therefore each source has the fingerprints of its files, two hashes for each
file: one of its name and size, one of parts of its content. A source of more than `KEPT` files has only the
fingerprints with the smallest first hashes (a bottom-k sketch). These are a random sample that selects the same files
in every source: if two equally large sources have a share p of their files in common, so do their fingerprints, and the
probability that no common file is noticed is (1 - p)^`KEPT`.

Source: bottom-k sketches; Cohen and Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxnorm.errors import StatisticsError

__all__ = ["KEPT", "Prints", "Source", "joined_prints", "joined_sources"]

KEPT = 16384

Prints = NDArray[np.uint64]
"""Fingerprints of files, shape `(files, 2)`, ascending by the first hash."""

Source = Mapping[str, Any]
"""The keys are `files`, `bytes`, `digest`, `order`, and `shards`, a list of `"I/N"`."""


def joined_sources(
    mine: Sequence[Source], theirs: Sequence[Source], my_prints: Mapping[str, Prints], prints: Mapping[str, Prints]
) -> list[Source]:
    """Return the sources of two statistics together, one entry for each DATA.

    Args:
        mine: the sources of the first statistics.
        theirs: the sources of the second statistics.
        my_prints: fingerprints of the first statistics, by the digest of their source.
        prints: fingerprints of the second statistics, by the digest of their source.

    Raises:
        StatisticsError: if an image may be in both.
    """
    joined = list(mine)
    for source in theirs:
        for index, known in enumerate(mine):
            if _same_order(source, known):
                shared = [(one, other) for one in _shards(source) for other in _shards(known) if _overlap(one, other)]
                if not shared:
                    joined[index] = {**joined[index], "shards": [*_shards(joined[index]), *_shards(source)]}
                    break
                if _may_share(source, known, my_prints, prints):
                    which = "" if shared[0] == ("0/1", "0/1") else f" (shards {shared[0][1]} and {shared[0][0]})"
                    raise _twice(source, f"are in more than one of the statistics{which}")
            elif _may_share(source, known, my_prints, prints):
                raise _twice(source, f"are in part also among the {known.get('files', 'other')} files of another one")
        else:
            joined.append(source)
    return joined


def joined_prints(mine: Mapping[str, Prints], theirs: Mapping[str, Prints]) -> dict[str, Prints]:
    """Return the fingerprints of both, by the digest of their source, at most `KEPT` for each."""
    joined = dict(mine)
    for digest, prints in theirs.items():
        both = np.concatenate([joined[digest], prints]) if digest in joined else prints
        joined[digest] = np.unique(both, axis=0)[:KEPT]
    return joined


def _same_order(one: Source, other: Source) -> bool:
    return bool(one.get("digest") == other.get("digest") and one.get("order") == other.get("order"))


def _shards(source: Source) -> list[str]:
    return list(source.get("shards", ["0/1"]))


def _overlap(one: str, other: str) -> bool:
    (i, n), (j, m) = (tuple(map(int, shard.split("/"))) for shard in (one, other))
    return (i - j) % math.gcd(n, m) == 0


def _may_share(one: Source, other: Source, first: Mapping[str, Prints], second: Mapping[str, Prints]) -> bool:
    """Whether the sources may have a file in common, by their fingerprints, or by their digests if there are none."""
    mine, theirs = first.get(other.get("digest", "")), second.get(one.get("digest", ""))
    if mine is None or theirs is None:
        return bool(one.get("digest") == other.get("digest"))
    known = set(map(tuple, mine.tolist()))
    return any(tuple(row) in known for row in theirs.tolist())


def _twice(source: Source, where: str) -> StatisticsError:
    return StatisticsError(
        f"images would be counted twice: the {source.get('files', '?')} files with digest "
        f"{str(source.get('digest'))[:19]} {where}; merge statistics of different images or shards"
    )
