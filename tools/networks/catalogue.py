"""The networks, one function each. They have random weights: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tools.networks.shared import Network, images, unit_images

__all__ = ["CATALOGUE"]

CATALOGUE: dict[str, Callable[[], Network]] = {}


def network(build: Callable[[], Network]) -> Callable[[], Network]:
    """Enter a network into the catalogue under the name of its function."""
    CATALOGUE[build.__name__] = build
    return build


class Wrapped(nn.Module):
    """A module that takes tensors and returns one tensor: a chosen attribute or item of what another one returns."""

    def __init__(self, inner: Any, call: Callable[..., Any]) -> None:
        super().__init__()
        self.inner = inner
        self.call = call

    def forward(self, *arguments: Tensor) -> Any:
        return self.call(self.inner, *arguments)


def of_torchvision(name: str, size: int = 224, **options: Any) -> Network:
    import torchvision

    module = torchvision.models.get_model(name, weights=None, **options)
    return Network(module, images(size), free=("input",))


def of_timm(name: str, size: int = 224, free: bool = False, **options: Any) -> Network:
    import timm

    return Network(timm.create_model(name, pretrained=False, **options), images(size), ("input",) if free else ())


@network
def resnet50() -> Network:
    return of_torchvision("resnet50")


@network
def mobilenet_v2() -> Network:
    return of_torchvision("mobilenet_v2")


@network
def mobilenet_v3() -> Network:
    return of_torchvision("mobilenet_v3_large")


@network
def efficientnet_b0() -> Network:
    return of_torchvision("efficientnet_b0")


@network
def regnet_y() -> Network:
    return of_torchvision("regnet_y_1_6gf")


@network
def densenet121() -> Network:
    return of_torchvision("densenet121")


@network
def convnext_t() -> Network:
    return of_torchvision("convnext_tiny")


@network
def inception_v3() -> Network:
    return of_torchvision("inception_v3", 299, aux_logits=False, init_weights=False)


@network
def swin_t() -> Network:
    found = of_torchvision("swin_t")
    return Network(found.module, found.draw)


@network
def vit_tiny() -> Network:
    return of_timm("vit_tiny_patch16_224")


@network
def bit_resnet50() -> Network:
    return of_timm("resnetv2_50x1_bit", free=True)


@network
def segformer_b0() -> Network:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    module = SegformerForSemanticSegmentation(SegformerConfig(num_labels=150))
    return Network(Wrapped(module, lambda inner, x: inner(pixel_values=x).logits), images(256), free=("input",))


@network
def yolov8n() -> Network:
    from ultralytics.nn.tasks import DetectionModel

    module = DetectionModel("yolov8n.yaml", ch=3, nc=80, verbose=False)
    head = module.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", True
    return Network(module, unit_images(320), free=("input",), outputs=("predictions",))


@network
def vae_decoder() -> Network:
    from diffusers import AutoencoderKL

    module = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    module.encoder = module.quant_conv = None
    decode = Wrapped(module, lambda inner, z: inner.decoder(inner.post_quant_conv(z)))
    return Network(decode, images(8, channels=4, name="latent"), free=("latent",))


@network
def ddpm_unet() -> Network:
    from diffusers import UNet2DModel

    module = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    step = Wrapped(module, lambda inner, x, t: inner(x, t).sample)

    def draw(count: int, generator: torch.Generator) -> dict[str, Tensor]:
        steps = torch.randint(0, 1000, (count,), generator=generator)
        return images(32, name="sample")(count, generator) | {"timestep": steps}

    return Network(step, draw, free=("sample",))


@network
def nafnet() -> Network:
    from tools.networks.nafnet import NAFNet

    return Network(NAFNet(), unit_images(128), free=("input",))


@network
def text_detector() -> Network:
    from tools.networks.text_detector import TextDetector

    return Network(TextDetector(), images(224), free=("input",))
