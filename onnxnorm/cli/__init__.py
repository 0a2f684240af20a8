"""The command line: parses, calls, prints, exits. One file per command; the contract of names and exit codes is public."""

from onnxnorm.cli.app import main

__all__ = ["main"]
