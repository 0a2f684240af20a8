"""Build the wheel and the source archive, check what is in them, and run the demo from the wheel.

    python -m tools.checks.package [--output dist]

The source archive holds what git tracks in the folders that belong to it, and nothing else. The wheel is built from the
source archive and holds the package as it is there, the licence, and nothing else. Then the wheel is installed into a
fresh environment, and the demo is run with it in a folder that has nothing of the repository.
Needs the extra `dist`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "onnxnorm/"
# What the build adds of its own, and what git tracks but people who install from the archive do not need.
WRITTEN = {"PKG-INFO"}
LEFT_OUT = (".ci/",)
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
NEEDED = {"onnxnorm/__init__.py", "onnxnorm/__main__.py", "onnxnorm/py.typed", "onnxnorm/report/page/page.html.j2"}


class PackageError(Exception):
    """Something is missing from an archive, or is there and should not be."""


def tracked() -> set[str]:
    """The files of the repository that belong into the source archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and not name.startswith(LEFT_OUT)}


def in_source_archive(path: Path) -> set[str]:
    """The files of a source archive, by their names in the repository."""
    with tarfile.open(path) as archive:
        return {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}


def in_wheel(path: Path) -> set[str]:
    """The files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def compare(what: str, found: set[str], expected: set[str]) -> Iterator[str]:
    """One line for each file that is missing or too much."""
    yield from (f"{what}: {name} is missing" for name in sorted(expected - found))
    yield from (f"{what}: {name} does not belong there" for name in sorted(found - expected))


def problems(source: set[str], wheel: set[str], expected: set[str], metadata: str) -> list[str]:
    """What is wrong with the two archives. `metadata` is the name of the wheel's folder of metadata."""
    package = {name for name in source if name.startswith(PACKAGE)} | NEEDED
    return [
        *compare("source archive", source - WRITTEN, expected),
        *compare("wheel", wheel, package | {f"{metadata}/{name}" for name in METADATA}),
    ]


def run(*words: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; if it fails, so does the check."""
    print("+", *words, flush=True)
    if (code := subprocess.run([str(word) for word in words], cwd=cwd, check=False).returncode) != 0:
        raise PackageError(f"{words[0]} ended with exit code {code}; its message stands above")


def only(paths: Iterable[Path]) -> Path:
    """The one file that was built."""
    found = sorted(paths)
    if len(found) != 1:
        raise PackageError(f"one archive was expected, there are {len(found)}: {[path.name for path in found]}")
    return found[0]


def build(folder: Path) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it; archives of earlier runs go away."""
    for old in [*folder.glob("onnxnorm-*.tar.gz"), *folder.glob("onnxnorm-*.whl")]:
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return only(folder.glob("onnxnorm-*.tar.gz")), only(folder.glob("onnxnorm-*.whl"))


def check_contents(source: Path, wheel: Path) -> None:
    """Raise PackageError with every file that is missing or too much."""
    metadata = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    found = problems(in_source_archive(source), in_wheel(wheel), tracked(), metadata)
    if found:
        raise PackageError("\n".join(found))
    run(sys.executable, "-m", "twine", "check", "--strict", source, wheel)


def try_wheel(wheel: Path, desk: Path) -> None:
    """Install the wheel into a fresh environment and run the demo with it, in a folder without the repository."""
    venv.create(desk / "venv", with_pip=True)
    folder = desk / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run(folder / "python", "-m", "pip", "install", "--quiet", wheel, cwd=desk)
    run(folder / "python", "-m", "onnxnorm", "--version", cwd=desk)
    model, images = ROOT / "models" / "demo_vgg.onnx", ROOT / "models" / "images"
    run(folder / "onnxnorm", "normalize", model, images, "--preset", "unit", "-o", "normalized.onnx", cwd=desk)
    run(folder / "python", "-m", "onnxnorm", "verify", model, "normalized.onnx", cwd=desk)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the package, check what is in it, and run the demo from it.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the archives")
    given = parser.parse_args()
    try:
        source, wheel = build(given.output.resolve())
        check_contents(source, wheel)
        with tempfile.TemporaryDirectory() as desk:
            try_wheel(wheel, Path(desk))
    except PackageError as error:
        sys.exit(f"error: {error}")
    print(f"{source.name} and {wheel.name} hold what they should, and the demo runs from the wheel")


if __name__ == "__main__":
    main()
