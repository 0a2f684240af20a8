"""The share of filters at their target, per network and level of freedom, measured again on the rewritten networks.

    python -m tools.measurements.levels MODELS... [--photos FOLDER] [--limit N]

Each model is calibrated on the `.npz` file beside it, or else on photographs. A filter is at its target if the mean of
its activations, taken from the rewritten network as raw values, is the target to 1e-3; dead filters do not count. For
the level `nodes` the table also says how many nodes were added, the share of elements that they touch, the time of the
rewritten network compared with the original, the largest output error beside the runtime's own noise, and whether
powers of two leave the same bits: with the runtime's optimizations, which may order sums anew around what is added, and
without. Exits with 1 if any output is wrong, or if bits change both with and without.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx

import onnxnorm
from onnxnorm.api.common import batches_of
from onnxnorm.data.opening import open_data
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import Rewriting, rewrite_model
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Runtime, Session
from onnxnorm.scaling.levels import LEVELS
from onnxnorm.statistics import Statistics
from onnxnorm.verification import verify_models
from tools.measurements.zoo import image_options

_CLOSE = 1e-3
_ROUNDS = 9
_BATCH = 4

Feeds = dict[str, np.ndarray[Any, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--photos", type=Path, help="folder of photographs, for models without arrays")
    parser.add_argument("--limit", type=int, default=16, help="how many samples calibrate each network")
    given = parser.parse_args()
    print("| network | filters | constants | attributes | nodes | added | touched | time | error | noise | bits |")
    print("|---|" + "---:|" * 9 + "---|")
    right = True
    for path in given.models:
        line, same = row(path, given.photos, given.limit)
        print(line, flush=True)
        right &= same
    return 0 if right else 1


def row(path: Path, photos: Path | None, limit: int) -> tuple[str, bool]:
    """One line of the table, and whether the outputs are right."""
    model, feeds, statistics = prepared(path, photos, limit)
    shares, done = [], None
    for level in LEVELS:
        done = rewrite_model(model, statistics, ScaleOptions(allow=level))
        shares.append(f"{at_target(done, feeds):.1%}")
    assert done is not None
    given = [{name: array[:2] for name, array in feeds.items()}]
    verdict = verify_models(model, done.model, given)
    bits = [same_bits(model, statistics, given[0], optimize=optimize) for optimize in (True, False)]
    said = {(True, True): "yes", (False, True): "without", (True, False): "with", (False, False): "**no**"}
    ratio = time_ratio(model, done.model, given[0])
    numbers = [f"{done.plan.filters:,}", *shares, str(done.nodes_added), f"{done.touched:.0%}", f"{ratio:.2f}"]
    error = f"{verdict.max_relative_error:.0e}" if verdict.same else f"**{verdict.max_relative_error:.0e}**"
    cells = [path.stem, *numbers, error, f"{verdict.noise:.0e}", said[bits[0], bits[1]]]
    return f"| {' | '.join(cells)} |", verdict.same and any(bits)


def prepared(path: Path, photos: Path | None, limit: int) -> tuple[Model, Feeds, Statistics]:
    """A model, samples for it, and the statistics of these samples."""
    arrays = path.with_suffix(".npz")
    if arrays.exists():
        feeds = {name: array[:limit] for name, array in np.load(arrays).items()}
    else:
        assert photos is not None, f"{path} has no arrays beside it: give --photos"
        feeds = sampled(path, photos, limit)
    return Model.open(path), feeds, onnxnorm.calibrate(path, feeds)


def sampled(path: Path, photos: Path, limit: int) -> Feeds:
    """Photographs as the model takes them."""
    model = Model.open(path)
    dataset = open_data([photos], input_specs(model), image_options(path))
    batches = [batch.feeds for batch in batches_of(model, dataset, _BATCH, limit)]
    return {name: np.concatenate([feed[name] for feed in batches]) for name in batches[0]}


def at_target(done: Rewriting, feeds: Feeds) -> float:
    """The share of live filters whose mean is the target, from raw activations."""
    proto = done.model.to_proto()
    sites = {layer.layer.site for layer in done.scales.layers}
    names = {site: done.insertion.renamed.get(site.value, site.value) for site in sites}
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(names.values()) - known))
    session = Runtime().session(proto)
    sums: dict[Any, np.ndarray[Any, Any]] = {}
    count = len(next(iter(feeds.values())))
    for start in range(0, count, _BATCH):
        part = {name: array[start : start + _BATCH] for name, array in feeds.items()}
        values = session.run(part)
        for site, name in names.items():
            value = values[name].astype(np.float64)
            value = np.moveaxis(np.abs(value) if site.measure == "mean_abs" else value, site.axis, 0)
            mean = value.reshape(len(value), -1).mean(axis=1) * len(next(iter(part.values()))) / count
            sums[site] = sums.get(site, 0) + mean
    live = near = 0
    for layer in done.scales.layers:
        close = np.abs(np.abs(sums[layer.layer.site]) - done.target) <= _CLOSE * done.target
        live += int(layer.live.sum())
        near += int((close & layer.live).sum())
    return near / live if live else 1.0


def same_bits(model: Model, statistics: Statistics, feeds: Feeds, *, optimize: bool) -> bool:
    """Whether powers of two leave all bits of all outputs at the level `nodes`."""
    done = rewrite_model(model, statistics, ScaleOptions(allow="nodes", power_of_two=True))
    before, after = (Runtime().session(each, optimize=optimize).run(feeds) for each in (model, done.model))
    return all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)


def time_ratio(model: Model, rewritten: Model, feeds: Feeds) -> float:
    """The median time of the rewritten model over that of the original, in alternating runs."""
    sessions: list[Session] = [Runtime().session(each) for each in (model, rewritten)]
    times = []
    for _ in range(_ROUNDS):
        start = perf_counter()
        sessions[0].run(feeds)
        between = perf_counter()
        sessions[1].run(feeds)
        times.append((between - start, perf_counter() - between))
    plain, other = np.median(np.asarray(times[1:]), axis=0)
    return float(other / plain)


if __name__ == "__main__":
    sys.exit(main())
