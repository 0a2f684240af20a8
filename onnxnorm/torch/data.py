"""Images as people have them beside a module, as the batches of arrays that a calibration reads."""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxnorm.data.images.choosing import preprocessing_for
from onnxnorm.data.images.options import ImageOptions, parsed_size
from onnxnorm.data.images.transform import function_of
from onnxnorm.errors import DataError
from onnxnorm.model.inputs import InputSpec
from onnxnorm.torch.installed import load_torch

__all__ = ["Images", "argument_names", "example_of", "input_name"]

Array = NDArray[Any]

_SIDE = 224
_KEPT = 8


class Images:
    """Images for a module: tensors, arrays, PIL images, paths, a DataLoader, a data set, an iterable of any of these.

    Of a tuple or list, such as a DataLoader yields, the first item is the images; others are labels.

    Attributes:
        kept: the first arrays that were read, for the verification; of files there are none.
        arguments: for each input of the exported model the argument of `forward`, where that has another name.
    """

    def __init__(self, images: Any, options: ImageOptions) -> None:
        self.transform = None if options.transform is None else function_of(options.transform)
        self.options = options
        self.kept: list[Any] = []
        self.arguments: dict[str, str] = {}
        if _is_path(images) or (isinstance(images, (list, tuple)) and images and all(map(_is_path, images))):
            self.files: Any = images
            return
        self.files = None
        self.first, self._items = _peeked(_items_of(images))

    def data(self, specs: Sequence[InputSpec]) -> Any:
        """What `onnxnorm.calibrate` takes, for a model with these inputs."""
        return self.files if self.files is not None else self._batches(specs)

    def _batches(self, specs: Sequence[InputSpec]) -> Iterator[Any]:
        samples = 0
        for item in self._items:
            batch = self._batch(item, specs)
            if samples < _KEPT:
                self.kept.append(batch)
                samples += len(next(iter(batch.values())))
            yield batch

    def _batch(self, item: Any, specs: Sequence[InputSpec]) -> dict[str, Array]:
        item = self.transformed(item)
        if isinstance(item, Image.Image):
            item = preprocessing_for(specs[0], self.options)(item)
        found = {}
        for spec in specs:
            name = self.arguments.get(spec.name, spec.name)
            given = item if isinstance(item, Mapping) else {name: item}
            if name not in given:
                raise DataError(f"an item of the images has nothing for the argument {name!r}; give dicts by argument")
            array = _array(given[name])
            found[spec.name] = array[None] if array.ndim == len(spec.shape) - 1 else array
        return found

    def transformed(self, item: Any) -> Any:
        """The images of an item, after the transform if they are an image that is not a tensor yet."""
        if isinstance(item, (tuple, list)):
            item = item[0] if len(item) else item
        return self.transform(item) if self.transform is not None and isinstance(item, Image.Image) else item


def argument_names(module: Any, images: Images) -> list[str]:
    """The names of the arguments that a module is fed: those of its `forward`, as many as the images are for."""
    every = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ] or ["input"]
    first = None if images.files is not None else images.transformed(images.first)
    if not isinstance(first, Mapping):
        return every[:1]
    wanted = [name for name in every if name in first]
    if not wanted or wanted != every[: len(wanted)]:
        raise DataError(
            f"the images are for {', '.join(map(repr, first))}, but forward() takes {', '.join(every)}; give an array "
            "for each of its first arguments"
        )
    return wanted


def input_name(argument: str, taken: Collection[str]) -> str:
    """A name for the input of the exported model, which parameters share their names with."""
    while argument in taken:
        argument += "_input"
    return argument


def example_of(module: Any, names: Sequence[str], images: Images, example: Any) -> dict[str, Any]:
    """Tensors to export a module with, two samples each, by the names of its inputs, on its device and in its type."""
    torch = load_torch()
    place = next((tensor for tensor in module.parameters() if tensor.is_floating_point()), torch.zeros(()))
    if example is not None:
        given = example if isinstance(example, (tuple, list)) else (example,)
        return {name: _placed(torch.as_tensor(value), place) for name, value in zip(names, given, strict=False)}
    first = None if images.files is not None else images.transformed(images.first)
    if first is None or isinstance(first, Image.Image):
        size = parsed_size(images.options.size) if images.options.size is not None else (_SIDE, _SIDE)
        noise = torch.randn((2, _channels(module), *size), generator=torch.Generator().manual_seed(0))
        return {names[0]: _placed(noise, place)}
    found = first if isinstance(first, Mapping) else {names[0]: first}
    rank = _sample_rank(module)
    tensors = {name: torch.as_tensor(_array(found[name])) for name in names}
    whole = next(iter(tensors.values())).ndim == rank
    batches = {name: tensor[None] if whole else tensor for name, tensor in tensors.items()}
    return {name: _placed(_two(batch), place) for name, batch in batches.items()}


def _two(batch: Any) -> Any:
    """The first two samples; a single one twice, since exporters take an axis of size 1 for one that stays so."""
    return load_torch().cat([batch[:1], batch[:1]]) if len(batch) == 1 else batch[:2]


def _placed(tensor: Any, place: Any) -> Any:
    return tensor.to(place.device, place.dtype) if tensor.is_floating_point() else tensor.to(place.device)


def _convolution(module: Any) -> Any:
    """The first convolution of a module; None if there is none."""
    from torch.nn.modules.conv import _ConvNd

    return next((part for part in module.modules() if isinstance(part, _ConvNd)), None)


def _sample_rank(module: Any) -> int:
    convolution = _convolution(module)
    return 3 if convolution is None else int(convolution.weight.ndim) - 1


def _channels(module: Any) -> int:
    convolution = _convolution(module)
    return 3 if convolution is None else int(convolution.in_channels)


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _items_of(images: Any) -> Iterable[Any]:
    """The items of what was given: one for a tensor, an array, an image or a dict; those of an iterable or data set."""
    if isinstance(images, (Mapping, Image.Image)) or hasattr(images, "__array__"):
        return [images]
    if not hasattr(images, "__iter__") and hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        return (images[index] for index in range(len(images)))
    if not hasattr(images, "__iter__"):
        raise DataError(
            f"the images are a {type(images).__name__}; give tensors, arrays, PIL images, paths, or a DataLoader"
        )
    return images  # type: ignore[no-any-return]


def _peeked(items: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first item, and all of them."""
    iterator = iter(items)
    for first in iterator:
        return first, chain([first], iterator) if iterator is items else items
    raise DataError("there are no images; give tensors, arrays, PIL images, paths, or a DataLoader")


def _array(value: Any) -> Array:
    """An array of a tensor or array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if not hasattr(value, "__array__"):
        raise DataError(
            f"an item of the images is a {type(value).__name__}; give tensors, arrays or PIL images (transform= makes "
            "one of each image), or tuples or dicts of them"
        )
    return np.asarray(value)
