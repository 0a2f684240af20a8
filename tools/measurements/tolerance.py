"""Measure what `--tolerance` promises and what the forecast says, over random orders of photographs.

    python -m tools.measurements.tolerance MODEL PHOTOS [--preset caffe] [--crops 8] [--cache FILE]

Every filter's mean on every photograph is measured once, by the library's own probe; `--crops` takes that many random
square regions of each, half of them mirrored, in place of the whole. Then the rule that stops calibration runs over
random orders. *Orders* are permutations: what was measured is part of what it is compared with, which helps as soon
as it is a good part. *Draws* are with replacement, as from an unlimited supply of such photographs.
Prints tables and one line per claim, and exits with 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnxnorm.calibration.options import CalibrationOptions
from onnxnorm.calibration.probe_session import ProbeSession
from onnxnorm.calibration.step import prepare
from onnxnorm.data.batches import Batch
from onnxnorm.data.images.choosing import preprocessing_for
from onnxnorm.data.images.decoding import read_image
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.runtime import Runtime
from onnxnorm.statistics import Moments, Value
from onnxnorm.statistics.jackknife import Jackknife
from onnxnorm.statistics.precision import Forecast, RelativeErrors, forecast
from onnxnorm.statistics.stopping import StoppingMonitor, StoppingRule

Floats = NDArray[np.float64]
Means = dict[Value, Floats]

BATCH = 8
COVERAGE = 0.9
FACTOR = 1.5
FORECASTS_AT = (100, 200, 400, 1600)
TOLD_AT = 200
LONGEST = 20  # times as many draws as there are images


@dataclass
class Stops:
    """Where one rule stopped: how many images, and which live filters `mean ± 2 standard errors` covered."""

    used: list[int] = field(default_factory=list)
    covered: list[Floats] = field(default_factory=list)


Rules = dict[tuple[float, float], Stops]  # by share and tolerance
Told = dict[tuple[int, float], list[tuple[float, Forecast]]]  # by images and share: needed, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--preset", default="unit")
    parser.add_argument("--size", help="HxW, where the model leaves it open")
    parser.add_argument("--crops", type=int, default=0, help="random regions of each photograph; 0: the whole")
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.1, 0.15, 0.2, 0.3])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.95])
    parser.add_argument("--cache", type=Path, help=".npz file that keeps what was measured")
    given = parser.parse_args()
    means = cached(given)
    everything = np.concatenate(list(means.values()), axis=1)
    alive = np.concatenate([whole(found).live for found in means.values()])
    variation = everything.std(axis=0, ddof=1)[alive] / np.abs(everything.mean(axis=0)[alive])
    independent = participation(everything[:, alive])
    print(f"{len(everything):,} images, {alive.sum():,} live filters that vary as {independent:.1f} independent ones")
    quantiles = ", ".join(f"{np.quantile(variation, q):.2f} at {q:.0%}" for q in (0.5, 0.95, 1.0))
    print(f"coefficient of variation: {quantiles}\n")
    claims = [check(given, means, variation, replace) for replace in (False, True)]
    return 0 if all(claims) else 1


def check(given: argparse.Namespace, means: Means, variation: Floats, replace: bool) -> bool:
    """All tables, for orders or for draws, and whether the claims hold."""
    kind = "draws" if replace else "orders"
    rules = list(product(given.shares, given.tolerances))
    stops = {rule: Stops() for rule in rules}
    told: Told = {}
    for seed in range(given.orders):
        simulate(means, seed, replace, stops, told, variation)
    print(f"| {kind}: share | tolerance | images needed | used: median (range) | covered | least {kind[:-1]} |", end="")
    print(f" median {kind[:-1]} | filters covered in 90 % of {kind} |\n|---|" + "---:|" * 7)
    good = True
    for (share, tolerance), stop in stops.items():
        needed = (np.quantile(variation, share) / tolerance) ** 2
        if len(stop.used) < given.orders:
            ended = f"{given.orders - len(stop.used)} of {given.orders} {kind} end before"
            print(f"| {share:.0%} | {tolerance:.0%} | {needed:,.0f} | {ended} | | | | |")
            continue
        hits = np.array(stop.covered)
        hits = hits[:, ~np.isnan(hits).all(axis=0)]
        each = np.nanmean(hits, axis=1)
        often = np.mean(np.nanmean(hits, axis=0) >= COVERAGE - 1e-9)
        used = f"{np.median(stop.used):,.0f} ({min(stop.used):,} to {max(stop.used):,})"
        print(f"| {share:.0%} | {tolerance:.0%} | {needed:,.0f} | {used} | {np.nanmean(hits):.1%} ", end="")
        print(f"| {each.min():.1%} | {np.median(each):.1%} | {often:.1%} |")
        good &= bool(np.nanmean(hits) >= COVERAGE)
    print(f"\n[{'ok' if good else 'NO'}] {kind}: the interval covers at least {COVERAGE:.0%} of filters")
    return check_forecasts(kind, told) and good


def check_forecasts(kind: str, told: Told) -> bool:
    """The table of forecasts, and whether the claims about them hold."""
    print(f"\n| {kind}: forecast after | share | forecast / needed: least | median | most | rough |", end="")
    print(" range: median, as a factor | covers |\n|---:|---|" + "---:|" * 6)
    firm, covers, count = list[float](), list[bool](), 0
    for (images, share), found in sorted(told.items()):
        ratios = [item.images / needed for needed, item in found]
        hits = [item.low <= needed <= item.high for needed, item in found if item.low and item.high]
        widths = [item.high / item.images for _, item in found if item.high]
        print(f"| {images} | {share:.0%} | {min(ratios):.2f} | {np.median(ratios):.2f} | {max(ratios):.2f} ", end="")
        print(f"| {sum(item.rough for _, item in found)} of {len(found)} ", end="")
        print(f"| {np.median(widths):.2f} | {np.mean(hits):.0%} |")
        covers += hits
        if images == TOLD_AT:
            count += len(found)
            firm += [ratio for ratio, (_, item) in zip(ratios, found, strict=True) if not item.rough]
    close = all(1 / FACTOR <= ratio <= FACTOR for ratio in firm)
    verdict = ("ok" if close else "NO") if firm else "not measured"
    print(f"\n[{verdict}] {kind}: forecasts after {TOLD_AT} are within a factor of {FACTOR}", end="")
    print(f" ({len(firm)} of {count}; the others are called rough)")
    wide = bool(np.mean(covers) >= COVERAGE)
    print(f"[{'ok' if wide else 'NO'}] {kind}: ranges cover what is needed in {np.mean(covers):.0%}, at least", end="")
    print(f" {COVERAGE:.0%}\n", flush=True)
    return close and wide


def simulate(
    means: Means,
    seed: int,
    replace: bool,
    stops: Rules,
    told: Told,
    variation: Floats,
) -> None:
    """One order: all rules look at the same moments, as calibration's engine would, until they have stopped."""
    truth = {value: whole(found) for value, found in means.items()}
    looks = {(share, tolerance): StoppingMonitor(StoppingRule(tolerance, share)) for share, tolerance in stops}
    ahead, jackknife = list(FORECASTS_AT), Jackknife()
    for totals in batches(means, seed, replace):
        images = next(iter(totals.values())).images
        jackknife.watch(totals)
        if ahead and images >= ahead[0]:
            for item in forecast(
                RelativeErrors.of(totals), (0.01,), log_standard_errors=jackknife.log_standard_errors(totals)
            ):
                needed = (np.quantile(variation, item.share) / item.tolerance) ** 2
                told.setdefault((ahead[0], item.share), []).append((needed, item))
            del ahead[0]
        for rule in [rule for rule, look in looks.items() if look.enough(totals)]:
            del looks[rule]
            stops[rule].used.append(images)
            stops[rule].covered.append(np.concatenate([covered(totals[v], truth[v]) for v in totals]))
        if not looks and not ahead:
            return


