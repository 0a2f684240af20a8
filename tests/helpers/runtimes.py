"""Tests of what an old ONNX Runtime cannot run."""

from __future__ import annotations

import onnxruntime as ort
import pytest

__all__ = ["recent"]

_WORKS = (1, 31)

recent = pytest.mark.skipif(
    tuple(int(part) for part in ort.__version__.split(".")[:2]) < _WORKS,
    reason="ONNX Runtime 1.23 refuses the original; seen to run in 1.31",
)
"""Marks a test whose original network the oldest supported runtime does not run."""
