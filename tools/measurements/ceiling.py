"""What a ceiling does to networks for float16, per level of freedom: the tables of docs/fp16.md.

    python -m tools.measurements.ceiling MODELS... [--ceiling T]

Each model is calibrated on the `.npz` file beside it, rewritten under the ceiling at each level, and measured on the
same samples: values above 65504 and above 512, nodes that AutoCast's rules leave in float32, the share of
multiplications that then runs in float16, the error of the outputs in float16, and whether the outputs in float32 are
the same bits, with the runtime's optimizations and without. Exits with 1 if a rewrite is not the same function.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.rewriting import Rewriting, rewrite_model
from onnxnorm.rewriting.ceiling import Ceiling
from onnxnorm.rewriting.options import ScaleOptions
from onnxnorm.runtime import Runtime
from onnxnorm.scaling.levels import LEVELS, Level
from onnxnorm.verification import HeadroomMeter, verify_models
from onnxnorm.verification.fp16 import ModelRange

Feeds = dict[str, np.ndarray[Any, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--ceiling", type=float, default=512.0)
    given = parser.parse_args()
    print("| network | level | > 65504 | > 512 | in float32 | multiplications | error | filters | bits | s |")
    print("|---|---|" + "---:|" * 6 + "---|---:|")
    right = [rows(path, given.ceiling) for path in given.models]
    return 0 if all(right) else 1


def rows(path: Path, ceiling: float) -> bool:
    """Print the lines of one network; whether all its rewrites are the same function."""
    arrays = dict(np.load(path.with_suffix(".npz")).items())
    model = Model.open(path)
    names = {value.name for value in model.proto.graph.input}
    feeds: Feeds = {name: array for name, array in arrays.items() if name in names}
    statistics = onnxnorm.calibrate(path, feeds, measure=("range",), filters="all", provider="cpu")
    right, shown = True, False
    for level in LEVELS:
        start = perf_counter()
        done = rewrite_model(model, statistics, ScaleOptions(ceiling=ceiling, allow=level))
        seconds = perf_counter() - start
        assert done.ceiling is not None
        original, rewritten, same = measured(model, done, feeds)
        if not shown:
            print(line(path.stem, "original", original, ["", "", ""]), flush=True)
            shown = True
        rest = [f"{done.ceiling.moved:,}", bits(model, done, feeds), f"{seconds:.0f}"]
        print(line("", said(level, done), rewritten, rest), flush=True)
        tell(done.ceiling)
        right &= same
        if not done.ceiling.above:
            break
    return right


def said(level: Level, done: Rewriting) -> str:
    """A level, and what was changed but for constants."""
    more = [f"{done.attributes_changed} attributes" if done.attributes_changed else ""]
    more += [f"{done.nodes_added} nodes" if done.nodes_added else ""]
    return " + ".join(filter(None, [level, *more]))


def measured(model: Model, done: Rewriting, feeds: Feeds) -> tuple[ModelRange, ModelRange, bool]:
    """Both models in float16, and whether they are the same function."""
    meter = HeadroomMeter(model, done.model, Runtime("cpu"))
    count = len(next(iter(feeds.values())))
    parts = [{name: array[k : k + 1] for name, array in feeds.items()} for k in range(count)]
    verdict = verify_models(model, done.model, meter.watching(parts), runtime=Runtime("cpu"), record=done.record)
    found = meter.result()
    return found.original, found.rewritten, verdict.same


def line(name: str, level: str, found: ModelRange, rest: list[str]) -> str:
    """One line of the table."""
    error, share = found.error, found.nodes.share_in_half
    if error is None:
        told = "-"
    elif error.not_finite:
        told = f"{error.not_finite:.0%} not finite"
    else:
        told = f"{error.relative_rms_error:.1e}"
    cells = [
        name,
        level,
        f"{len(found.overflowing)} of {len(found.values)}",
        str(len(found.above_512)),
        f"{len(found.nodes.kept)} of {found.nodes.nodes}",
        "-" if share is None else f"{share:.1%}",
        told,
        *rest,
    ]
    return f"| {' | '.join(cells)} |"


def bits(model: Model, done: Rewriting, feeds: Feeds) -> str:
    """Whether all outputs in float32 are the same bits, with optimizations and without."""
    part = {name: array[:1] for name, array in feeds.items()}
    same = []
    for optimize in (True, False):
        before, after = (Runtime("cpu").session(each, optimize=optimize).run(part) for each in (model, done.model))
        same.append(all(np.array_equal(before[name], after[name], equal_nan=True) for name in before))
    return {(True, True): "yes", (False, True): "without", (True, False): "with", (False, False): "**no**"}[
        (same[0], same[1])
    ]


def tell(found: Ceiling) -> None:
    """What the table has no room for, on standard error."""
    print(found, found.higher, f"lost {len(found.lost)}", *found.above[:4], sep="\n  ", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
