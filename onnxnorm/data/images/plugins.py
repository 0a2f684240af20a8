"""HEIC and AVIF images, which Pillow reads only with a plug-in, or if it was built so.

Their endings always count as those of images: a file that cannot be read for want of a plug-in is skipped, with a
reason that names it, and DATA is the same on every machine.
"""

from __future__ import annotations

from importlib import import_module

from PIL import features

__all__ = ["missing_plugin", "plugin_endings", "register_plugins"]

_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF = frozenset({b"avif", b"avis"})


def plugin_endings() -> frozenset[str]:
    """Return the file extensions of images that need a plug-in."""
    return frozenset({".heic", ".heif", ".avif"})


def register_plugins() -> None:
    """Register the plug-in for HEIC, if it is installed."""
    try:
        import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return


def missing_plugin(head: bytes) -> str:
    """Return what to install for an image that Pillow does not read, given its first bytes; empty if nothing helps.

    Source: ISO/IEC 14496-12, section 4.3: the brand in the box `ftyp` at the start of the file.
    """
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in _HEIC and not _has_heif():
        return "HEIC images need a plug-in: pip install 'onnxnorm[heif]'"
    if brand in _AVIF and "avif" not in features.get_supported():
        return "AVIF images need Pillow 11.3 or later: pip install -U pillow"
    return ""


def _has_heif() -> bool:
    try:
        import_module("pillow_heif")
    except ImportError:
        return False
    return True
