"""How many filters of PyTorch modules end at 1 in place? The table of docs/torch.md.

    python -m tools.measurements.torch_modules [NAME...]

Takes networks of torchvision with random weights; a batch of random images gives batch normalization its statistics,
and each is normalized on eight others. Needs PyTorch and torchvision.
"""

from __future__ import annotations

import sys
import time

import torch
import torchvision

import onnxnorm.torch

NAMES = ("vgg16", "vgg16_bn", "resnet18", "resnet50", "densenet121", "googlenet", "squeezenet1_0",
         "shufflenet_v2_x1_0", "regnet_y_400mf", "mobilenet_v2", "mobilenet_v3_small", "convnext_tiny")  # fmt: skip


def main(names: tuple[str, ...]) -> int:
    print("| network | filters that end at 1 | parameters changed | outputs differ by | seconds |")
    print("|---|---|---|---|---|")
    for name in names:
        torch.manual_seed(0)
        options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
        module = torchvision.models.get_model(name, weights=None, **options)
        side = 224 if name.startswith("vgg") else 96
        with torch.no_grad():
            module.train()(torch.randn(8, 3, side, side))
        start = time.monotonic()
        found = onnxnorm.torch.normalize_(module, torch.randn(8, 3, side, side))
        seconds = time.monotonic() - start
        reach = f"{found.reach.normalized:,} of {found.reach.live:,} ({found.reach.share:.0%})"
        print(f"| {name} | {reach} | {len(found.changed)} | {found.difference:.0e} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or NAMES))
