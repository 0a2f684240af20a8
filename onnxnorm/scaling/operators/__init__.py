"""The laws, one file per family of operators; whoever adds one also adds the twin that must refuse."""

from importlib import import_module

__all__ = ["load_all"]

_FAMILIES = (
    "mixing",
    "normalization",
    "homogeneous",
    "pooling",
    "reductions",
    "joins",
    "products",
    "movement",
    "barriers",
)


def load_all() -> None:
    """Register every law."""
    for family in _FAMILIES:
        import_module(f"{__name__}.{family}")
