"""The section on float16 from the ranges that a calibration stored, without running a model."""

from __future__ import annotations

import onnx
import pytest

import onnxnorm
from onnxnorm.report.page.text import number
from onnxnorm.verification import Fp16
from tests.corpus import CASES, feeds
from tests.helpers.commands import DEMO, SOME
from tests.helpers.pages import SVG, Page


@pytest.fixture(scope="module")
def statistics() -> onnxnorm.Statistics:
    return onnxnorm.calibrate(DEMO, SOME[:3], preset="unit", measure=("range",))


@pytest.fixture(scope="module")
def lowered(statistics: onnxnorm.Statistics) -> onnx.ModelProto:
    return onnxnorm.rewrite(DEMO, statistics, ceiling=4.0, verify=False).model


@pytest.fixture(scope="module")
def measured(lowered: onnx.ModelProto) -> Fp16:
    """Both models, run on the images of the calibration."""
    found = onnxnorm.verify(DEMO, lowered, SOME[:3], preset="unit", fp16=True).fp16
    assert found is not None
    return found


def test_before_a_rewrite(statistics: onnxnorm.Statistics, measured: Fp16) -> None:
    page = Page(onnxnorm.write_report(DEMO, statistics).html)
    rows = {row[0]: row[1:] for row in page.table("fp16")}
    assert rows["largest activation"] == [f"{measured.original.largest:.4g}"]
    assert rows["values above 512"] == [f"0 of {len(measured.original.values)}"]
    assert rows["values that overflow"] == [f"0 of {len(measured.original.values)}"]
    assert "outputs not finite" not in rows
    assert "on the 3 images of the calibration" in page.words
    assert "In the rewritten model" not in page.words


@pytest.mark.parametrize("fp16", [False, True])
def test_after_a_rewrite(statistics: onnxnorm.Statistics, lowered: onnx.ModelProto, measured: Fp16, fp16: bool) -> None:
    """The largest magnitudes are those of both models on the images of the calibration, whether or not they run."""
    page = Page(onnxnorm.write_report(DEMO, statistics, rewritten=lowered, verify=fp16, fp16=fp16, limit=1).html)
    rows = {row[0]: row[1:] for row in page.table("fp16")}
    nearest = max(measured.original.values, key=lambda name: measured.original.values[name])
    assert rows[nearest] == [number(side.values[nearest]) for side in measured.sides.values()]
    assert ("outputs' rms error against float32" in rows) == fp16
    assert "In the rewritten model they are these times its scales" in page.words
    assert "at most" not in page.words
    marks = [use for use in page.svgs()[-1].iter(f"{SVG}use") if "fill: var(--after)" in use.attrib["style"]]
    assert len(marks) == len(measured.rewritten.values) + 1  # and one that says which is which


def test_data_is_measured_as_before(statistics: onnxnorm.Statistics, lowered: onnx.ModelProto) -> None:
    page = Page(onnxnorm.write_report(DEMO, statistics, rewritten=lowered, data=SOME[3:4], fp16=True).html)
    assert "on the inputs given" in page.words
    assert "of the calibration, which stored them" not in page.words


def test_a_bound_is_called_one() -> None:
    proto = CASES["relu6_with_attributes"].build()
    statistics = onnxnorm.calibrate(proto, feeds(proto), measure=("range",))
    done = onnxnorm.rewrite(proto, statistics, allow="nodes", verify=False)
    page = Page(onnxnorm.write_report(proto, statistics, rewritten=done.model, verify=False).html)
    rows = {row[0]: row[1:] for row in page.table("fp16")}
    assert any(cells[-1].startswith("at most ") for cells in rows.values())
    assert not any(cells[0].startswith("at most ") for cells in rows.values())
    assert "a value is at most that large" in page.words


def test_without_ranges_there_is_no_such_section() -> None:
    statistics = onnxnorm.calibrate(DEMO, SOME[:2], preset="unit")
    assert 'id="fp16"' not in onnxnorm.write_report(DEMO, statistics).html
