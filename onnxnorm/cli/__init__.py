"""The command line: parses, calls, prints, exits. One file per command; its names and exit codes are a contract."""

from onnxnorm.cli.app import main

__all__ = ["main"]
