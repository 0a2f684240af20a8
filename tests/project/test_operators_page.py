"""docs/operators.md lists every operator of the installed onnx, and is current."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import onnx
import onnxruntime
import pytest

from onnxnorm.scaling.laws import LAWS
from tools.docs import operators
from tools.docs.tried import try_operator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lister() -> ModuleType:
    return operators


def test_the_page_is_current(lister: ModuleType) -> None:
    written = lister.PAGE.read_text(encoding="utf-8")
    if lister.recorded_version(written) != onnx.__version__:
        pytest.skip("the page was written for another onnx")
    assert written.startswith(lister.laws_page()), "run python -m tools.docs.operators"


def test_what_each_level_gives_is_current(lister: ModuleType) -> None:
    written = lister.PAGE.read_text(encoding="utf-8")
    versions = (lister.recorded_version(written), lister.recorded_runtime(written))
    if versions != (onnx.__version__, onnxruntime.__version__):
        pytest.skip("the levels were tried with another onnx, or another runtime")
    assert written.endswith("\n\n" + lister.levels_section()), "run python -m tools.docs.operators"


@pytest.mark.parametrize(
    ("name", "constants", "attributes"),
    [
        ("Relu", ("own",), ("own",)),
        ("LayerNormalization", ("pinned",), ("tied",)),
        ("Sigmoid", ("pinned",), ("pinned",)),
    ],
)
def test_an_operator_is_tried(name: str, constants: tuple[str, ...], attributes: tuple[str, ...]) -> None:
    found = try_operator(name)
    assert not isinstance(found, str), found
    assert found.states == {"constants": constants, "attributes": attributes, "nodes": ("own",)}
    assert found.adds_nodes == (name != "Relu")


@pytest.mark.parametrize("name", ["StringConcat", "BitShift", "SequenceMap", "If", "TfIdfVectorizer"])
def test_a_barrier_is_tried(name: str) -> None:
    """What reads text, bits, sequences or a subgraph pins, and is opened in front of it."""
    found = try_operator(name)
    assert not isinstance(found, str), found
    assert found.states == {"constants": ("pinned",), "attributes": ("pinned",), "nodes": ("own",)}
    assert found.adds_nodes


def test_what_cannot_be_tried_is_told_with_the_reason(lister: ModuleType) -> None:
    assert try_operator("ImageDecoder") == "it reads the bytes of an image file, which no filter computes"
    written = lister.PAGE.read_text(encoding="utf-8")
    if lister.recorded_version(written) == onnx.__version__:
        assert re.findall(r"^Not tried: ([\w, ]+), because", written, re.MULTILINE) == ["ImageDecoder"]


def test_every_operator_is_on_the_page_once(lister: ModuleType) -> None:
    rows = re.findall(r"^\| ([A-Z]\w*(?:, \w+)*) \|", lister.laws_page(), re.MULTILINE)
    listed = [name for row in rows for name in row.split(", ")]
    assert sorted(listed) == lister.operators()


def test_every_law_is_told_in_words(lister: ModuleType) -> None:
    lister.laws_page()
    for name, entry in LAWS.items():
        if entry.barrier is None:
            assert entry.apply.__doc__, name
            assert entry.apply.__doc__.endswith("."), name


def test_a_law_is_for_an_operator_that_exists(lister: ModuleType) -> None:
    lister.laws_page()
    known = set(lister.operators())
    unknown = {name for name in LAWS if name not in known}
    # Operators that came with an opset newer than the oldest supported onnx's.
    newer = {"BitCast", "CausalConvWithState", "CumProd", "LinearAttention", "Swish", "SwiGLU", "TensorScatter",
             "Attention", "RMSNormalization", "RotaryEmbedding"}  # fmt: skip
    assert unknown <= newer
