"""Damage what onnxnorm reads, at random, and report every case that ends in neither a result nor an OnnxnormError.

    python -m tools.fuzz.run [--seconds N] [--target T] [--seed S] [--cases N] [--jobs N]

The time is divided among the targets. The case with a given target and seed is always the same, so that `--seed S
--cases 1` repeats one. Cases that failed are written to build/fuzz, one for each place where they did.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.fuzz.chunks import Tally, run_cases
from tools.fuzz.findings import ROOT, Finding, save_finding
from tools.fuzz.target import TARGETS, generator, load_target

__all__ = ["main"]

_OUTPUT = ROOT / "build" / "fuzz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the targets, print a table, and return 1 if there are findings."""
    given = _parsed(arguments)
    targets = [given.target] if given.target else list(TARGETS)
    tallies: dict[str, Tally] = {}
    for name in targets:

        def found(finding: Finding) -> None:
            files = load_target(finding.target).damage(generator(finding.target, finding.seed))
            save_finding(finding, files, given.output)
            print(f"{finding.target}: {finding}", flush=True)

        seconds = given.seconds / len(targets)
        tallies[name] = run_cases(name, given.seed, given.cases, seconds, found, jobs=given.jobs)
    print(_table(tallies))
    return int(any(tally.findings for tally in tallies.values()))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz.run", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (default 60)")
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case of each target (default 0)")
    parser.add_argument("--cases", type=int, help="at most this many cases of each target")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default 1)")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="where cases that failed are kept")
    return parser.parse_args(arguments)


def _table(tallies: dict[str, Tally]) -> str:
    rows = [("target", "executions", "next seed", "per second", "refused", "findings (distinct)")]
    for name, tally in tallies.items():
        failed = tally.executions - tally.outcomes["result"] - tally.outcomes["refused"]
        speed = tally.executions / max(tally.seconds, 1e-9)
        refused = f"{tally.outcomes['refused']:,}"
        findings = f"{failed:,} ({len(tally.findings)})"
        rows.append((name, f"{tally.executions:,}", f"{tally.after}", f"{speed:,.0f}", refused, findings))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
