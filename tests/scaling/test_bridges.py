"""Where graphs are opened: every filter gets a scale of its own, at a cost that is compared with the least one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx
import pytest

from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.model.shapes import read_graph, sample_shapes
from onnxnorm.rewriting.opened import opened
from onnxnorm.scaling import choose_openings, find_layers, trace
from onnxnorm.scaling.bridges import cost_of
from onnxnorm.scaling.freedom import count_exact
from onnxnorm.scaling.openings import Opening, OpenWalk
from tests.corpus import CASES
from tests.helpers.graphs import between, model, rand


def openings_of(proto: onnx.ModelProto) -> tuple[Opening, ...]:
    original = Model.open(proto)
    graph = read_graph(original, sample_shapes(input_specs(original), (16, 16)))
    return choose_openings(graph, find_layers(trace(graph), "conv"))


def exact_with(proto: onnx.ModelProto, openings: list[Opening] | tuple[Opening, ...]) -> tuple[int, int]:
    """How many filters have a scale of their own with these places open, and how many there are."""
    original = Model.open(proto)
    shapes = sample_shapes(input_specs(original), (16, 16))
    graph = read_graph(original, shapes)
    layers = find_layers(trace(graph, level="nodes"), "conv")
    subject = opened(graph, original, shapes, layers, openings, "keep")
    return count_exact(subject.trace, subject.layers), sum(layer.channels for layer in layers)


def places(proto: onnx.ModelProto) -> list[str]:
    """The openings, but for the one of the output, which every network here needs for the filters of its last layer."""
    return sorted(f"{opening.place} {opening.value}" for opening in openings_of(proto) if opening.place != "output")


def test_a_chain_needs_nothing() -> None:
    assert places(between("r = Relu(a) \n b = MaxPool<kernel_shape=[2,2]>(r)")) == []


def test_a_residual_block_needs_one_bridge() -> None:
    body = """
        a = Conv(x, w) \n r = Relu(a) \n c = Conv<pads=[1,1,1,1]>(r, w2) \n s = Add(c, r) \n t = Relu(s)
        z = Conv(t, v)
    """
    constants = {"w": rand(4, 3, 3, 3), "w2": rand(4, 4, 3, 3), "v": rand(2, 4, 1, 1)}
    proto = model(body + "\n y = Sigmoid(z)", {"x": ("n", 3, 8, 8)}, constants, ("y",))
    assert places(proto) == ["behind t", "behind y"]  # behind the joined value, and behind the Sigmoid at the end
    assert exact_with(proto, openings_of(proto)) == (10, 10)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("s = Sigmoid(a) \n b = Mul(a, s)", 1),
        ("b = HardSwish(a)", 1),
        ("b = Gelu(a)", 1),
        ("t = Softplus(a) \n u = Tanh(t) \n b = Mul(a, u)", 1),
    ],
)
def test_activations_need_one_bridge(body: str, wanted: int) -> None:
    proto = between(body)
    assert len(places(proto)) == wanted
    exact, filters = exact_with(proto, openings_of(proto))
    assert exact == filters


def test_constants_of_one_element_get_more_and_no_node() -> None:
    proto = between("p = Add(a, three) \n b = Relu(p)", constants={"three": np.float32(3)})
    assert places(proto) == ["constant three"]
    exact, filters = exact_with(proto, openings_of(proto))
    assert exact == filters


def test_a_clip_keeps_its_bounds_and_is_multiplied() -> None:
    proto = between("b = Clip(a, lo, hi)", constants={"lo": np.float32(0), "hi": np.float32(6)})
    assert places(proto) == ["behind b"]
    exact, filters = exact_with(proto, openings_of(proto))
    assert exact == filters


def test_a_hard_swish_by_hand_needs_no_node() -> None:
    """What it is divided by is one number per channel then, where the filter is measured."""
    body = "p = Add(a, three) \n q = Clip(p, lo, six) \n m = Mul(a, q) \n b = Div(m, six)"
    constants = {"three": np.float32(3), "lo": np.float32(0), "six": np.float32(6)}
    proto = between(body, constants=constants)
    assert places(proto) == ["constant six"]
    exact, filters = exact_with(proto, openings_of(proto))
    assert exact == filters


def test_unknown_operators_are_surrounded() -> None:
    proto = between("s = Sin(a) \n c = Conv(s, w2) \n r = Relu(c) \n b = Sin(r)", constants={"w2": rand(4, 4, 1, 1)})
    exact, filters = exact_with(proto, openings_of(proto))
    assert exact == filters


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.runs and case.filters == "conv"])
def test_every_filter_of_the_corpus(name: str) -> None:
    proto = CASES[name].build()
    original = Model.open(proto)
    shapes = sample_shapes(input_specs(original), (16, 16))
    graph = read_graph(original, shapes)
    layers = find_layers(trace(graph, level="nodes"), "conv")
    subject = opened(graph, original, shapes, layers, choose_openings(graph, layers), "keep")
    free = sum(int((~subject.trace.groups.is_pinned(layer.slots)).sum()) for layer in subject.layers)
    filters = sum(layer.channels for layer in layers)
    assert count_exact(subject.trace, subject.layers) == free
    assert (free == filters) is (name not in KEPT)


# Values of unknown shape, to which nobody knows what to multiply.
KEPT = {"custom_domain_of_unknown_shape", "convolutions_of_unknown_shape"}


def least_cost(proto: onnx.ModelProto, most: int = 12) -> tuple[int, int] | None:
    """The cost that was chosen, and the least of all sets that free every filter; None if there are too many sets."""
    original = Model.open(proto)
    graph = read_graph(original, sample_shapes(input_specs(original), (16, 16)))
    layers = find_layers(trace(graph, level="nodes"), "conv")
    walk = OpenWalk(graph, layers)
    walk.walk("keep")
    found = choose_openings(graph, layers)
    candidates = list(dict.fromkeys(opening for opening, a, b in walk.pairs if np.asarray(a).size))
    priced = [opening for opening in candidates if cost_of(opening)]
    free = [opening for opening in candidates if not cost_of(opening)]
    if not found or len(priced) > most:
        return None
    everything = exact_with(proto, candidates)[0]
    chosen = sum(map(cost_of, found))
    best = chosen
    for count in range(len(found) + 1):
        for some in combinations(priced, count):
            cost = sum(map(cost_of, some))
            if cost < best and exact_with(proto, [*some, *free])[0] == everything:
                best = cost
    return chosen, best


def small_network(seed: int) -> onnx.ModelProto:
    """A few convolutions, activations, joins and gates in random order."""
    generator = np.random.default_rng(seed)
    lines, constants, values = ["v0 = Conv<pads=[1,1,1,1]>(x, w0)"], {"w0": rand(2, 3, 3, 3)}, ["v0"]
    for k in range(1, int(generator.integers(3, 6))):
        a, b = (values[int(index)] for index in generator.integers(max(len(values) - 2, 0), len(values), 2))
        kind = generator.choice(["conv", "Relu", "Add", "Mul", "Sigmoid", "pool", "Neg"])
        if kind == "conv":
            constants[f"w{k}"] = rand(2, 2, 3, 3, seed=k)
            lines.append(f"v{k} = Conv<pads=[1,1,1,1]>({a}, w{k})")
        elif kind == "pool":
            lines.append(f"v{k} = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({a})")
        else:
            lines.append(f"v{k} = {kind}({a}, {b})" if kind in {"Add", "Mul"} else f"v{k} = {kind}({a})")
        values.append(f"v{k}")
    return model("\n".join(lines), {"x": ("n", 3, 8, 8)}, constants, (values[-1],))


def test_the_cost_against_the_least() -> None:
    """Brute force over small random networks: nearly always the least cost, and never far from it."""
    costs = [cost for cost in (least_cost(small_network(seed)) for seed in range(60)) if cost is not None]
    assert len(costs) >= 20
    assert sum(chosen == best for chosen, best in costs) >= 0.8 * len(costs)
    assert max(chosen / best for chosen, best in costs if best) <= 2


def grouped_network(channels: int = 48) -> onnx.ModelProto:
    """Residual blocks with a GroupNormalization that is written out: it ties all channels of a stream."""
    body = """
        c = Conv<pads=[1,1,1,1]>(x, w0) \n r = Reshape(c, groups) \n i = InstanceNormalization(r, ones, zeros)
        s = Reshape(i, back) \n m = Mul(s, gamma) \n n = Add(m, beta) \n g = Sigmoid(n) \n a = Mul(n, g)
        d = Conv<pads=[1,1,1,1]>(a, w1) \n t = Add(c, d) \n e = Conv<pads=[1,1,1,1]>(t, w2) \n z = Concat<axis=1>(e, c)
    """
    constants = {
        "w0": rand(channels, 3, 3, 3), "w1": rand(channels, channels, 3, 3), "w2": rand(channels, channels, 3, 3),
        "groups": [0, 4, -1], "back": [0, channels, 8, 8], "ones": np.ones(4, np.float32),
        "zeros": np.zeros(4, np.float32), "gamma": rand(channels, 1, 1), "beta": rand(channels, 1, 1),
    }  # fmt: skip
    return model(body, {"x": ("n", 3, 8, 8)}, constants)


def test_parts_that_look_alike_are_decided_alike() -> None:
    """Deciding two of all parts that look alike costs what deciding each by itself does."""
    networks = [grouped_network(), *(small_network(seed) for seed in range(40))]
    networks += [case.build() for case in CASES.values() if case.runs and case.filters == "conv"]
    for proto in networks:
        original = Model.open(proto)
        graph = read_graph(original, sample_shapes(input_specs(original), (16, 16)))
        layers = find_layers(trace(graph), "conv")
        few, all_parts = (choose_openings(graph, layers, thorough=thorough) for thorough in (False, True))
        assert sum(map(cost_of, few)) == sum(map(cost_of, all_parts))


def test_a_normalization_that_ties_a_stream() -> None:
    proto = grouped_network()
    exact, filters = exact_with(proto, openings_of(proto))
    assert exact == filters
