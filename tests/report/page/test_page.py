"""The page: well-formed, complete in itself, safe, and its numbers are those of the statistics."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.report.page.text import clean, counted, number, percent, ranges, shortened
from onnxnorm.statistics.precision import RelativeErrors, forecast
from tests.helpers.commands import DEMO, IMAGES
from tests.helpers.graphs import model, rand
from tests.helpers.pages import SVG, Page

PHOTOS = sorted(IMAGES.iterdir())[:8]
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg></style><b>&amp;",
    "$\\frac{1}{0}$ {{ 7 * 7 }} §0§",
    "名前\u202ereversed\x01",
)


@pytest.fixture(scope="module")
def statistics() -> onnxnorm.Statistics:
    return onnxnorm.calibrate(DEMO, PHOTOS, preset="unit")


@pytest.fixture(scope="module")
def rewritten(statistics: onnxnorm.Statistics) -> onnx.ModelProto:
    return onnxnorm.rewrite(DEMO, statistics, verify=False).model


@pytest.fixture(scope="module")
def full(statistics: onnxnorm.Statistics, rewritten: onnx.ModelProto) -> Page:
    """The page with everything in it."""
    found = onnxnorm.write_report(DEMO, statistics, rewritten=rewritten, data=PHOTOS[:3], fp16=True, limit=2)
    assert found.path is None
    assert found.verification is not None
    assert found.verification.samples == 2
    return Page(found.html)


@pytest.fixture(scope="module")
def planned(statistics: onnxnorm.Statistics) -> Page:
    return Page(onnxnorm.write_report(DEMO, statistics).html)


def numbers(row: list[str], *columns: int) -> list[float]:
    return [float(row[column].replace(",", "")) for column in columns]


def test_it_is_complete_in_itself(full: Page, planned: Page) -> None:
    for page in (full, planned):
        assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"})
        for tag, name, value in page.attributes:
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "data", "action", "poster"}, (tag, name)
            if name in {"href", "xlink:href"}:
                assert value.startswith("#")
        bare = page.html.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
        assert re.findall(r"[a-z]+://|@import|url\((?!#)", bare) == []
        assert "default-src 'none'" in page.html


def test_the_plots_are_well_formed_and_their_ids_unique(full: Page) -> None:
    svgs = full.svgs()
    assert len(svgs) == 4
    ids = [value for tag, name, value in full.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for svg in svgs:
        assert svg.attrib["role"] == "img"
        assert svg.attrib["aria-label"]
        assert "#0" not in ET.tostring(svg, encoding="unicode").replace("#0}", "")  # no colour but the page's own


def test_every_reference_inside_a_plot_is_there(full: Page) -> None:
    ids = {value for tag, name, value in full.attributes if name == "id"}
    used = {value[1:] for tag, name, value in full.attributes if name == "xlink:href"}
    used |= set(re.findall(r"url\(#([^)]+)\)", full.html))
    assert used
    assert used <= ids


def test_the_same_input_gives_the_same_bytes(
    statistics: onnxnorm.Statistics, rewritten: onnx.ModelProto, full: Page, tmp_path: Path
) -> None:
    again = onnxnorm.write_report(
        str(DEMO), statistics, tmp_path / "r.html", rewritten=rewritten, data=PHOTOS[:3], fp16=True, limit=2
    )
    assert again.html == full.html
    assert (tmp_path / "r.html").read_bytes() == full.html.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_settings_of_the_program_are_neither_used_nor_changed(
    statistics: onnxnorm.Statistics, planned: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 17)
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    before = {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
    assert onnxnorm.write_report(DEMO, statistics).html == planned.html
    assert {name: matplotlib.rcParams[name] for name in before} == before
    assert "matplotlib.pyplot" not in sys.modules


def test_the_layers_are_those_of_the_statistics(full: Page, planned: Page, statistics: onnxnorm.Statistics) -> None:
    assert full.table("layers") == planned.table("layers")
    rows = full.table("layers")
    assert [row[1].split()[0] for row in rows] == [f"conv{i}_{j}" for i in range(1, 5) for j in (1, 2)]
    for row, (value, moments) in zip(rows, statistics.values.items(), strict=True):
        assert row[1].endswith(value.name)
        mean, live = moments.mean, moments.live
        expected = [moments.channels, mean.min(), np.median(mean), mean.max()]
        assert numbers(row, 2, 3, 4, 5) == pytest.approx(expected, rel=6e-3)
        assert numbers(row, 6, 7, 8) == [1, 1, 1]
        scale = 1 / mean[live]
        assert numbers(row, 9, 10) == pytest.approx([scale.min(), scale.max()], rel=6e-3)
        errors = moments.standard_error[live] / mean[live]
        assert row[11] == percent(np.median(errors))
        assert row[12] == percent(np.quantile(errors, 0.95))
        assert row[13] == (str((~live).sum()) if (~live).any() else "")


def test_the_summary_is_that_of_the_plan(full: Page, statistics: onnxnorm.Statistics) -> None:
    plan = onnxnorm.plan(DEMO, statistics)
    errors = RelativeErrors.of(statistics.values)
    wanted = f"images {statistics.images} none skipped filters {plan.filters} in 8 layers free {plan.free}"
    assert wanted in full.words
    assert f"dead {plan.dead} keep scale 1" in full.words
    assert f"standard error {percent(errors.quantile(0.5))}" in full.words
    needed = [row[2:] for row in full.table("certainty") if "filter" in row[0]]
    forecasts = forecast(errors, log_standard_errors=statistics.log_standard_errors)
    assert needed == [
        [f"{item.images:,}{' *' if item.rough else ''}", f"{item.low:,} to {item.high:,}" if item.low else "not known"]
        for item in forecasts
    ]
    worst = [row for row in full.table("certainty") if "filter" not in row[0] and len(row) == 4]
    assert [int(row[1]) for row in worst] == [channel for _, channel, _ in errors.worst(10)]
    assert worst[0][2] == number(statistics.values[errors.worst(1)[0][0]].mean[errors.worst(1)[0][1]])
    assert statistics.model in full.words
    assert "preprocessing unit: RGB/255" in full.words


def test_the_dots_lie_where_the_numbers_are(planned: Page, statistics: onnxnorm.Statistics) -> None:
    svg = planned.svgs()[0]
    first = next(iter(statistics.values.values()))
    dots = dots_of(svg, "before")[0]
    ticks = {
        float(text.text or ""): float(text.attrib["x"])
        for text in svg.iter(f"{SVG}text")
        if re.fullmatch(r"[\d.]+", text.text or "")
    }
    axis = sorted(ticks.items())[-2:]  # the same axis twice: later ones, of the right panel, overwrite the left
    assert len(dots) == first.live.sum()
    shown = np.log10(np.sort(first.mean[first.live]))
    per_decade = (axis[1][1] - axis[0][1]) / (np.log10(axis[1][0]) - np.log10(axis[0][0]))
    assert np.diff(np.sort(dots)) == pytest.approx(np.diff(shown) * per_decade, abs=0.05)
    after = dots_of(svg, "after")[0]
    assert after == pytest.approx(np.full(len(after), axis[1][1] if axis[1][0] == 1 else ticks[1.0]), abs=0.05)


def dots_of(svg: ET.Element, colour: str) -> list[NDArray[Any]]:
    """The horizontal places of the dots of every row."""
    paths = [path for path in svg.iter(f"{SVG}path") if f"stroke: var(--{colour})" in path.attrib.get("style", "")]
    rows = [path.attrib["d"] for path in paths if "round" in path.attrib["style"]]
    return [np.asarray([float(x) for x in re.findall(r"M ([\d.]+)", row)]) for row in rows]


def test_the_verdict(full: Page, planned: Page) -> None:
    assert "The same function" in full.words
    assert "on 2 samples of the data given. The graph is the same but for constants’ values." in full.words
    assert "Measured, not rewritten yet" in planned.words
    assert re.search(r"onnxnorm rewrite demo_vgg\.onnx --stats STATS(?! -o)", planned.words)
    assert "OTHER-PHOTOS --preset unit" in full.words


def test_another_function_is_called_that(
    statistics: onnxnorm.Statistics, rewritten: onnx.ModelProto, tmp_path: Path
) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(rewritten)
    weight = onnx.numpy_helper.to_array(broken.graph.initializer[2]) * np.float32(1.01)
    broken.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(weight, broken.graph.initializer[2].name))
    found = onnxnorm.write_report(DEMO, statistics, tmp_path / "r.html", rewritten=broken)
    assert found.verification is not None
    assert not found.verification.same
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Not the same function" in page.words
    assert 'class="verdict bad"' in page.html
    assert str(found) == f"{found.verification}; the report is in {tmp_path / 'r.html'}"


def test_powers_of_two() -> None:
    maxima = onnxnorm.calibrate(DEMO, IMAGES, preset="unit", measure=("max",))
    done = onnxnorm.rewrite(DEMO, maxima, power_of_two=True, statistic="max", target=2, verify=False)
    page = Page(onnxnorm.write_report(DEMO, maxima, rewritten=done.model, limit=2).html)
    assert "The same function, bit for bit" in page.words
    assert "max to 2, scales rounded to powers of two" in page.words
    for row, layer in zip(page.table("layers"), done.rewriting.scales.layers, strict=True):
        assert numbers(row, 9, 10) == pytest.approx([layer.moved.min(), layer.moved.max()], rel=6e-3)
        after = layer.after[layer.live]
        assert numbers(row, 6, 7, 8) == pytest.approx([after.min(), np.median(after), after.max()], rel=6e-3)


def test_a_statistic_that_was_not_measured_is_not_shown(statistics: onnxnorm.Statistics) -> None:
    done = onnxnorm.rewrite(DEMO, statistic="weights", verify=False)
    page = Page(onnxnorm.write_report(DEMO, statistics, rewritten=done.model, verify=False).html)
    assert "The rewrite brought “weights” to its target; what is shown is the mean." in page.words
    assert "target 1" not in page.words
    for row, layer, moments in zip(
        page.table("layers"), done.rewriting.scales.layers, statistics.values.values(), strict=True
    ):
        assert numbers(row, 4) == pytest.approx([np.median(moments.mean)], rel=6e-3)
        assert numbers(row, 7) == pytest.approx([np.median((moments.mean * layer.scale)[moments.live])], rel=6e-3)


def test_statistics_that_the_rewrite_did_not_use(
    statistics: onnxnorm.Statistics, rewritten: onnx.ModelProto, full: Page
) -> None:
    assert "other statistics" not in full.words
    others = onnxnorm.calibrate(DEMO, sorted(IMAGES.iterdir())[8:12], preset="unit")
    page = Page(onnxnorm.write_report(DEMO, others, rewritten=rewritten, verify=False).html)
    assert "The rewrite used other statistics" in page.words
    assert "Rewritten, not verified here" in page.words
    row, value = page.table("layers")[0], next(iter(others.values))
    after = others.values[value].mean[others.values[value].live & statistics.values[value].live]
    after = after / statistics.values[value].mean[others.values[value].live & statistics.values[value].live]
    assert numbers(row, 7) == pytest.approx([np.median(after)], rel=6e-3)


def test_float16(full: Page, statistics: onnxnorm.Statistics, rewritten: onnx.ModelProto) -> None:
    found = onnxnorm.verify(DEMO, rewritten, PHOTOS[:3], preset="unit", limit=2, fp16=True).fp16
    assert found is not None
    rows = {row[0]: row[1:] for row in full.table("fp16")}
    sides = (found.original, found.rewritten)
    assert rows["largest activation"] == [f"{side.largest:.4g}" for side in sides]
    assert rows["values that overflow"] == [f"{len(side.overflowing)} of {len(side.values)}" for side in sides]
    name = max(found.rewritten.values, key=lambda name: found.rewritten.values[name])
    assert rows[name] == [number(side.values[name]) for side in sides]
    for colour, side in zip(("before", "after"), sides, strict=True):
        marks = [use for use in full.svgs()[-1].iter(f"{SVG}use") if f"fill: var(--{colour})" in use.attrib["style"]]
        assert len(marks) == len(side.values) + 1  # and one that says which is which


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    proto = model(
        "a = Conv(x, w) b = Relu(a) c = Conv(b, v) d = Sigmoid(c) z = Conv(d, u)",
        {"x": ("n", 3, 8, 8)},
        {"w": rand(4, 3, 1, 1), "v": rand(4, 4, 1, 1, seed=1), "u": rand(4, 4, 1, 1, seed=2)},
    )
    for node, name in zip(proto.graph.node, HOSTILE, strict=True):
        node.name = name
    renamed = {"b": HOSTILE[0] + "b", "c": HOSTILE[1] + "c", "z": HOSTILE[2] + "z"}
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    proto.graph.output[0].name = renamed["z"]
    del proto.graph.value_info[:]
    path = tmp_path / "<b>model&.onnx"
    onnx.save(proto, path)
    statistics = onnxnorm.calibrate(path, rand(6, 3, 8, 8))
    statistics = replace(statistics, skipped=((HOSTILE[0], HOSTILE[1]),))
    done = onnxnorm.rewrite(path, statistics, tmp_path / f"{'<i>'}.onnx", verify=False)
    html = onnxnorm.write_report(path, statistics, rewritten=done.path, fp16=True, limit=1).html
    page = Page(html)
    assert page.tags.isdisjoint({"script", "img", "b", "i"})
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    for svg in page.svgs():
        assert {element.tag.removeprefix(SVG) for element in svg.iter()} <= {
            "svg", "g", "path", "text", "tspan", "use", "defs", "clipPath", "rect", "title"
        }  # fmt: skip
    plotted = [text for svg in page.svgs() for text in svg.itertext()]
    for index in (0, 2, 4):
        assert clean(HOSTILE[index]) in page.table("layers")[index // 2][1]
        assert any(clean(HOSTILE[index]) == text for text in plotted)
    assert "49" not in "".join(row[0] for row in page.table("barriers"))
    assert "\x01" not in html
    assert "\u202e" not in html
    assert page.table("skipped") == [[HOSTILE[0], HOSTILE[1]]]


def test_barriers_and_ties_are_told_with_their_reasons() -> None:
    body = "a = Conv(x, w) b = Relu(a) c = Conv(b, v) d = Add(b, c) e = Relu(d) f = Conv(e, u) z = Sigmoid(f)"
    weights = {"w": rand(4, 3, 1, 1), "v": rand(4, 4, 1, 1, seed=1), "u": rand(2, 4, 1, 1, seed=2)}
    proto = model(body, {"x": ("n", 3, 8, 8)}, weights)
    page = Page(onnxnorm.write_report(proto, onnxnorm.calibrate(proto, rand(6, 3, 8, 8))).html)
    barriers, ties = page.table("barriers")[:-1], page.table("barriers")[-1]
    assert ["scaling its input does not just scale its output", "Sigmoid", "1", "2"] in [row[:4] for row in barriers]
    assert ties[0] == "8"
    assert [row[-2:] for row in page.table("layers")] == [["4", ""], ["4", ""], ["", "2"]]
    assert [row[1].partition("not free: ")[2] for row in page.table("layers")] == [
        *["tied by Add d"] * 2,
        "scaling its input does not just scale its output",
    ]


def test_an_image_alone_and_a_model_without_convolutions() -> None:
    proto = model("z = Conv(x, w)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    one = Page(onnxnorm.write_report(proto, onnxnorm.calibrate(proto, rand(1, 3, 8, 8))).html)
    assert "How precise the means are is not known" in one.words
    assert one.table("layers")[0][-3:] == ["–", "–", "4"]


def test_a_filter_with_a_negative_mean_is_shown_by_its_magnitude() -> None:
    proto = model(
        "a = Conv(x, w, b) y = LeakyRelu<alpha=0.5>(a) z = Conv(y, v)",
        {"x": ("n", 3, 8, 8)},
        {"w": rand(2, 3, 1, 1), "b": np.asarray([-9, 9], np.float32), "v": rand(2, 2, 1, 1)},
    )
    page = Page(onnxnorm.write_report(proto, onnxnorm.calibrate(proto, rand(6, 3, 8, 8))).html)
    assert "1 filter with a negative mean" in page.words
    assert numbers(page.table("layers")[0], 6, 8) == [-1, 1]
    assert [len(dots) for dots in dots_of(page.svgs()[0], "before")] == [2, 2]


def test_a_long_network_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxnorm.report.page.layer_plots._PIECE", 4)
    layers = 9
    body = " ".join(f"y{i} = Conv({'x' if i == 0 else f'y{i - 1}'}, w{i})" for i in range(layers))
    weights = {f"w{i}": rand(2, 3 if i == 0 else 2, 1, 1, seed=i) for i in range(layers)}
    proto = model(body, {"x": ("n", 3, 2, 2)}, weights, [f"y{layers - 1}"])
    page = Page(onnxnorm.write_report(proto, onnxnorm.calibrate(proto, rand(4, 3, 2, 2))).html)
    assert len(page.table("layers")) == layers
    labels = [svg.attrib["aria-label"] for svg in page.svgs()]
    assert sum("before and after, layers" in label for label in labels) == 3
    assert labels[0].endswith("layers 1 to 3")


def test_what_does_not_belong_together_is_refused(
    statistics: onnxnorm.Statistics, rewritten: onnx.ModelProto, tmp_path: Path
) -> None:
    other = model("z = Conv(x, w)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    with pytest.raises(onnxnorm.StatisticsError, match="measured on another model"):
        onnxnorm.write_report(other, statistics)
    with pytest.raises(onnxnorm.ModelError, match="says nothing about a rewrite"):
        onnxnorm.write_report(DEMO, statistics, rewritten=DEMO)
    with pytest.raises(onnxnorm.OptionError, match="does not exist"):
        onnxnorm.write_report(DEMO, statistics, tmp_path / "nowhere" / "r.html")
    with pytest.raises(onnxnorm.OptionError, match="give both"):
        onnxnorm.write_report(DEMO, statistics, fp16=True)
    arrays = onnxnorm.calibrate(DEMO, rand(2, 3, 64, 64))
    with pytest.raises(onnxnorm.DataError, match="measured on arrays"):
        onnxnorm.write_report(DEMO, arrays, rewritten=rewritten, data=PHOTOS[:1])


def test_without_the_extra(statistics: onnxnorm.Statistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "r.html"
    target.write_text("old", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(onnxnorm.OptionError, match=r"pip install 'onnxnorm\[report\]'"):
        onnxnorm.write_report(DEMO, statistics, target)
    assert target.read_text(encoding="utf-8") == "old"


def test_the_page_says_how_it_was_prepared(statistics: onnxnorm.Statistics) -> None:
    """Images given to the report are prepared as those of the statistics were."""
    from onnxnorm.api.report import _image_options
    from onnxnorm.data.images.choosing import preprocessing_for
    from onnxnorm.data.images.preprocessing import Preprocessing
    from onnxnorm.model.graph import input_specs

    (spec,) = input_specs(Model.open(DEMO))
    for words in ({"preset": "caffe"}, {"preset": "tf", "resize": "squash"}, {"mean": "1,2,3", "channels": "bgr"}):
        record = onnxnorm.calibrate(DEMO, PHOTOS[:1], **words).inputs["preprocessing"]  # type: ignore[arg-type]
        assert preprocessing_for(spec, _image_options(record)) == Preprocessing.from_json(record)


def test_texts() -> None:
    assert [number(x) for x in (0.0, 1.5, 12345.6, 1e-7, float("nan"), None, float("inf"))] == [
        "0", "1.5", "12,346", "1e-07", "–", "–", "infinite"
    ]  # fmt: skip
    assert [percent(x) for x in (0.0, 0.001, 0.0567, 0.5, 1e-6, None)] == [
        "0.0%",
        "0.1%",
        "5.7%",
        "50%",
        "1.0e-06",
        "–",
    ]
    assert ranges([0, 2, 3, 4, 9]) == "0, 2–4, 9"
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert (counted(1, "value"), counted(2000, "value")) == ("1 value", "2,000 values")


def test_a_section_of_ones_own(statistics: onnxnorm.Statistics, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section is a template and what it shows of the report; without anything to show it is left out."""
    from onnxnorm.report.page.section import Section
    from onnxnorm.report.page.sections import SECTIONS

    template = '<section id="mine"><p>{{ count }} layers of {{ name }}</p></section>\n'
    mine = Section(template, lambda report: {"count": len(report.layers), "name": "<b>"})
    monkeypatch.setattr("onnxnorm.report.page.page.SECTIONS", [*SECTIONS, mine, Section(template, lambda _: None)])
    html = onnxnorm.write_report(DEMO, statistics).html
    assert html.count('<section id="mine"><p>8 layers of &lt;b&gt;</p></section>') == 1
    assert html.index('id="provenance"') < html.index('id="mine"')
