"""Normalize a folder of networks on photographs and print the table of them in docs/networks.md.

    python -m tools.measurements.zoo MODELS PHOTOS [--limit N]

Per network: its filters; the share normalized exactly (free), under a tie, and pinned; how many are dead; the standard
deviation of log10|mean| over live filters before and after, the latter measured again on the rewritten network; the
largest output error on inputs that did not calibrate, beside the runtime's own noise; and whether power-of-two scales
leave the same bits. Exits with 1 if any output is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import onnxnorm
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.model.files import Model
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import Scales

# Preprocessing that the networks were trained with, by the start of their names; the others take RGB/255.
_OWN = {"efficientnet_lite0": ImageOptions(preset="raw", mean="127", std="128")}
_OPEN_SIZE = "128x128"


@dataclass(frozen=True)
class Row:
    """One network's line of the table."""

    name: str
    plan: onnxnorm.Plan
    before: float
    after: float
    error: float
    noise: float
    same: bool
    bits: bool

    def __str__(self) -> str:
        total = self.plan.filters
        shares = [f"{count / total:.1%}" for count in (self.plan.free, self.plan.tied, self.plan.pinned)]
        bits = "yes" if self.bits else "**no**"
        error = f"{self.error:.1e}" if self.same else f"**{self.error:.1e}**"
        numbers = [f"{total:,}", *shares, f"{self.plan.dead:,}", f"{self.before:.2f}", f"{self.after:.2f}", error]
        return f"| {self.name} | {' | '.join(numbers)} | {self.noise:.1e} | {bits} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of .onnx files")
    parser.add_argument("photos", type=Path, help="folder of photographs")
    parser.add_argument("--limit", type=int, default=64, help="how many photographs calibrate each network")
    given = parser.parse_args()
    print("| network | filters | free | tied | pinned | dead | log10 spread before | after | error | noise | bits |")
    print("|---|" + "---:|" * 9 + "---|")
    rows = []
    for path in sorted(given.models.glob("*.onnx")):
        rows.append(measure(path, given.photos, given.limit))
        print(rows[-1], flush=True)
    return 0 if all(row.same and row.bits for row in rows) else 1


def measure(path: Path, photos: Path, limit: int) -> Row:
    words = vars(image_options(path))
    statistics = onnxnorm.calibrate(path, photos, limit=limit, **words)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / path.name
        done = onnxnorm.rewrite(path, statistics, out)
        other = sorted(file for file in photos.rglob("*") if file.is_file())[limit : limit + 16]
        verdict = onnxnorm.verify(path, out, other, **words)
        again = onnxnorm.calibrate(out, photos, limit=limit, **words)
        exact = onnxnorm.rewrite(path, statistics, power_of_two=True).verification
    assert exact is not None
    return Row(
        name=path.stem,
        plan=done.plan,
        before=spread(done.rewriting.scales, statistics),
        after=spread(done.rewriting.scales, again),
        error=verdict.max_relative_error,
        noise=verdict.noise,
        same=verdict.same,
        bits=exact.bit_identical,
    )


def image_options(path: Path) -> ImageOptions:
    """The options about images for one network."""
    words = next((own for name, own in _OWN.items() if path.stem.startswith(name)), ImageOptions(preset="unit"))
    (spec,) = input_specs(Model.open(path))
    return replace(words, size=_OPEN_SIZE) if None in spec.shape[2:] else words


def spread(scales: Scales, statistics: onnxnorm.Statistics) -> float:
    """Standard deviation of log10|mean| over live filters."""
    means = {value.name: moments.mean for value, moments in statistics.values.items()}
    found = [np.abs(means[layer.layer.site.value][~layer.dead]) for layer in scales.layers]
    return float(np.std(np.log10(np.concatenate(found))))


if __name__ == "__main__":
    sys.exit(main())