def covered(stopped: Moments, truth: Moments) -> Floats:
    """Whether the interval covers the mean of all, 1 or 0 per filter; NaN where the filter is not live."""
    hit = np.abs(stopped.mean - truth.mean) <= 2 * stopped.standard_error
    return np.where(stopped.live & truth.live, hit, np.nan)


def batches(means: Means, seed: int, replace: bool) -> Iterator[dict[Value, Moments]]:
    """Moments after each batch of a random order; a permutation ends before all have been seen."""
    rng = np.random.default_rng(seed)
    count = len(next(iter(means.values())))
    order = rng.integers(0, count, LONGEST * count) if replace else rng.permutation(count)
    totals: dict[Value, Moments] = {}
    for start in range(0, len(order) - BATCH, BATCH):
        rows = order[start : start + BATCH]
        found = {value: whole(table[rows]) for value, table in means.items()}
        totals = {value: totals[value] + found[value] for value in found} if totals else found
        yield totals


def whole(rows: Floats) -> Moments:
    return Moments.of(rows, rows, np.ones(len(rows)))


def participation(rows: Floats) -> float:
    """How many independent filters vary as these do: (sum of eigenvalues)² / sum of squares, of the correlations."""
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    gram = standard @ standard.T
    return float(np.trace(gram) ** 2 / np.sum(gram**2))


def cached(given: argparse.Namespace) -> Means:
    """What `measured` finds, from the cache where that belongs to the same model, photographs and options."""
    recipe = f"{given.model.name} {given.preset} {given.size} {given.crops} {len(photographs(given.photos))}"
    if given.cache is not None and given.cache.exists():
        with np.load(given.cache) as stored:
            if str(stored["recipe"]) == recipe:
                keys = [Value(*key) for key in stored["values"]]
                return {value: stored[str(index)] for index, value in enumerate(keys)}
    means = measured(given)
    if given.cache is not None:
        names = np.array([(value.name, value.measure) for value in means])
        tables = {str(index): table for index, table in enumerate(means.values())}
        np.savez(given.cache, recipe=np.array(recipe), values=names, **tables)  # type: ignore[arg-type]
    return means


def measured(given: argparse.Namespace) -> Means:
    """The mean of every filter on every image, `(images, channels)` per value."""
    model = Model.open(given.model)
    (spec,) = input_specs(model)
    recipe = preprocessing_for(spec, ImageOptions(preset=given.preset, size=given.size))
    probe: ProbeSession | None = None
    rows: dict[Value, list[Floats]] = {}
    for image in images(given.photos, given.crops):
        sample = recipe(image)[None]
        probe = probe or prepare(model, {spec.name: sample.shape}, CalibrationOptions(), Runtime("cpu"))
        for value, moments in probe.step(Batch({spec.name: sample}, 1, ("image",))).items():
            rows.setdefault(value, []).append(moments.mean)
    return {value: np.array(found) for value, found in rows.items()}


def images(folder: Path, crops: int) -> Iterator[Image.Image]:
    """Every photograph, or `crops` regions of each: half to all of its shorter side, anywhere."""
    rng = np.random.default_rng(16)
    for path in photographs(folder):
        image = read_image(path)
        if not crops:
            yield image
        for _ in range(crops):
            side = int(min(image.size) * rng.uniform(0.5, 1))
            x, y = (int(rng.integers(0, length - side + 1)) for length in image.size)
            region = image.crop((x, y, x + side, y + side))
            yield ImageOps.mirror(region) if rng.random() < 0.5 else region


def photographs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})


if __name__ == "__main__":
    sys.exit(main())
