"""What `calibrate --measure range` costs: calibration with it and without, side by side on the same random arrays.

    python -m tools.measurements.ranges NETWORKS... [--rounds N] [--threads N] [--images N]

Every calibration is a process of its own, and rounds take turns. *ms* is wall time per image once it runs, in which
other work of the machine counts too; *CPU* is processor time per image, which hardly depends on that. *Best* is the
smallest of all rounds, and *extra* what the range adds: of the best rounds, and the median of each round's own ratio.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tools.benchmarks.every import prepare_network
from tools.benchmarks.runs import Case, Machine, MeasurementError, Results, compare, perform, table

WITHOUT, WITH = "without", "with"
HEADER = (
    "",
    "images",
    "ms, best",
    "with",
    "extra, best",
    "extra, median",
    "CPU, best",
    "with",
    "extra, best",
    "median",
)
SECONDS, FEWEST, MOST, BATCH = 6, 32, 4096, 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path, nargs="+", help=".onnx files with one input, whose batch is free")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument("--images", type=int, help="default: as many as take about 6 seconds")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        machine = Machine(given.threads, given.rounds, quick=False, work=Path(work), torch_python=None)
        for path in given.networks:
            print(path.stem, flush=True)
            try:
                rows.append(_row(path.stem, _measured(machine, path, given.images)))
            except (MeasurementError, ValueError, KeyError) as error:
                print(f"{path.stem} was not measured: {error}")
    print("\n" + table(HEADER, rows))
    return 0


def _measured(machine: Machine, path: Path, images: int | None) -> Results:
    """Both calibrations of one network, in all rounds."""
    given = prepare_network(machine, path, fixed=False)
    given |= {"batch": 1, "images": FEWEST}
    perform(Case("the arrays", "random_rows", given))
    trial = perform(Case("trial", "bare", given))
    wanted = images or int(SECONDS * 1000 / trial.report["ms"])
    given["images"] = min(max(wanted, FEWEST), MOST) // BATCH * BATCH
    perform(Case("the arrays", "random_rows", given))
    given["batch"] = None  # as `calibrate` chooses it
    results = compare(
        [Case(WITHOUT, "arrays", given), Case(WITH, "arrays", given | {"measure": ["range"]})], machine.rounds
    )
    Path(given["arrays"]).unlink()
    if not results.has(WITH) or not results.has(WITHOUT):
        raise MeasurementError("; ".join(results.failed.values()))
    return results


def _row(name: str, results: Results) -> tuple[str, ...]:
    cells = [name, f"{results.median(WITH, 'images'):.0f}"]
    for key in ("ms", "cpu"):
        best, more = (min(results.numbers(case, key)) for case in (WITHOUT, WITH))
        ratio = results.ratio(WITH, WITHOUT, key)
        cells += [f"{best:.2f}", f"{more:.2f}", f"{100 * (more / best - 1):+.0f} %", f"{100 * (ratio - 1):+.0f} %"]
    return tuple(cells)


if __name__ == "__main__":
    sys.exit(main())
