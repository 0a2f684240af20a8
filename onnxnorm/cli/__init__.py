"""The command line. Each command parses its arguments, calls the API, prints and exits; one module per command."""

from onnxnorm.cli.app import main

__all__ = ["main"]
