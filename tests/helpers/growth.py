"""A network while it grows, node by node, for random graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from onnx import TensorProto

from tests.corpus import Net

INF = float("inf")


@dataclass(frozen=True)
class Val:
    """A value `(N, channels, height, width)`."""

    name: str
    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass
class Growth:
    """A network while it grows.

    Attributes:
        draw: hypothesis' choices.
        net: the network.
        fixed: whether heights and widths are always the same.
        values: all values, the newest first.
        read: names of those that are read.
        pool: the constants that may be shared.
        products: how many products of activations there are.
    """

    draw: Callable[[st.SearchStrategy[Any]], Any]
    net: Net
    fixed: bool = True
    values: list[Val] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    pool: dict[tuple[object, ...], list[str]] = field(default_factory=dict)
    products: int = 0

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def pick(self, fits: Callable[[Val], bool] = lambda _: True) -> Val | None:
        """A value that fits, new ones and unread ones first."""
        found = [value for value in self.values if fits(value)]
        found.sort(key=lambda value: value.name in self.read)
        return found[min(self.integer(0, 7), len(found) - 1)] if found else None

    def shared(self, key: tuple[object, ...], make: Callable[[], str]) -> str:
        """A constant of a kind; one time in four one that exists."""
        known = self.pool.setdefault(key, [])
        if known and self.integer(0, 3) == 0:
            return str(self.one(*known))
        known.append(make())
        return known[-1]

    def add(self, name: str, channels: int, height: int, width: int) -> Val:
        value = Val(name, channels, height, width)
        self.values.insert(0, value)
        return value

    def op(self, kind: str, *inputs: Val | str, **attributes: Any) -> str:
        names = [item.name if isinstance(item, Val) else item for item in inputs]
        self.read.update(names)
        return self.net.op(kind, *names, **attributes)

    def like(self, value: Val, kind: str, *inputs: Val | str, **attributes: Any) -> Val:
        """An operator whose output has the shape of `value`."""
        return self.add(self.op(kind, *inputs, **attributes), value.channels, value.height, value.width)

    def shape_of(self, value: Val, channels: int) -> str:
        """The shape of a value, with other channels, as the target of a Reshape."""
        if self.fixed and self.integer(0, 1):
            return self.net.ints(0, channels, *value.size)
        net = self.net
        return net.op("Concat", net.ints(0, channels), net.op("Shape", value.name, start=2), axis=0)

    def weight(self, *shape: int) -> str:
        """Weights; one time in five they are computed from other constants."""
        computed = self.integer(0, 4) == 0
        return self.shared(("w", *shape), lambda: self._computed(shape) if computed else self.net.weight(*shape))

    def _computed(self, shape: tuple[int, ...]) -> str:
        net = self.net
        kind = self.one("per filter", "number", "Div", "Reshape", "Transpose", "double", "bfloat16", "norm")
        if kind == "Reshape":
            return net.op(kind, net.weight(shape[0] * shape[1], *shape[2:]), net.ints(*shape))
        if kind == "Transpose":
            return net.op(kind, net.weight(*shape[::-1]), perm=list(range(len(shape)))[::-1])
        if kind in {"double", "bfloat16"}:
            dtype = TensorProto.DOUBLE if kind == "double" else TensorProto.BFLOAT16
            return net.op("Cast", net.weight(*shape, dtype=dtype), to=TensorProto.FLOAT)
        weight = net.weight(*shape)
        if kind == "number":
            return net.op("Mul", net.const(0.5), weight)
        each = net.const(net.random.uniform(0.5, 1.5, (shape[0], *(1,) * (len(shape) - 1))))
        if kind == "norm":
            length = net.op("ReduceL2", weight, net.ints(*range(1, len(shape))))
            return net.op("Mul", net.op("Div", weight, length), each)
        return net.op("Div" if kind == "Div" else "Mul", weight, each)

    def vector(self, *shape: int) -> str:
        return self.shared(("b", *shape), lambda: self.net.const(self.net.random.uniform(-0.5, 1, shape)))

    def positive(self, *shape: int) -> str:
        return self.shared(("p", *shape), lambda: self.net.const(self.net.random.uniform(0.5, 1.5, shape)))

    def number(self, value: float) -> str:
        return self.shared(("n", value), lambda: self.net.const(value))
