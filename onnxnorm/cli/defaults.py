"""Files that the command line does not name: `MODEL.stats.safetensors` and `MODEL-normalized.onnx`.

They are written into the current folder. A default never overwrites a file that onnxnorm did not write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxnorm.cli.misuse import Missing
from onnxnorm.errors import InputError, OptionError, StatisticsError
from onnxnorm.model.files import Model
from onnxnorm.rewriting.record import read_entries
from onnxnorm.statistics import Statistics

__all__ = ["find_stats", "model_target", "naming", "stats_name", "stats_target"]


def stats_name(model: Path) -> Path:
    """Where the statistics of a model are by default: in the current folder."""
    return Path(f"{model.stem}.stats.safetensors")


def stats_target(given: Path | None, model: Path) -> Path:
    """The file of statistics to write. Raises OptionError if the default one exists and holds something else."""
    return given or _unless_foreign(stats_name(model), Statistics.load, "statistics of onnxnorm")


def model_target(given: Path | None, model: Path, in_place: bool = False) -> Path:
    """The rewritten model to write.

    Raises:
        OptionError: if the default file exists and is not a model that onnxnorm wrote.
        Missing: if MODEL may be overwritten, but nothing says that it is to be.
    """
    if given is None and in_place:
        raise Missing(f"--in-place allows -o to be MODEL itself: add -o {model}, or leave --in-place out")
    target = Path(f"{model.stem}-normalized.onnx")
    return given or _unless_foreign(target, lambda path: read_entries(Model.open(path)), "a model that onnxnorm wrote")


def _unless_foreign(target: Path, read: Callable[[Path], object], what: str) -> Path:
    """Return a default target. Raises OptionError if it exists and `read` finds nothing of onnxnorm's in it."""
    if target.is_dir() or not (target.exists() or target.is_symlink()):
        return target
    try:
        ours = bool(read(target))
    except InputError:
        ours = False
    if not ours:
        raise OptionError(
            f"cannot write {target}: it exists and is not {what}, so it is not overwritten by default; "
            "name a file with -o, or move this one away"
        )
    return target


def find_stats(given: Path | None, model: Path) -> Path | None:
    """The statistics to read: those that were named, else those of the current folder, else those beside the model."""
    if given is not None:
        return given
    places = (stats_name(model), model.parent / stats_name(model))
    return next((place for place in places if place.is_file()), None)


@contextmanager
def naming(stats: Path | None, given: Path | None) -> Iterator[None]:
    """Let errors in statistics say which file was taken, and how to choose another, if nobody named it."""
    try:
        yield
    except StatisticsError as error:
        if stats is None or given is not None:
            raise
        raise StatisticsError(f"{error} (taken by default: {stats}; choose others with --stats)") from error
