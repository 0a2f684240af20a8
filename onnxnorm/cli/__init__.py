"""The command line. Each command parses its arguments, calls the API, prints and exits; one module per command."""

from __future__ import annotations

import sys

from onnxnorm.cli.stopping import stopping

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit. Everything else is imported only once signals are handled."""
    with stopping() as signals:
        from onnxnorm.cli.app import run

        signals.importing = False
        sys.exit(run())
