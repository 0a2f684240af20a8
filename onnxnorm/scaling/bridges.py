"""Choosing where to open a graph, so that every filter has a scale of its own, at the least cost.

Slots are the vertices of a graph, and edges that are not opened demand that their two ends agree. The filters' slots,
where they are measured, and the pins are its *terminals*: they must stay independent. Without products this is a
multiway cut, and the rule is Kruskal's: go through the edges from the dearest to the cheapest, and keep each one unless
it would join two terminals; what was not kept is opened. With products, to join means to add a linear equation, and two
terminals are joined if an equation is left in terminals alone. So the same exact elimination decides as in `groups`.
What such an equation says about which terminals does not matter, so one unknown stands for all of them.

Most channels look alike: parts of the graph that are not connected and have the same structure are decided once. One
element of a constant that meets many channels connects them all, so these are decided at the end, when it is known
which of the channels depend on terminals.

That all filters are exact in the end does not rest on this: the opened graph is walked again, and where parts that look
alike were not, all that are not the same in every respect are decided by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from onnxnorm.model.graph import Graph
from onnxnorm.scaling.alike import find_likeness
from onnxnorm.scaling.columns import bundled, distinct_of_each, gathered
from onnxnorm.scaling.elimination import Number, System
from onnxnorm.scaling.filters import Layer, slots_at
from onnxnorm.scaling.groups import tied
from onnxnorm.scaling.openings import Opening, OpenWalk
from onnxnorm.scaling.operators import load_all
from onnxnorm.scaling.slots import ZERO, Ids, distinct, together
from onnxnorm.scaling.walk import Outputs

__all__ = ["Choice", "choose_openings", "cost_of"]

Hashes = NDArray[np.uint64]

_NODE = 20_000  # what one more node costs, in elements that are multiplied
_SHARED = {"constant", "computed"}
_HUB = 24  # edges that meet in a vertex which connects channels that have nothing else in common
_ROUNDS = 4  # how far structure is compared
_TERMINALS = -1  # the unknown that stands for all terminals


def choose_openings(
    graph: Graph, layers: Sequence[Layer], outputs: Outputs = "keep", *, thorough: bool = False, joined: bool = False
) -> tuple[Opening, ...]:
    """Choose where to open a graph so that every filter can have a scale of its own; see `Choice`."""
    return Choice(graph, layers, outputs, joined=joined).choose(thorough=thorough)


class Choice:
    """The slots of an open walk, joined by what cannot be opened, and how to choose what to open.

    Args:
        graph: the graph.
        layers: its layers of filters.
        outputs: "keep" for graph outputs that keep scale 1.
        joined: filters may share their scales, as long as these are free, and have them where their nodes write them.
            Edges of the filters' own values are opened last, and graph inputs are multiplied too.
    """

    def __init__(
        self, graph: Graph, layers: Sequence[Layer], outputs: Outputs = "keep", *, joined: bool = False
    ) -> None:
        load_all()
        walk = OpenWalk(graph, layers, inputs=joined)
        walk.walk(outputs)
        slots = walk.slots
        self.joined = joined
        self.sites = {layer.site.value for layer in walk.layers}
        self.of = tied(slots.count, slots.ties)
        self.count = int(self.of.max()) + 1
        self.pinned = np.zeros(self.count, np.bool_)
        for ids, _ in slots.pins:
            self.pinned[self.of[ids]] = True
        self.terminal = np.zeros(self.count, np.bool_)
        for layer in walk.layers:
            at = slots_at(walk.written if joined else walk.ids, walk.graph, layer.site, layer.channels)
            if at is not None:
                self.terminal[self.of[distinct(at)]] = True
        self.factors = [relation.factors for relation in slots.relations]
        self.relations = [
            (self.of[columns], numbers)
            for columns, numbers in bundled([(k, relation.slots) for k, relation in enumerate(slots.relations)])
        ]
        self.openings = [opening for opening, _, _ in walk.pairs]
        ends, numbers = gathered([(k, np.array(_flat(a, b))) for k, (_, a, b) in enumerate(walk.pairs)])
        held = (ends != ZERO).all(axis=0)
        ends, numbers = self.of[ends[:, held]], numbers[held]
        starts = np.searchsorted(numbers, np.arange(len(self.openings) + 1))
        self.channel = np.full(self.count, self.count)  # the least place that a part has in the slots of an edge
        for side in ends:
            np.minimum.at(self.channel, side, np.arange(len(side)) - starts[numbers])
        used = np.flatnonzero(starts[1:] > starts[:-1]).tolist()
        shared = [k for k in used if self.openings[k].place in _SHARED]
        self.stars: list[tuple[Opening, Ids]] = []
        for k in shared:
            left, right = ends[:, starts[k] : starts[k + 1]]
            opening = self.openings[k]
            self.stars.append((opening, right if opening.place != "computed" else np.append(right, left)))
        self.pairs, self.numbers = distinct_of_each(*_without(shared, ends, numbers))

    def choose(self, *, thorough: bool = False) -> tuple[Opening, ...]:
        """Where to open the graph; `thorough` to tell apart all parts that are not the same in every respect."""
        opened = self._greedy(self._kinds() if thorough else self._representatives())
        return (*opened, *self._shared(opened))

    def _greedy(self, chosen: NDArray[np.bool_]) -> list[Opening]:
        """The openings other than those of shared constants."""
        system = System()
        system.rows.update((part, {}) for part in np.flatnonzero(self.pinned & chosen).tolist())
        terminals = set(np.flatnonzero(self.terminal & chosen & ~self.pinned).tolist())
        for equation in self._equations(chosen):
            system.demand(system.reduced(equation), terminals)
        if not self.joined:  # then what several terminals add up to matters no more than one terminal does
            terminals = _as_one(system, terminals)
        opened = []
        for opening, equal in sorted(self._equal(chosen), key=self._order):
            passes = (False, True) if len(equal) > 1 else (True,)
            if not all(_agree(system, terminals, equal, demand=demand) for demand in passes):
                opened.append(opening)
        return opened

    def _order(self, pair: tuple[Opening, list[tuple[int, int]]]) -> tuple[bool, int]:
        """Edges that are to stay closed come first."""
        return not (self.joined and pair[0].value in self.sites), -cost_of(pair[0])

    def _equations(self, chosen: NDArray[np.bool_]) -> Iterator[dict[int, Number]]:
        """The relations between parts, of those that are chosen, in the order of the walk."""
        rows: list[tuple[int, list[int]]] = []
        for columns, numbers in self.relations:
            kept = chosen[columns].all(axis=0)
            rows += zip(numbers[kept].tolist(), columns[:, kept].T.tolist(), strict=True)
        for number, row in sorted(rows, key=itemgetter(0)):
            equation: dict[int, Number] = {}
            for part, factor in zip(row, self.factors[number], strict=True):
                equation[part] = equation.get(part, 0) + factor
            yield equation

    def _equal(self, chosen: NDArray[np.bool_]) -> list[tuple[Opening, list[tuple[int, int]]]]:
        """The pairs of parts that each opening keeps equal, of those that are chosen."""
        left, right = self.pairs
        here = np.flatnonzero(chosen[left] & chosen[right] & (left != right))
        pairs = list(zip(left[here].tolist(), right[here].tolist(), strict=True))
        some, starts = np.unique(self.numbers[here], return_index=True)
        stops = np.append(starts[1:], len(pairs))[: len(some)]
        parts = zip(some.tolist(), starts.tolist(), stops.tolist(), strict=True)
        return [(self.openings[k], pairs[start:stop]) for k, start, stop in parts]

    def _shared(self, opened: Sequence[Opening]) -> list[Opening]:
        """The shared constants that need more elements, once these places are open."""
        gone = set(opened)
        closed = np.asarray([opening not in gone for opening in self.openings], np.bool_)
        label = tied(self.count, [self.pairs[:, closed[self.numbers]]])
        anchored = np.zeros(int(label.max()) + 1, np.bool_)
        anchored[label[self.terminal | self.pinned]] = True
        for columns, _ in self.relations:
            anchored[label[columns]] = True
        parent = np.arange(len(anchored))
        found = []
        for opening, parts in sorted(self.stars, key=lambda star: -cost_of(star[0])):
            trees = np.unique(parent[label[parts]])
            if anchored[trees].sum() > 1:
                found.append(opening)
                continue
            root = trees[np.argmax(anchored[trees])]
            parent[np.isin(parent, trees)] = root
        return found

    def _kinds(self) -> NDArray[np.bool_]:
        """Marks the first of all connected parts that are the same in every respect, shape `(parts,)`."""
        terminals = np.flatnonzero(self.terminal)
        relations = [(columns, len(self.openings) + numbers) for columns, numbers in self.relations]
        equations = [(terminals[None], np.full_like(terminals, -1)), (self.pairs, self.numbers), *relations]
        return np.asarray(find_likeness(self.pinned, equations).chosen | self.pinned, np.bool_)

    def _representatives(self) -> NDArray[np.bool_]:
        """Marks two of all connected parts of the same structure, those of the first channels, shape `(parts,)`.

        Pins connect nothing. Vertices that many edges meet connect all channels, so they do not count as connections
        either; where two terminals meet in one of them, two like parts show it. All these are marked.
        """
        color = _mixed(self.terminal.astype(np.uint64) * np.uint64(2) + self.pinned.astype(np.uint64) + np.uint64(7))
        edges = [(self.pairs, self.numbers), *((columns, -1 - numbers) for columns, numbers in self.relations)]
        bundles = [(_mixed(numbers.view(np.uint64)), columns) for columns, numbers in edges]
        for _ in range(_ROUNDS):
            more = np.zeros_like(color)
            for names, columns in bundles:
                marks = _mixed(names * np.arange(1, len(columns) + 1, dtype=np.uint64)[:, None])
                whole = _mixed(color[columns] + marks).sum(axis=0, dtype=np.uint64)
                np.add.at(more, columns.reshape(-1), _mixed(whole + marks).reshape(-1))
            color = _mixed(color + more)
        ends = np.concatenate([columns.reshape(-1) for columns, _ in edges])
        hub = (np.bincount(ends, minlength=self.count) > _HUB) | self.pinned
        ties = [columns[[0, row]] for columns, _ in edges for row in range(1, len(columns))]
        label = tied(self.count, [pairs[:, ~hub[pairs].any(axis=0)] for pairs in ties])
        total = np.zeros(int(label.max()) + 1, np.uint64)
        np.add.at(total, label, color)
        channel = np.full(len(total), self.count)
        np.minimum.at(channel, label, self.channel)
        order = np.lexsort((channel, total))
        third = np.zeros(len(total), np.bool_)
        third[2:] = total[order[2:]] == total[order[:-2]]
        chosen = np.ones(len(total), np.bool_)
        chosen[order[third]] = False
        return np.asarray(chosen[label] | hub, np.bool_)


def _as_one(system: System, terminals: set[int]) -> set[int]:
    """Replace all terminals by multiples of one unknown, so that rows stay short; returns that unknown.

    Whether terminals alone are left in a row is all that matters from here on, and whether they cancel out. Multiples
    are hashes of 62 bits, so that what does not cancel out does so by chance once in 2^62 times or less.
    """
    unknown = sorted(terminals - system.rows.keys())
    weights = _mixed(np.asarray(unknown, np.uint64)) >> np.uint64(2)
    for terminal, weight in zip(unknown, weights.tolist(), strict=True):
        system.determine(terminal, {_TERMINALS: weight})
    return {_TERMINALS}


def _agree(system: System, terminals: set[int], equal: list[tuple[int, int]], *, demand: bool) -> bool:
    """Whether pairs can agree without an equation in one terminal alone; with `demand` they do, as far."""
    for p, q in equal:
        row = system.difference(p, q)
        if not row:
            continue
        if len(row) == 1 and not terminals.isdisjoint(row):
            return False
        if demand:
            system.demand(row, terminals)
    return True


def cost_of(opening: Opening) -> int:
    """What it costs to open a place, in elements that are multiplied."""
    return opening.elements + _NODE if opening.elements else 0


def _flat(a: Ids, b: Ids) -> list[Ids]:
    return [ids.reshape(-1) for ids in together(a, b)]


def _without(some: Sequence[int], columns: Ids, numbers: Ids) -> tuple[Ids, Ids]:
    """Numbered columns without those of some numbers."""
    kept = ~np.isin(numbers, some)
    return columns[:, kept], numbers[kept]


def _mixed(values: Hashes) -> Hashes:
    """Hashes of 64 bits: the finalizer of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        z = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)
