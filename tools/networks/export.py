"""Export current architectures to ONNX, with random weights and the batch statistics of random images.

    python3 -m venv build/torch
    build/torch/bin/pip install torch torchvision timm diffusers transformers ultralytics onnx onnxscript onnxruntime
    build/torch/bin/python -m tools.networks.export --into build/networks [NAME...]

Each network becomes `NAME.onnx` and `NAME.npz`, four samples by input name. Parameters that the libraries start at 0 or
1 (scales and biases of norms, LayerScale) are drawn at random, so that every channel has an activation of its own. The
batch size is free; height and width are where the network allows it. The TorchScript exporter is tried first, then
torch.export; networks that neither can export are listed at the end, and the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

import torch

from tools.networks.catalogue import CATALOGUE
from tools.networks.shared import EXPORTERS, Network, export_network, prepare

__all__ = ["main"]


def export(name: str, into: Path, exporters: tuple[str, ...]) -> bool:
    """Export one network by the first exporter that can; prints a line, and says whether one could."""
    start = time.monotonic()
    torch.manual_seed(0)
    network = CATALOGUE[name]()
    prepare(network)
    failures = []
    for exporter in exporters:
        line, done = attempt(network, into / f"{name}.onnx", exporter)
        if done:
            print(f"{name}: {exporter}, {time.monotonic() - start:.0f} s; {line}", flush=True)
            return True
        failures.append(f"{exporter}: {line}")
    print(f"{name}: FAILED; {' | '.join(failures)}", flush=True)
    return False


def attempt(network: Network, path: Path, exporter: str) -> tuple[str, bool]:
    """Export by one exporter; returns what there is to say, and whether it could."""
    try:
        return export_network(network, path, exporter), True
    except Exception as error:  # noqa: BLE001 - exporters raise anything; what they say is printed
        return f"{type(error).__name__}: {str(error).strip()[:300]}", False


def main(arguments: list[str] | None = None) -> int:
    """Export the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(CATALOGUE)}; default: all")
    parser.add_argument("--into", type=Path, default=Path("build/networks"), help="folder (default: %(default)s)")
    parser.add_argument("--exporter", choices=EXPORTERS, help="use this one only; default: the first that can")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in CATALOGUE]
    if unknown:
        parser.error(f"there is no network {', '.join(unknown)}; there are {', '.join(CATALOGUE)}")
    logging.disable(logging.WARNING)
    given.into.mkdir(parents=True, exist_ok=True)
    exporters = (given.exporter,) if given.exporter else EXPORTERS
    failed = [name for name in given.names or CATALOGUE if not export(name, given.into, exporters)]
    if failed:
        print(f"not exported: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
