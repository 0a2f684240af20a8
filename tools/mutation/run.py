"""Mutation testing of the modules that rewrite or prove: each mutant is run against the tests that should notice it.

    pip install cosmic-ray
    python -m tools.mutation.run [--module onnxnorm.rewriting.factors] [--workers 2]

A mutant is killed if a test fails, or if the tests take far longer than without it. Prints the mutants that survived,
and the score of each module. Each mutant runs in a process that is forked from one that has loaded the libraries, so
files are never changed. Tests that start processes of their own test the original there: only Linux and macOS fork, and
what only such tests notice survives. The modules and the tests for each are in PLAN.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

from tools.mutation.mutants import Mutant, mutants_of

__all__ = ["PLAN", "main", "survivors"]

_REWRITING, _LAWS = "tests/rewriting", "tests/scaling/operators"
_OF_ALL = ("defaults", "unknown_shapes")
PLAN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        tuple(f"onnxnorm.model.{name}" for name in ("rows", "row_rules", "counts", "open_batch")),
        ("tests/model/test_rows.py",),
    ),
    "onnxnorm.rewriting.constants": tuple(
        f"{_REWRITING}/test_{name}.py" for name in ("edit_constants", "clone_names", "rows", "limits")
    ),
    "onnxnorm.rewriting.factors": tuple(
        f"{_REWRITING}/test_{name}.py" for name in ("factors", "edit_constants", "limits")
    ),
    "onnxnorm.rewriting.restore": tuple(
        f"{_REWRITING}/test_{name}.py" for name in ("restored", "hostile_records", "restore")
    ),
    "onnxnorm.rewriting.record": tuple(
        f"{_REWRITING}/test_{name}.py" for name in ("record", "hostile_records", "restore")
    ),
    "onnxnorm.rewriting.scales": tuple(f"{_REWRITING}/test_{name}.py" for name in ("scales", "reach", "limits")),
    **{
        f"onnxnorm.scaling.operators.{law}": tuple(f"{_LAWS}/test_{name}.py" for name in (*names, *_OF_ALL))
        for law, names in {
            "mixing": ("mixing",),
            "joins": ("joins",),
            "movement": ("movement", "movement_of_pieces"),
            "pooling": ("pooling", "resize_and_pad"),
        }.items()
    },
}
_LIBRARIES: tuple[str, ...] = (
    "numpy",
    "ml_dtypes",
    "onnx.reference",
    "onnxruntime",
    "onnx_graphsurgeon",
    "scipy.sparse.csgraph",
)
_LIBRARIES += ("safetensors.numpy", "PIL.Image", "pytest", "hypothesis", "rich.progress", "typer")
_PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning")
_MEMORY = 16 << 30
_SLACK = 10.0


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", choices=list(PLAN), help="default: all")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(words)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.nice(10)
    for library in _LIBRARIES:
        import_module(library)
    rows = []
    for module in given.module or PLAN:
        tests = [test for test in PLAN[module] if Path(test).exists()]
        tried, alive = survivors(module, tests, given.workers)
        rows.append(f"| {module} | {tried} | {tried - len(alive)} | {1 - len(alive) / tried:.1%} |")
        for mutant in alive:
            print(f"{module}:{mutant.line} {mutant.operator}\n  - {mutant.before}\n  + {mutant.after}", flush=True)
        print("\n".join(["", "| module | mutants | killed | score |", "|---|---:|---:|---:|", *rows, ""]), flush=True)
    return 0


def survivors(module: str, tests: Sequence[str], workers: int) -> tuple[int, list[Mutant]]:
    """Return how many mutants a module has, and those that no test noticed."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text("utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxnorm"]:
        del sys.modules[name]  # finding the module has loaded its packages
    started = time.monotonic()
    (plain,) = _outcomes(module, spec.origin, [source], tests, 1, 600)
    if plain:
        raise SystemExit(f"{module}: the tests fail without a mutant; run: python -m pytest {' '.join(tests)}")
    limit = _SLACK + 4 * (time.monotonic() - started)
    mutants = mutants_of(source)
    print(f"{module}: {len(mutants)} mutants, at most {limit:.0f} s each", file=sys.stderr, flush=True)
    killed = _outcomes(module, spec.origin, [mutant.source for mutant in mutants], tests, workers, limit)
    return len(mutants), [mutant for mutant, dead in zip(mutants, killed, strict=True) if not dead]


def _outcomes(
    module: str, origin: str, sources: Sequence[str], tests: Sequence[str], workers: int, limit: float
) -> list[bool]:
    """Return for each source of a module whether the tests notice it, at most `workers` at a time."""
    killed = [False] * len(sources)
    running: dict[int, tuple[int, float]] = {}
    for index, source in enumerate(sources):
        while len(running) >= workers:
            for at, dead in _ended(running, limit):
                killed[at] = dead
        child = os.fork()
        if not child:
            _child(module, origin, source, tests)
        running[child] = (index, time.monotonic())
    while running:
        for at, dead in _ended(running, limit):
            killed[at] = dead
    return killed


def _ended(running: dict[int, tuple[int, float]], limit: float) -> Iterator[tuple[int, bool]]:
    """Wait a moment; yield the index of each process that has ended, and whether a test failed in it."""
    time.sleep(0.02)
    for child, (index, started) in list(running.items()):
        if time.monotonic() - started > limit:
            os.killpg(child, signal.SIGKILL)
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            del running[child]
            yield index, status != 0


def _child(module: str, origin: str, source: str, tests: Sequence[str]) -> None:
    """Run the tests with another source of the module, and end."""
    code = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        _replace(module, compile(source, origin, "exec", dont_inherit=True))
        import pytest

        code = int(pytest.main([*_PYTEST, *tests]))
    finally:
        os._exit(code)


def _replace(module: str, mutated: CodeType) -> None:
    """Let an import of the module run other code."""
    loader: Any = importlib.machinery.SourceFileLoader
    usual = loader.get_code

    def get_code(self: Any, name: str) -> Any:
        return mutated if name == module else usual(self, name)

    loader.get_code = get_code


if __name__ == "__main__":
    sys.exit(main())
