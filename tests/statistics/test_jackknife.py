"""How sure forecasts are: the jackknife over blocks of a run, against one put down plainly, and against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.calibration.calibrate import Progress
from onnxnorm.statistics import Moments, Value
from onnxnorm.statistics.jackknife import BLOCKS, Jackknife
from onnxnorm.statistics.precision import SHARES, RelativeErrors, forecast
from tests.helpers.observations import MODELS, VALUE, photographs

Floats = NDArray[np.float64]


def sums(rows: Floats) -> dict[Value, Moments]:
    return {VALUE: Moments.of(rows, rows, np.ones(len(rows)))}


def watched(rows: Floats, step: int, jackknife: Jackknife | None = None) -> Jackknife:
    """The trail of a run over these images, batch by batch."""
    jackknife = jackknife or Jackknife()
    for stop in range(step, len(rows) + 1, step):
        jackknife.watch(sums(rows[:stop]))
    return jackknife


def variation(rows: Floats) -> Floats:
    return np.asarray(2 * np.log(rows.std(axis=0, ddof=1) / np.abs(rows.mean(axis=0))), np.float64)


@pytest.mark.parametrize("images", [80, 160])
def test_blocks_of_one_size_are_the_plain_jackknife(images: int) -> None:
    rows = np.random.default_rng(0).gamma(1.0, size=(images, 30)) ** np.linspace(1, 2, 30)
    jackknife = watched(rows, 8)
    size = jackknife.step
    starts = range(0, images, size)
    left_out = [np.quantile(variation(np.delete(rows, np.s_[at : at + size], axis=0)), SHARES) for at in starts]
    blocks = len(left_out)
    wanted = np.sqrt((blocks - 1) / blocks * ((left_out - np.mean(left_out, axis=0)) ** 2).sum(axis=0))
    # Quantiles between two filters: of errors here, of squared logarithms there.
    np.testing.assert_allclose(list(jackknife.log_standard_errors(sums(rows)).values()), wanted, rtol=0.05)


def test_blocks_of_any_size_agree_with_those_of_one_size() -> None:
    """A block that an earlier run left is larger than the others; the answer is about the same."""
    rows = np.random.default_rng(1).gamma(2.0, size=(400, 200))
    even = watched(rows, 8).log_standard_errors(sums(rows))
    resumed = Jackknife()
    resumed.watch(sums(rows[:120]))
    for stop in range(128, 401, 8):
        resumed.watch(sums(rows[:stop]))
    uneven = resumed.log_standard_errors(sums(rows))
    assert resumed.points[0][0] >= 120
    for share in SHARES:
        assert 0.4 < uneven[share] / even[share] < 2.5


def test_what_is_kept_is_bounded_and_whole() -> None:
    rows = np.random.default_rng(2).gamma(2.0, size=(3000, 3))
    jackknife = Jackknife()
    for stop in range(4, 3001, 4):
        jackknife.watch(sums(rows[:stop]))
        assert len(jackknife.points) <= 2 * BLOCKS
        if stop > 200:
            assert len(jackknife.points) >= BLOCKS - 1
    gaps = np.diff([0, *(images for images, _ in jackknife.points)])
    assert set(gaps.tolist()) == {jackknife.step}


def test_no_histogram_is_kept() -> None:
    """Each is larger than all the rest, and there would be twenty of them."""
    seen: list[Progress] = []
    rows = np.random.default_rng(6).random((96, 3, 64, 64), np.float32)
    onnxnorm.calibrate(MODELS / "demo_vgg.onnx", rows, provider="cpu", measure=("p99.9", "rms"), progress=seen.append)
    assert any(moments.histogram is not None for moments in seen[-1].values.values())
    kept = [moments for _, totals in seen[-1].jackknife.points for moments in totals.values()]
    assert kept
    assert all(moments.histogram is None for moments in kept)


def test_too_few_images_and_no_live_filter_tell_nothing() -> None:
    rows = np.random.default_rng(3).gamma(2.0, size=(200, 3))
    assert watched(rows[:32], 8).log_standard_errors(sums(rows[:32])) == {}
    assert Jackknife().log_standard_errors({}) == {}
    dead = np.zeros((200, 3))
    assert watched(dead, 8).log_standard_errors(sums(dead)) == {}
    assert watched(np.ones((200, 3)), 8).log_standard_errors(sums(np.ones((200, 3)))) == {}


@pytest.mark.parametrize("images", [200, 400])
def test_the_range_covers_what_is_needed(images: int) -> None:
    """Real filters, draws as from any number of images: in at least 90 of 100 runs; 95 are aimed at."""
    population = photographs()
    needed = np.quantile(np.exp(variation(population[:, population.mean(axis=0) > 0])), SHARES)
    hits, widths = [], []
    for seed in range(50):
        rows = population[np.random.default_rng(seed).integers(0, len(population), images)]
        totals = sums(rows)
        found = forecast(
            RelativeErrors.of(totals), (0.05,), log_standard_errors=watched(rows, 8).log_standard_errors(totals)
        )
        for item, truth in zip(found, needed / 0.05**2, strict=True):
            assert item.low is not None
            assert item.high is not None
            assert item.low <= item.images <= item.high
            hits.append(item.low <= truth <= item.high)
            widths.append(item.high / item.images)
    assert np.mean(hits) >= 0.9
    assert np.median(widths) < 1.5  # a range that is always wide would cover, too


def test_a_wide_range_is_rough() -> None:
    errors = RelativeErrors.of(sums(np.random.default_rng(4).gamma(2.0, size=(500, 50))))
    sure = forecast(errors, (0.05,), (0.95,), {0.95: 0.1})[0]
    unsure = forecast(errors, (0.05,), (0.95,), {0.95: 0.2})[0]
    assert (sure.rough, unsure.rough) == (False, True)
    assert sure.high is not None
    assert sure.high / sure.images == pytest.approx(np.exp(0.22), rel=1e-2)
    assert forecast(errors, (0.05,), (0.95,))[0].to_json()["low"] is None


def test_a_run_knows_and_its_file_says_it(tmp_path: Path) -> None:
    """Merged statistics do not, for nobody saw them grow."""
    rows = np.random.default_rng(5).random((96, 3, 64, 64), np.float32)
    parts = [
        onnxnorm.calibrate(MODELS / "demo_vgg.onnx", rows[half], provider="cpu") for half in (slice(48), slice(48, 96))
    ]
    parts[0].save(tmp_path / "s.safetensors")
    again = onnxnorm.Statistics.load(tmp_path / "s.safetensors")
    assert again.log_standard_errors == parts[0].log_standard_errors
    assert set(again.log_standard_errors) == set(SHARES)
    assert onnxnorm.merge(parts).log_standard_errors == {}
