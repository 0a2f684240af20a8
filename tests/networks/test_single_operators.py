"""Single operators with random attributes and opsets: what a walk concludes holds at all sizes that the graph allows.

`ONNXNORM_EXAMPLES=3000 pytest tests/networks/test_single_operators.py` makes as many draws; the default is a few
hundred. Draws are the same in every run: that of a failed test is `draw_graph(seed, CATALOG)`.
"""

from __future__ import annotations

import os

import pytest

from onnxnorm.scaling.laws import LAWS
from onnxnorm.scaling.operators import load_all
from tests.helpers.draws import CATALOG, OPERATORS, IllegalDrawError, draw_graph
from tests.helpers.draws.check import check_drawn

DRAWS = int(os.environ.get("ONNXNORM_EXAMPLES", "400"))
CHUNK = 50


@pytest.mark.parametrize("first", range(0, DRAWS, CHUNK))
def test_draws(first: int) -> None:
    """Most draws are legal, in most of these scales flow, and most of them run at other sizes."""
    legal = flowing = sizes = 0
    for seed in range(first, first + CHUNK):
        try:
            drawn = draw_graph(seed, CATALOG)
        except IllegalDrawError:
            continue
        try:
            report = check_drawn(drawn, seed)
        except Exception as error:
            raise AssertionError(f"draw {seed}: {', '.join(drawn.operators)}") from error
        legal, flowing, sizes = legal + 1, flowing + bool(report.flowing), sizes + report.sizes
    assert legal > CHUNK / 3
    assert flowing > legal / 2
    assert sizes > 3 * legal


def test_every_operator_with_a_law_is_drawn() -> None:
    load_all()
    laws = {name for name, entry in LAWS.items() if entry.barrier is None}
    # Shape and Size are drawn with others; of NonZero and NonMaxSuppression, sizes depend on data; some are random; the
    # runtime lacks the rest.
    others = {"Shape", "Size", "NonZero", "NonMaxSuppression", "RandomNormalLike", "RandomUniformLike"}
    assert laws - OPERATORS == others | {"SwiGLU", "Swish", "TensorScatter"}
