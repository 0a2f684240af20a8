"""Messages about how images were prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxnorm.cli.terminal import Terminal
from onnxnorm.data.images.options import ImageOptions, given_options
from onnxnorm.data.images.preprocessing import Preprocessing, recipe_from_json

__all__ = ["tell_preparation"]


def tell_preparation(terminal: Terminal, record: Mapping[str, Any] | None, options: ImageOptions | None = None) -> None:
    """Show how images were prepared, and note an option that nobody gave, or that has no effect.

    Args:
        terminal: where to show it.
        record: the preprocessing as statistics record it; None if there were arrays only.
        options: what was asked for; None if the record says more than that.
    """
    if record:
        recipe = recipe_from_json(record)
        terminal.show(f"images as {recipe.describe()}")
        if options is not None and options.preset is None and isinstance(recipe, Preprocessing) and _is_usual(recipe):
            terminal.say(
                f"no --preset was given, so {recipe.preset} was taken; give one if the network was trained on images "
                "that were prepared in another way"
            )
    elif options is not None and (given := given_options(options)):
        has = "has" if len(given) == 1 else "have"
        terminal.say(f"arrays are fed as they are; {', '.join(given)} {has} no effect")


def _is_usual(recipe: Preprocessing) -> bool:
    """Whether the preset is the default. A network of bytes has no other; one with a folded preset has its own."""
    usual = "unit" if recipe.channels == "gray" else "imagenet"
    return recipe.dtype.kind != "u" and recipe.preset == usual
