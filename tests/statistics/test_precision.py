"""Is the promised exactness kept, and is the forecast right? Over random orders of real and of heavy-tailed data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxnorm
from onnxnorm.cli import main
from onnxnorm.errors import OptionError
from onnxnorm.statistics import Moments
from onnxnorm.statistics.precision import RelativeErrors, error_text, forecast
from onnxnorm.statistics.stopping import LEAST, StoppingMonitor, StoppingRule
from tests.helpers.observations import MODELS, VALUE, Floats, photographs

ORDERS = 20
STEP = 8


def rare_and_skewed() -> Floats:
    """Log-normal means, often 0, with coefficients of variation of 0.3 to 8, as VGG-16's last layer: `(5000, 400)`."""
    rng = np.random.default_rng(1)
    variation = np.exp(rng.uniform(np.log(0.3), np.log(3), 400))
    means = np.exp(rng.standard_normal((5000, 400)) * np.sqrt(np.log1p(variation**2 / 2)))
    return np.asarray(means * (rng.random((5000, 400)) < 1 / (1 + 0.3 * variation**2)))


POPULATIONS = {"photographs": photographs, "rare and skewed": rare_and_skewed}


@pytest.fixture(scope="module", params=POPULATIONS)
def population(request: pytest.FixtureRequest) -> Floats:
    return POPULATIONS[request.param]()


def batches(means: Floats, seed: int) -> Any:
    """Moments after each batch of a random order."""
    order = np.random.default_rng(seed).permutation(len(means))
    total: Moments | None = None
    for start in range(0, len(means), STEP):
        rows = means[order[start : start + STEP]]
        found = Moments.of(rows, rows, np.ones(len(rows)))
        total = found if total is None else total + found
        yield total


@pytest.mark.parametrize("tolerance", [0.1, 0.15, 0.3])
def test_the_interval_that_is_promised_covers_the_mean_of_all(population: Floats, tolerance: float) -> None:
    """Stopped by the rule, `mean ± 2 standard errors` covers in 90 % of filters, over 20 orders together."""
    truth = population.mean(axis=0)
    covered, used = [], []
    for seed in range(ORDERS):
        looks = StoppingMonitor(StoppingRule(tolerance))
        stopped = next(total for total in batches(population, seed) if looks.enough({VALUE: total}))
        live = stopped.live
        covered.append((np.abs(stopped.mean - truth) <= 2 * stopped.standard_error)[live].mean())
        used.append(stopped.images)
        assert np.quantile(stopped.standard_error[live] / stopped.mean[live], 0.95) <= tolerance * 1.01
    assert np.mean(covered) >= 0.9
    needed = (np.quantile(population.std(axis=0)[truth > 0] / truth[truth > 0], 0.95) / tolerance) ** 2
    assert np.mean(used) <= 1.4 * max(needed, LEAST)  # two good looks, each a tenth later, and little more


def test_the_forecast_is_within_half_as_much_again(population: Floats) -> None:
    """After 200 images, against what all of them say."""
    truth = population.mean(axis=0)
    variation = population.std(axis=0, ddof=1)[truth > 0] / truth[truth > 0]
    for seed in range(ORDERS):
        early = next(total for total in batches(population, seed) if total.images >= 200)
        for item in forecast(RelativeErrors.of({VALUE: early})):
            needed = (np.quantile(variation, item.share) / item.tolerance) ** 2
            assert 1 / 1.5 <= item.images / needed <= 1.5, (seed, item)


def test_a_forecast_from_means_that_are_hardly_known_is_rough() -> None:
    """Signed activations that cancel: a filter in ten has a mean that is within a standard error or two of 0."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((200, 100)) + np.where(np.arange(100) < 10, 0.1, 2.0)
    found = forecast(RelativeErrors.of({VALUE: Moments.of(means, means, np.ones(200))}), (0.05,))
    assert [(item.share, item.rough) for item in found] == [(0.5, False), (0.95, True)]
    assert [item.to_json()["rough"] for item in found] == [False, True]


def test_looks_are_rare_and_two_in_a_row_must_be_good() -> None:
    exact = Moments.of(np.ones((LEAST, 1)), np.ones((LEAST, 1)), np.ones(LEAST))
    looks = StoppingMonitor(StoppingRule(0.1))
    assert not looks.enough({VALUE: exact})
    assert not looks.enough({VALUE: exact})  # too early for another look
    more = Moments.of(np.ones((8, 1)), np.ones((8, 1)), np.ones(8))
    assert looks.enough({VALUE: exact + more})
    few = Moments.of(np.ones((4, 1)), np.ones((4, 1)), np.ones(4))
    assert not StoppingRule(0.1).reached({VALUE: few})


def test_dead_filters_and_single_images_have_no_error() -> None:
    means = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]])
    errors = RelativeErrors.of({VALUE: Moments.of(means, means, np.ones(2))})
    np.testing.assert_allclose(errors.relative, [0.5, 0.0])
    assert errors.worst(5) == [(VALUE, 0, pytest.approx(0.5)), (VALUE, 2, 0.0)]
    assert [item.images for item in forecast(errors, (0.25,), (1.0,))] == [8]
    single = RelativeErrors.of({VALUE: Moments.of(means[:1], means[:1], np.ones(1))})
    assert (str(single), forecast(single)) == ("not known from one image; it takes two or more", ())


def test_an_error_far_above_the_mean_is_no_number() -> None:
    """As behind a PRelu, where activations cancel: the per cents of a mean of nearly 0 say nothing."""
    means = np.array([[1.0, 1.0], [3.0, -1.00001]])
    errors = RelativeErrors.of({VALUE: Moments.of(means, np.abs(means), np.ones(2))})
    assert errors.relative.max() > 1e5
    assert str(errors).endswith(", over 1,000% at worst")
    assert [error_text(error) for error in (0.125, 10.0, np.inf, np.nan)] == [
        "12.50%",
        "1000.00%",
        "over 1,000%",
        "unknown",
    ]


def test_bad_rules() -> None:
    for tolerance, share in ((0.0, 0.95), (float("nan"), 0.95), (0.1, 0.0)):
        with pytest.raises(OptionError, match="--tolerance"):
            StoppingRule(tolerance, share)


def test_the_command_says_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.random((900, 3, 64, 64), np.float32) * rng.random((900, 3, 1, 1), np.float32))
    words = ["onnxnorm", "calibrate", str(MODELS / "demo_vgg.onnx"), str(tmp_path / "a.npy"), "--provider", "cpu"]
    words += ["--batch-size", "10"]  # of which the number of images is a multiple when it is told

    def run(*more: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", [*words, "-o", str(tmp_path / "s.safetensors"), *more])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        found = capsys.readouterr()
        return found.out, found.err

    out, err = run("--tolerance", "0.2")
    assert "tolerance 20.00% for 95% of live filters is reached" in out
    assert out.count("least certain") == 5
    out, err = run("--json", "--limit", "450")
    shown = json.loads(out)
    assert shown["images"] == 450
    assert [(item["tolerance"], item["share"]) for item in shown["forecast"]] == [
        (0.05, 0.5),
        (0.05, 0.95),
        (0.01, 0.5),
        (0.01, 0.95),
    ]
    assert all(item["images"] >= 1 for item in shown["forecast"])
    assert len(shown["least_certain"]) == 5
    assert "after 200 images: forecast:" in err
    assert onnxnorm.Statistics.load(tmp_path / "s.safetensors").images == 450
