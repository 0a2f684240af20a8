"""The application: its commands, and what happens to errors.

Exit codes: 0 done, 1 an input is wrong, 2 the command line is wrong, 3 verification failed, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from onnxnorm.cli import calibrate, merge, normalize, plan, rewrite, verify
from onnxnorm.errors import OnnxnormError
from onnxnorm.version import VERSION

__all__ = ["app", "main"]

app = typer.Typer(
    name="onnxnorm",
    help="Rescale a convolutional network so that every filter's mean activation is 1 and its output stays the same.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (calibrate, merge, plan, rewrite, verify, normalize):
    app.command(command.NAME)(getattr(command, command.NAME))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"onnxnorm {VERSION}")  # noqa: T201 - what was asked for
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Rescale a convolutional network so that every filter's mean activation is 1 and its output stays the same."""
    del version


def main() -> None:
    """Run the command line; never shows a traceback unless --verbose is given."""
    verbose = bool({"-v", "--verbose"} & set(sys.argv[1:]))
    try:
        app()
    except OnnxnormError as error:
        code = error.exit_code
        message = f"error: {error}"
    except KeyboardInterrupt:
        code, message = 130, "interrupted; nothing was written"
    except BrokenPipeError:
        code, message = 1, "error: standard output was closed"
    except Exception as error:  # noqa: BLE001 - the last resort: a bug, told in one line
        code = 1
        message = (
            f"error: onnxnorm failed unexpectedly ({type(error).__name__}: {error}); this is a bug, please report it"
        )
        message += "" if verbose else " with the output of --verbose"
    else:
        return
    if verbose:
        traceback.print_exc()
    sys.stderr.write(message + "\n")
    sys.exit(code)
