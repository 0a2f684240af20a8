"""`verify`: whether two models compute the same function."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace

from onnxnorm.api.common import SAMPLES, Feeds, ImageWords, feeds_of, shapes_of
from onnxnorm.data.dataset import Data, open_data
from onnxnorm.data.images.options import ImageOptions
from onnxnorm.model.files import Model, ModelLike
from onnxnorm.model.graph import input_specs
from onnxnorm.rewriting import (
    output_scales,
)
from onnxnorm.runtime import Runtime
from onnxnorm.verification import HeadroomMeter, Verification, verify_models
from onnxnorm.verification.inputs import random_feeds

if sys.version_info >= (3, 11):
    from typing import Unpack
else:
    from typing_extensions import Unpack

__all__ = ["verify"]


def verify(
    original: ModelLike,
    rewritten: ModelLike,
    data: Data | None = None,
    *,
    fp16: bool = False,
    batch_size: int | None = None,
    limit: int | None = None,
    tolerance_output: float | None = None,
    provider: str = "auto",
    threads: int | None = None,
    **images: Unpack[ImageWords],
) -> Verification:
    """Run both models on data, or on seeded random inputs, and compare outputs and graphs.

    With `fp16`, also measure how near both come to the ends of float16, and how they compute in it.
    """
    before, after = Model.open(original), Model.open(rewritten)
    runtime = Runtime(provider, threads)
    scales = output_scales(after)
    meter = HeadroomMeter(before, after, runtime, scales) if fp16 else None

    def judged(feeds: Iterable[Feeds]) -> Verification:
        watched = meter.watching(feeds) if meter else feeds
        found = verify_models(before, after, watched, scales=scales, tolerance=tolerance_output, runtime=runtime)
        return replace(found, fp16=meter.result()) if meter else found

    if data is None:
        shapes = shapes_of(before, images.get("size"))
        feeds = random_feeds(input_specs(before), shapes, samples=SAMPLES if limit is None else limit)
        return judged(feeds)
    dataset = open_data(data, input_specs(before), ImageOptions(**images))  # type: ignore[arg-type]
    counts: list[int] = []
    with closing(feeds_of(before, dataset, batch_size, limit, counts)) as read:
        found = judged(read)
    return replace(found, samples=sum(counts))
