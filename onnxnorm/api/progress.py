"""The progress bar of a calibration: in a terminal, and in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from onnxnorm.calibration.calibrate import Progress
from onnxnorm.statistics.precision import RelativeErrors

__all__ = ["OnProgress", "measuring_bar", "reporting"]

OnProgress = Callable[[Progress], None] | bool | None
"""What is called after every batch; True for a progress bar on standard error or in the notebook."""

_REFRESH = 0.5


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:.1f} images/s")


def reporting(progress: OnProgress) -> AbstractContextManager[Callable[[Progress], None] | None]:
    """A context that yields what is to be called after every batch; None if nothing is."""
    if isinstance(progress, bool):
        return measuring_bar("measuring", Console(stderr=True)) if progress else nullcontext()
    return nullcontext(progress)


@contextmanager
def measuring_bar(title: str, console: Console, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar with images/s, time left and the precision so far; yields the callback that updates it.

    It is hidden if `quiet` is set, and where the console is neither a terminal nor a notebook.
    """
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[errors]}"),
    )
    hidden = quiet or not (console.is_terminal or console.is_jupyter)
    with Bar(*columns, console=console, disable=hidden, speed_estimate_period=120) as bar:
        task = bar.add_task(title, total=None, errors="")
        shown = 0.0

        def update(progress: Progress) -> None:
            nonlocal shown
            bar.update(task, completed=progress.done, total=progress.total)
            if not hidden and time.monotonic() - shown >= _REFRESH:
                shown = time.monotonic()
                bar.update(task, errors=_errors(progress))

        yield update


def _errors(progress: Progress) -> str:
    """The precision that the means have so far."""
    errors = RelativeErrors.of(progress.values)
    if not errors.relative.size:
        return ""
    median, most, worst = (errors.quantile(share) for share in (0.5, 0.95, 1.0))
    return f"error {median:.1%}, 95 %: {most:.1%}, worst {worst:.1%}"
