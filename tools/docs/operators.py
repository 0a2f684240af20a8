"""Write docs/operators.md: every operator of the installed onnx, with its law or the reason why it is a barrier.

python -m tools.docs.operators [--check]
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path

import onnx
import onnxruntime

from onnxnorm.scaling.laws import LAWS, Law
from onnxnorm.scaling.levels import LEVELS
from onnxnorm.scaling.operators import load_all
from tools.docs.tried import try_operator

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"

HEAD = """\
# Operators

What `onnxnorm` does at each operator of ONNX. This page is generated from the laws themselves by
`python -m tools.docs.operators`, for onnx {version}, whose newest opset is {opset}: {count} operators of ONNX's own
domain, deprecated ones included. Laws hold for opsets 7 to {opset}. At other opsets, and in other domains
(`ai.onnx.ml`, a vendor's or your own), every operator is a barrier: the tool may do less there, but nothing wrong.

A **law** says how scales pass an operator: which channels may be scaled freely, which must share a scale (are *tied*),
and how the operator's constants follow. It may still refuse a node by its values; what it refuses is said below. At a
**barrier**, inputs and outputs keep scale 1. `onnxnorm plan MODEL` names each barrier that costs filters.

The laws are those of the level `constants`; what they say of attributes holds from `--allow attributes` on. With
`--allow nodes`, scales are taken out in front of a barrier, or wherever filters would be tied, and put in behind it, so
that no operator keeps a filter from its scale ([levels.md](levels.md)). At the end is what each level gave when it was
tried: [At each level](#at-each-level).
"""

LEVELS_HEAD = """\
## At each level

Found by trying, with ONNX Runtime {runtime}: a layer of four filters, the operator behind it with random attributes, at
several opsets and ranks, and its output. Filters end with scales of their *own*, some are *tied* to others, or some
are *pinned*, as `onnxnorm plan` counts them; with several words, attributes and shapes decide. Filters are counted
where they are measured: behind a HardSigmoid or a Hardmax all scales are 1, and two filters that Max joins there are
tied at any level. A + tells that the graph was opened there: multiplications were added.

| operators | `constants` | `attributes` | `nodes` |
|---|---|---|---|
"""

FAMILIES = {
    "mixing": "Mixing channels",
    "einsum": "Mixing along named axes",
    "normalization": "Normalizing",
    "homogeneous": "Element by element",
    "pooling": "Pooling, resizing, padding, sampling",
    "reductions": "Reducing",
    "joins": "Joining",
    "products": "Multiplying",
    "attention": "Attention",
    "recurrence": "Recurrence",
    "quantization": "Quantizing",
    "movement": "Moving data",
    "barriers": "Reading shapes",
}


def page() -> str:
    """The whole page."""
    return laws_page() + "\n" + levels_section()


def levels_section() -> str:
    """The part of the page about levels, which takes half a minute: every operator is tried."""
    load_all()
    rows: dict[tuple[str, ...], list[str]] = {}
    untried: dict[str, list[str]] = {}
    by_reference = []
    for name in operators():
        found = try_operator(name)
        if isinstance(found, str):
            untried.setdefault(found, []).append(name)
            continue
        states = [" or ".join(found.states[level]) for level in LEVELS]
        rows.setdefault((*states[:-1], states[-1] + (" +" if found.adds_nodes else "")), []).append(name)
        by_reference += [name] * found.by_reference
    table = [f"| {_listed(names)} | {' | '.join(states)} |" for states, names in sorted(rows.items())]
    notes = [f"Not tried: {_listed(names)}, because {reason}." for reason, names in sorted(untried.items())]
    if by_reference:
        notes.append(f"Run by ONNX's reference implementation, since the runtime lacks them: {_listed(by_reference)}.")
    return "\n\n".join([LEVELS_HEAD.format(runtime=onnxruntime.__version__) + "\n".join(table), *notes]) + "\n"


def laws_page() -> str:
    """The page without the part about levels."""
    load_all()
    names = operators()
    laws = {name: LAWS[name] for name in names if name in LAWS and LAWS[name].barrier is None}
    lines = [HEAD.format(version=onnx.__version__, opset=onnx.defs.onnx_opset_version(), count=len(names))]
    lines += [f"## Laws ({len(laws)} operators)", ""]
    for family, title in FAMILIES.items():
        rows = _by_law({name: entry for name, entry in laws.items() if _family(entry) == family})
        if rows:
            lines += [f"### {title}", "", "| operators | law |", "|---|---|", *rows, ""]
    reasons: dict[str, list[str]] = {}
    unnamed = []
    for name in names:
        entry = LAWS.get(name)
        if entry is None:
            unnamed.append(name)
        elif entry.barrier is not None:
            reasons.setdefault(entry.barrier, []).append(name)
    count = len(names) - len(laws)
    lines += [f"## Barriers ({count} operators)", "", "| operators | reason |", "|---|---|"]
    lines += [f"| {_listed(found)} | {reason} |" for reason, found in sorted(reasons.items(), key=lambda r: r[1])]
    if unnamed:
        lines += [f"| {_listed(unnamed)} | it has no law, so its input and output keep their scales |"]
    return "\n".join(lines) + "\n"


def operators() -> list[str]:
    """The operators of ONNX's own domain."""
    return sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


def _family(entry: Law) -> str:
    return entry.apply.__module__.rpartition(".")[2]


def _by_law(laws: dict[str, Law]) -> list[str]:
    """One row per law, in the order of the source."""
    functions: dict[object, list[str]] = {}
    for name, entry in sorted(laws.items()):
        functions.setdefault(entry.apply, []).append(name)
    rows = []
    for function, names in sorted(functions.items(), key=lambda item: _line(item[0])):
        told = " ".join((inspect.getdoc(function) or "").split())
        rows.append(f"| {_listed(names)} | {told.replace('|', chr(92) + '|')} |")
    return rows


def _line(function: object) -> int:
    return int(getattr(function, "__code__").co_firstlineno)  # noqa: B009


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def recorded_version(text: str) -> str | None:
    """The onnx version that a page was generated for."""
    found = re.search(r"for onnx (\S+), whose", text)
    return found.group(1) if found else None


def recorded_runtime(text: str) -> str | None:
    """The version of ONNX Runtime with which the levels of a page were tried."""
    found = re.search(r"with ONNX Runtime (\S+): a layer", text)
    return found.group(1) if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is current")
    if parser.parse_args().check:
        current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        print(f"{PAGE.name} is {'current' if current else 'out of date'}")
        return 0 if current else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
