"""Statistics files: wrong headers, arrays that do not fit, impossible numbers, alone and merged with a sound file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.statistics import Histogram, Moments, Statistics, Value
from tools.fuzz.mutations import pick
from tools.fuzz.networks import networks
from tools.fuzz.safetensors import damage_safetensors
from tools.fuzz.target import Files, Target

__all__ = ["TARGET"]

_IMAGES = 6
_VALUES = (("r", 4), ("l", 5))  # the values of the network "chain" that have means, and their channels


@cache
def _seeds() -> Mapping[str, Files]:
    return {
        name: {"one.safetensors": _statistics(1, histogram), "other.safetensors": _statistics(2, histogram)}
        for name, histogram in (("plain", False), ("histograms", True))
    }


def _statistics(seed: int, histogram: bool) -> bytes:
    random = np.random.default_rng(seed)
    digest = f"sha256:{seed}"
    source = {"files": _IMAGES, "bytes": 99, "digest": digest, "order": "a", "shards": ["0/2", "1/2"]}
    preprocessing = {"preset": "unit", "channels": "rgb", "divisor": 255.0, "mean": [0, 0, 0], "std": [1, 1, 1]}
    more = {"size": [8, 8], "resize": "shortest", "layout": "nchw", "dtype": "float32"}
    inputs = {"data": f"{_IMAGES} image(s)", "sources": [source], "preprocessing": preprocessing | more}
    ranges = {"x": {"mean": 0.5, "std": 0.2, "low": 0.0, "high": 1.0}}
    return Statistics(
        model=Model.open(networks()["chain"]).digest(),
        version=onnxnorm.__version__,
        filters="conv",
        shapes={"x": (1, 3, 8, 8)},
        inputs=inputs | {"ranges": ranges, "forecast_spreads": {"0.95": 0.1}},
        skipped=(("bad.jpg", "it is empty"),),
        values={Value(name, "mean"): _moments(random, channels, histogram) for name, channels in _VALUES},
        files={digest: random.integers(0, 2**63, (_IMAGES, 2)).astype(np.uint64)},
    ).to_bytes()


def _moments(random: np.random.Generator, channels: int, histogram: bool) -> Moments:
    means = random.exponential(size=(_IMAGES, channels))
    moments = Moments.of(means, means + 1, np.full(_IMAGES, 49.0))
    counts = Histogram.of(random.exponential(size=(2, channels, 9)).astype(np.float32)) if histogram else None
    return Moments(**{name: getattr(moments, name) for name in moments.__dataclass_fields__} | {"histogram": counts})


def _damage(random: np.random.Generator) -> Files:
    files = dict(_seeds()[pick(random, sorted(_seeds()))])
    for name in sorted(files):
        if name == "one.safetensors" or random.integers(3) == 0:
            files[name] = damage_safetensors(random, files[name])
    return files


def _read(folder: Path, random: np.random.Generator) -> object:
    one = Statistics.load(folder / "one.safetensors")
    both = [str(one), one.measures, one.log_standard_errors]
    model = networks()["chain"]
    if random.integers(2):
        merged = onnxnorm.merge([folder / name for name in ("one.safetensors", "other.safetensors")])
        merged.save(folder / "merged.safetensors")
        return both, onnxnorm.plan(model, folder / "merged.safetensors")
    onnxnorm.plan(model, one)
    return both, onnxnorm.rewrite(model, one, statistic=pick(random, ("mean", "max", "p99.9")), verify=False)


TARGET = Target("statistics", _seeds, _damage, _read)
