"""Histograms add up to the same bits however the data are cut, and their percentiles are as exact as they say."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load

from onnxnorm.errors import StatisticsError
from onnxnorm.statistics import Statistics, Value
from onnxnorm.statistics.histograms import SMALLEST, WIDTH, Histogram
from onnxnorm.statistics.moments import Moments
from tests.helpers.statistics import moments_of, rewritten, statistics

Array = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)
PERCENTS = ("0", "1", "50", "90", "99", "99.9", "100")
seeds = st.integers(0, 2**32 - 1)


def numbers(seed: int, rows: int = 3, channels: int = 4, positions: int = 50) -> Array:
    """Heavy-tailed numbers of both signs, many of them 0, some denormal or huge; sizes differ between channels."""
    rng = np.random.default_rng(seed)
    x = rng.standard_cauchy((rows, channels, positions)) * 10.0 ** rng.integers(-15, 15, (channels, 1))
    x[rng.random(x.shape) < 0.3] = 0.0
    x[rng.random(x.shape) < 0.02] = -0.0
    x[rng.random(x.shape) < 0.02] = 1e-44
    x[rng.random(x.shape) < 0.02] = -LARGEST
    return np.asarray(np.clip(x, -LARGEST, LARGEST), np.float32)


def same(a: Histogram, b: Histogram) -> None:
    assert (a.positions, a.start, a.counts.dtype) == (b.positions, b.start, b.counts.dtype)
    np.testing.assert_array_equal(a.counts, b.counts)


def exact(values: Array, percent: str) -> NDArray[np.float64]:
    """From all magnitudes `(rows, channels, positions)` in order; below SMALLEST all is 0."""
    sizes = np.abs(values.astype(np.float64))
    sizes[sizes < SMALLEST] = 0.0
    ordered = np.sort(np.moveaxis(sizes, 1, 0).reshape(sizes.shape[1], -1), axis=1)
    return np.asarray(ordered[:, max(1, math.ceil(ordered.shape[1] * Fraction(percent) / 100)) - 1])


def within(found: NDArray[np.float64], want: NDArray[np.float64], width: float = WIDTH) -> None:
    assert (np.abs(found - want) <= width * want).all(), (found, want)


@given(seeds, st.sampled_from(PERCENTS))
def test_a_percentile_is_within_a_bin_of_the_exact_one(seed: int, percent: str) -> None:
    x = numbers(seed)
    within(Histogram.of(x).percentile(percent), exact(x, percent))


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal", "standard_cauchy"])
def test_of_many_numbers_it_is_far_nearer(draw: str) -> None:
    """An order statistic of a million smooth numbers: interpolation leaves an eighth of the bin."""
    x = np.asarray(getattr(np.random.default_rng(3), draw)(size=(1, 2, 1_000_000)), np.float32)
    found = Histogram.of(x).percentile("99.9")
    within(found, exact(x, "99.9"), WIDTH / 8)
    within(found, np.percentile(np.abs(x), 99.9, axis=(0, 2)).astype(np.float64), WIDTH / 8)


@given(st.lists(seeds, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_sums_are_the_same_bits_in_any_order_and_tree(drawn: list[int], random: Any) -> None:
    parts = [numbers(seed, rows=1 + seed % 3) for seed in drawn]
    whole = Histogram.of(np.concatenate(parts))
    trees = [Histogram.of(part) for part in parts]
    random.shuffle(trees)
    while len(trees) > 1:
        left, right = (trees.pop(random.randrange(len(trees))) for _ in range(2))
        trees.append(left + right)
    same(trees[0], whole)


@given(seeds, st.integers(1, 4000), st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_number_is_counted_in_its_channel(seed: int, positions: int, channels: int, rows: int) -> None:
    """Also where channels are counted in several blocks: against one loop over channels, in other words."""
    x = numbers(seed, rows, channels, positions)
    found = Histogram.of(x)
    assert found.channels == channels
    assert found.positions == rows * positions
    for channel in range(channels):
        sizes = np.abs(x[:, channel]).reshape(-1)
        mantissa, exponent = np.frexp(sizes[sizes >= SMALLEST].astype(np.float64))
        bins = (exponent + 126) * 32 + np.floor((mantissa * 2 - 1) * 32).astype(np.int64)
        want = np.bincount(bins - found.start, minlength=found.counts.shape[1])
        np.testing.assert_array_equal(found.counts[channel], want)
        assert found.zeros[channel] == (sizes < SMALLEST).sum()


def test_any_memory_layout() -> None:
    x = numbers(1, 4, 6, 30)
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1)):
        back = tuple(np.argsort(order))
        same(Histogram.of(np.ascontiguousarray(x.transpose(order)).transpose(back)), Histogram.of(x))
    same(Histogram.of(x[::2]), Histogram.of(x[::2].copy()))


def test_zeros_only() -> None:
    nothing = Histogram.of(np.zeros((2, 3, 5), np.float32))
    assert nothing.counts.shape == (3, 0)
    np.testing.assert_array_equal(nothing.zeros, 10)
    np.testing.assert_array_equal(nothing.percentile("99.9"), 0)
    x = numbers(2, 1, 3)
    both = nothing + Histogram.of(x)
    same(both, Histogram.of(x) + nothing)
    same(both, Histogram.of(np.concatenate([x[..., :5], x[..., 5:10], x[..., 10:]], axis=2)) + nothing)
    same(nothing + nothing, Histogram.of(np.zeros((4, 3, 5), np.float32)))


@pytest.mark.parametrize("value", [SMALLEST, 1.0, np.nextafter(np.float32(1), np.float32(0)), 2.0, 1.03125, LARGEST])
def test_edges_belong_to_the_bin_above(value: float) -> None:
    x = np.full((1, 1, 1), value, np.float32)
    low, high = 0.99999 * value, (1 + WIDTH) * value
    assert low * (1 - WIDTH) < Histogram.of(x).percentile("100")[0] < high


def test_the_rank_is_exact() -> None:
    """0.999 is no binary number: 999 of 1,000 are 99.9 %, and not one more."""
    x = np.ones((1, 1, 1000), np.float32)
    x[0, 0, 0] = 100.0
    assert Histogram.of(x).percentile("99.9")[0] < 1.04
    assert Histogram.of(np.append(x, x[..., :1], axis=2)).percentile("99.9")[0] > 99


@pytest.mark.parametrize("percent", ["1", "50", "99", "99.99"])
def test_percentiles_without_zeros(percent: str) -> None:
    """Against NumPy, for channels with no, some, nearly only, and only zeros."""
    x = np.abs(numbers(7)) + np.float32(0.01)
    x[:, 1, ::2] = 0
    x[:, 2, 1:] = 0
    x[:, 3] = 0
    found = Histogram.of(x).percentile(percent, nonzero=True)
    flat = [x[:, channel][x[:, channel] > 0] for channel in range(x.shape[1])]
    want = [np.quantile(row, float(percent) / 100, method="inverted_cdf") if row.size else 0.0 for row in flat]
    within(found, np.array(want))
    assert found[3] == 0
    assert (found >= Histogram.of(x).percentile(percent) * (1 - WIDTH)).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    x = numbers(0)
    x[1, 2, 3] = bad
    with pytest.raises(OverflowError):
        Histogram.of(x)


def test_counts_of_very_many_numbers() -> None:
    """Past 2^32 positions counts are 64 bits wide, however one got there."""
    x = Histogram.of(np.ones((1, 2, 8), np.float32))
    many = x
    for _ in range(30):
        many += many
    assert many.counts.dtype == np.uint64
    assert many.counts[0].tolist() == [8 << 30]
    within(many.percentile("99.9"), np.ones(2))
    same(many + x, x + many)
    kept = Histogram.widened(many.positions, many.start, many.narrow())
    same(kept, many)


# In statistics


def with_histograms(seed: int = 0, source: str = "a") -> Statistics:
    made = statistics(seed, source)
    value = Value("relu", "mean")
    x = numbers(seed, 40, 5)
    old = made.values[value]
    new = Moments(
        old.images, old.weight, old.weight_squares, old.total, old.square_total, old.squares, old.largest,
        Histogram.of(x),
    )  # fmt: skip
    return Statistics(**{**vars(made), "values": {**made.values, value: new}})


def test_a_file_keeps_them_in_little_space(tmp_path: Path) -> None:
    made = with_histograms()
    made.save(tmp_path / "s")
    loaded = Statistics.load(tmp_path / "s")
    assert list(loaded.histograms) == [Value("relu", "mean")]
    assert loaded.measures == ("max", "p99.9")
    same(loaded.histograms[Value("relu", "mean")], made.histograms[Value("relu", "mean")])
    assert loaded.to_bytes() == made.to_bytes()
    assert load(made.to_bytes())["0.histogram"].dtype == np.uint8


def test_files_without_them_still_load(tmp_path: Path) -> None:
    statistics().save(tmp_path / "s")
    loaded = Statistics.load(tmp_path / "s")
    assert loaded.histograms == {}
    assert loaded.measures == ("max",)
    assert np.isnan(loaded.values[Value("relu", "mean")].percentile("99.9")).all()


def test_merging() -> None:
    merged = with_histograms(0) + with_histograms(1, "b")
    value = Value("relu", "mean")
    both = np.concatenate([numbers(0, 40, 5), numbers(1, 40, 5)])
    same(merged.histograms[value], Histogram.of(both))
    for one, other in ((with_histograms(), statistics(1, "b")), (statistics(1, "b"), with_histograms())):
        with pytest.raises(StatisticsError, match="differ in their percentiles"):
            one + other
    moments = with_histograms().values[value]
    for left, right in ((moments, moments_of()), (moments_of(), moments)):
        with pytest.raises(StatisticsError, match="only one of these statistics has histograms"):
            left + right


HOSTILE: dict[str, Any] = {
    "no counts": lambda header, arrays: arrays.pop("0.histogram"),
    "signed counts": lambda header, arrays: arrays.update({"0.histogram": arrays["0.histogram"].astype(np.int32)}),
    "other channels": lambda header, arrays: arrays.update({"0.histogram": arrays["0.histogram"][:-1].copy()}),
    "one axis": lambda header, arrays: arrays.update({"0.histogram": arrays["0.histogram"].reshape(-1)}),
    "other bins": lambda header, arrays: header["values"][0]["histogram"].update(bits=7),
    "bins beyond float32": lambda header, arrays: header["values"][0]["histogram"].update(start=8000),
    "bins before the first": lambda header, arrays: header["values"][0]["histogram"].update(start=-1),
    "a start that is none": lambda header, arrays: header["values"][0]["histogram"].update(start="here"),
    "more than there were": lambda header, arrays: header["values"][0]["histogram"].update(positions=3),
    "more than can be counted": lambda header, arrays: header["values"][0]["histogram"].update(positions=10**30),
    "no positions": lambda header, arrays: header["values"][0]["histogram"].update(positions=0),
    "another kind": lambda header, arrays: header["values"][0].update(histogram=5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    rewritten(HOSTILE[name], with_histograms())(tmp_path / "s")
    with pytest.raises(StatisticsError, match="is not a statistics file of onnxnorm"):
        Statistics.load(tmp_path / "s")
