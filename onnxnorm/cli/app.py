"""The application: its commands, and how errors become messages and exit codes.

Exit codes: 0 done, 1 an input is wrong, 2 the command line is wrong, 3 verification failed, 130 interrupted. They and
the names of commands and options are part of the interface, so they must stay.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from typing import Any

import typer

from onnxnorm.atomic import files_written
from onnxnorm.cli import calibrate, check, export, features, merge, normalize, plan, report, restore, rewrite, verify
from onnxnorm.cli.details import DETAILS, details
from onnxnorm.cli.escaping import escaped
from onnxnorm.cli.flags import Version, declare_settable, origins, with_flags
from onnxnorm.cli.stopping import INTERRUPTED
from onnxnorm.cli.variables import Command, Group
from onnxnorm.errors import OnnxnormError

__all__ = ["app", "run"]

app = typer.Typer(
    name="onnxnorm",
    help="Rescale a convolutional network so that every filter's mean activation is 1 and its output stays the same.",
    no_args_is_help=True,
    cls=Group,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ONNXNORM"},
)
for command in (calibrate, merge, plan, rewrite, verify, normalize, restore, report, features, export, check):
    # Blank lines, for typer makes one line of each paragraph of an epilog.
    examples = "\n\n".join(["Examples:", *command.EXAMPLES])
    flagged = with_flags(getattr(command, command.NAME))
    declare_settable(command.NAME, flagged)
    app.command(command.NAME, cls=Command, epilog=examples)(flagged)


@app.callback()
def root(version: Version = False) -> None:
    """Rescale a convolutional network so that every filter's mean activation is 1 and its output stays the same."""
    del version


def run() -> int:
    """Run the command line and return the exit code.

    A traceback is shown only with --verbose, and none of the command-line parser, which would tell nobody anything.
    """
    _prepare_streams()
    files_written.clear()
    verbose = any(word == "--verbose" or (word[:1] == "-" != word[1:2] and "v" in word) for word in sys.argv[1:])
    try:
        with warnings.catch_warnings(), details(verbose):
            warnings.showwarning = _note
            code = app(prog_name="onnxnorm", standalone_mode=False) or 0
        message = _stopped() if code == INTERRUPTED else ""
    except Exception as error:  # noqa: BLE001 - every error, bugs too, becomes a message of a line or two
        code, message = (INTERRUPTED, _stopped()) if isinstance(error, typer.Abort) else _told(error)
        if (verbose or DETAILS.shown) and not _is_misuse(error):
            sys.stderr.write(escaped("".join(traceback.format_exception(error))))
    except KeyboardInterrupt:
        code, message = INTERRUPTED, _stopped()
    except SystemExit as ended:  # a command has said everything itself
        code, message = int(ended.code or 0), ""
    code, message = _flushed(code, message)
    if message:
        sys.stderr.write(escaped(message) + "\n")
    return int(code)


def _stopped() -> str:
    """What to say after Ctrl-C: which files this run had written by then."""
    written = [str(path) for path in files_written if path.exists()]
    return f"interrupted; written by then: {', '.join(written)}" if written else "interrupted; nothing was written"


def _prepare_streams() -> None:
    """Make the standard streams writable: characters that an encoding lacks are replaced; closed ones take anything."""
    _occupy_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - it stays open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    buffer = getattr(sys.stderr, "buffer", None)
    if isinstance(sys.stderr, io.TextIOWrapper) and isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        lossy = io.BufferedWriter(_Lossy(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(lossy, sys.stderr.encoding, "replace", line_buffering=True)


class _Lossy(io.FileIO):
    """A file that loses what cannot be written: a run ends as it should where standard error is full or gone."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            return memoryview(data).nbytes
        return memoryview(data).nbytes if written is None else written


def _occupy_descriptors() -> None:
    """Open the null device in place of closed standard streams: a file of ours must not get what others print there."""
    descriptor = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def _flushed(code: int, message: str) -> tuple[int, str]:
    """Write out what standard output still holds; exit code and message if that fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at its end, and would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return (code, message) if code else _told(error)
    return code, message


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line, without the position in the code that Python adds."""
    sys.stderr.write(escaped(f"note: {message}") + "\n")


def _told(error: Exception) -> tuple[int, str]:
    """Exit code and message for an error."""
    if isinstance(error, OnnxnormError):
        return error.exit_code, f"error: {error}"
    if _is_misuse(error):
        return _misused(error)
    if isinstance(error, BrokenPipeError):
        return 1, "error: standard output was closed"
    if isinstance(error, MemoryError):
        return 1, "error: there is not enough memory; use a smaller --batch-size or --size, or a larger machine"
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return 1, "error: the current folder was deleted; change to another one, and give paths from there"
    if isinstance(error, OSError):
        return 1, f"error: {error.strerror or error}: {error.filename or 'standard output'}"
    what = f"error: onnxnorm failed unexpectedly ({type(error).__name__}: {error})"
    return 1, f"{what}; this is a bug, please report it with the output of --verbose"


def _is_misuse(error: Exception) -> bool:
    """Whether the command-line parser, or what extends it, rejects the command line."""
    return hasattr(error, "format_message")


def _has_folder() -> bool:
    """Whether the current folder still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _misused(error: Any) -> tuple[int, str]:
    """Exit code and message for what the command-line parser rejects: 1 for a wrong value, 2 for anything else."""
    text = error.format_message().strip().rstrip(".").replace("Value error, ", "")
    if type(error).__name__ == "NoArgsIsHelpError":
        return 2, text
    context = getattr(error, "ctx", None)
    text += origins(context, text) if context else ""
    code = 1 if type(error) is typer.BadParameter else 2
    return code, f"error: {text}; see {context.command_path if context else 'onnxnorm'} --help"
