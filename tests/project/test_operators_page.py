"""docs/operators.md lists every operator of the installed onnx, and is current."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import onnx
import pytest

from onnxnorm.scaling.laws import LAWS
from tools.docs import operators

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lister() -> ModuleType:
    return operators


def test_the_page_is_current(lister: ModuleType) -> None:
    written = lister.PAGE.read_text(encoding="utf-8")
    if lister.recorded_version(written) != onnx.__version__:
        pytest.skip("the page was written for another onnx")
    assert written == lister.page(), "run python -m tools.docs.operators"


def test_every_operator_is_on_the_page_once(lister: ModuleType) -> None:
    rows = re.findall(r"^\| ([A-Z]\w*(?:, \w+)*) \|", lister.page(), re.MULTILINE)
    listed = [name for row in rows for name in row.split(", ")]
    assert sorted(listed) == lister.operators()


def test_every_law_is_told_in_words(lister: ModuleType) -> None:
    lister.page()
    for name, entry in LAWS.items():
        if entry.barrier is None:
            assert entry.apply.__doc__, name
            assert entry.apply.__doc__.endswith("."), name


def test_a_law_is_for_an_operator_that_exists(lister: ModuleType) -> None:
    lister.page()
    known = set(lister.operators())
    unknown = {name for name in LAWS if name not in known}
    # Operators that came with an opset newer than the oldest supported onnx's.
    newer = {"BitCast", "CausalConvWithState", "CumProd", "LinearAttention", "Swish", "SwiGLU", "TensorScatter",
             "Attention", "RMSNormalization", "RotaryEmbedding"}  # fmt: skip
    assert unknown <= newer
