"""The laws, one module per family of operators. A new law needs a test, and one of a similar node that it refuses."""

from importlib import import_module

__all__ = ["load_all"]

_FAMILIES = (
    "mixing",
    "einsum",
    "normalization",
    "homogeneous",
    "pooling",
    "reductions",
    "joins",
    "products",
    "attention",
    "recurrence",
    "quantization",
    "movement",
    "barriers",
)


def load_all() -> None:
    """Register every law."""
    for family in _FAMILIES:
        import_module(f"{__name__}.{family}")
