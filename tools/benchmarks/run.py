"""Measure speed and memory side by side, and write docs/benchmarks.md.

    python -m tools.benchmarks.run [calibrate] [every] [profile] [images] [rewrite] [plan] [--quick]

Without a name all sections are measured; those that are not keep what docs/benchmarks.md said about them. Every number
is a median over rounds that take turns, every measurement a process of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tools.benchmarks import calibrate, every, images, plan, profile, rewrite
from tools.benchmarks.runs import Machine

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "models"
PACKAGES = ("onnxnorm", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy", "pillow")

TITLES = {
    "calibrate": "Calibration beside bare inference and other calibrators",
    "every": "Calibration beside bare inference on every network",
    "profile": "Where the time of a measurement goes",
    "images": "Growth with the number of images",
    "rewrite": "Rewriting a model of full size",
    "plan": "Growth with the number of nodes",
}

HEAD = """\
# Benchmarks

Written by `make bench`; do not edit. Everything in a table was measured in one run on one machine, in rounds that take
turns, each measurement in a process of its own with the same number of threads. Numbers are medians over the rounds,
and ratios are medians of each round's own ratio. Peak memory is the largest resident set of the whole process,
Python, its libraries and mapped files included."""


def main() -> int:
    given, load = arguments(), os.getloadavg()[0]
    given.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        machine = Machine(
            given.threads, given.rounds or (2 if given.quick else 3), given.quick, Path(work), given.torch_python
        )
        sections: Mapping[str, Callable[[], str]] = {
            "calibrate": lambda: calibrate.measure(machine, given.models, given.zoo, EMBEDDED),
            "every": lambda: every.measure(
                machine, given.models, given.zoo, given.exported, EMBEDDED, given.output.parent
            ),
            "profile": lambda: profile.measure(machine, given.models, given.zoo, given.exported, EMBEDDED),
            "images": lambda: images.measure(machine, given.zoo, EMBEDDED),
            "rewrite": lambda: rewrite.measure(machine, given.models),
            "plan": lambda: plan.measure(machine),
        }
        for name in given.sections or TITLES:
            text = f"{sections[name]()}\n\n{footer(machine, name, load)}"
            write(given.output, name, text)
            print(f"\n{text}\n", flush=True)
    return 0


def write(path: Path, name: str, text: str) -> None:
    """Put one section into the page, and leave the others as they are."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    parts = [HEAD]
    for key, title in TITLES.items():
        known = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", old, re.MULTILINE | re.DOTALL)
        body = text if key == name else known.group(1).strip() if known else ""
        if body:
            parts += [f"## {title}", body]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def footer(machine: Machine, name: str, load: float) -> str:
    """When, how and on what a section was measured."""
    options = " --quick" if machine.quick else ""
    found = [f"Python {platform.python_version()}", *(f"{package} {installed(package)}" for package in PACKAGES)]
    return (
        f"*{datetime.now(timezone.utc):%Y-%m-%d}, `python -m tools.benchmarks.run {name}{options}`, "
        f"{machine.rounds} rounds, "
        f"{machine.threads} threads. {processor()}, {os.cpu_count()} cores, {memory():.0f} GiB, {platform.system()}. "
        f"{', '.join(item for item in found if not item.endswith(' '))}.{busy(load)}*"
    )


def busy(load: float) -> str:
    """A warning, if other work kept the machine busy before the first measurement."""
    return f" Other work was running (load {load:.1f}): measure again on a quiet machine." if load > 0.5 else ""


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def memory() -> float:
    """Memory of the machine in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interpreter(name: str) -> str:
    """The path of a program, which must be there."""
    found = shutil.which(name)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no {name}")
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*TITLES, []], metavar="SECTION", help=", ".join(TITLES))
    parser.add_argument("--quick", action="store_true", help="few images, small graphs, two rounds")
    parser.add_argument("--rounds", type=int, help="how many rounds (default 3, quick 2)")
    parser.add_argument("--threads", type=int, default=cores(), help="threads for everyone (default: all cores)")
    parser.add_argument("--models", type=Path, default=ROOT / "build" / "models", help="folder of the fetched networks")
    parser.add_argument("--zoo", type=Path, default=ROOT.parent / "shared" / "zoo", help="folder of more networks")
    exported = ROOT / "build" / "networks"
    parser.add_argument("--exported", type=Path, default=exported, help="folder of networks from tools.networks.export")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for temporary files")
    parser.add_argument("--torch-python", type=interpreter, help="a Python that has torch, onnx, numpy and Pillow")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page to write")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
