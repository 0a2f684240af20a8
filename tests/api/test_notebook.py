"""How results show themselves in a session and in a notebook."""

from __future__ import annotations

import io
import re
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from rich.console import Console

import onnxnorm
from onnxnorm.api import progress as bars
from onnxnorm.display import Raw, html_block, html_table
from tests.helpers.calibrations import net
from tests.helpers.commands import DEMO, IMAGES, SOME
from tests.helpers.graphs import model, rand

WORDS: dict[str, Any] = {"preset": "unit", "provider": "cpu"}
EVIL = '<img src=x onerror=alert(1)>&"\u202e\x1b[31m'


@pytest.fixture(scope="module")
def statistics() -> onnxnorm.Statistics:
    return onnxnorm.calibrate(DEMO, SOME, measure=("rms", "p99.9"), **WORDS)


@pytest.fixture(scope="module")
def done(statistics: onnxnorm.Statistics) -> Any:
    return onnxnorm.rewrite(DEMO, statistics, provider="cpu")


class Tags(HTMLParser):
    """The tags of a piece of HTML, and whether each is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def results(statistics: onnxnorm.Statistics, done: Any) -> list[Any]:
    return [statistics, done.plan, done, done.verification]


def test_repr_is_one_short_line(statistics: onnxnorm.Statistics, done: Any) -> None:
    for thing in results(statistics, done):
        assert repr(thing).startswith(f"<{type(thing).__name__}: ")
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 300
    assert repr(statistics) == "<Statistics: statistics of 240 channels in 8 values over 6 images>"


def test_tables(statistics: onnxnorm.Statistics, done: Any) -> None:
    expected = {
        type(statistics): ("relu4_2", ">240 channels", "median s.e."),
        type(done.plan): ("conv4_2", "Conv", "why not free"),
        type(done): ("conv4_2", "mean before: min", "the same function"),
        type(done.verification): ("logits", "float32", "tolerance"),
    }
    for thing in results(statistics, done):
        html = thing._repr_html_()
        tags = Tags(html)
        assert tags.open == []
        assert {"table", "th", "td"} <= tags.seen
        assert "script" not in tags.seen
        for word in expected[type(thing)]:
            assert word.removeprefix(">240 ") in html, word


def test_the_plot(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the layers are in it; two of them in one notebook share no ids; without the extra there is none."""
    pytest.importorskip("matplotlib")
    html = done._repr_html_()
    plot = html[html.index("<svg") : html.index("</svg>")]
    assert all(f"conv{layer}" in plot for layer in ("1_1", "4_2"))
    assert "target 1" in plot
    assert "§" not in plot
    assert html == done._repr_html_()
    other = onnxnorm.rewrite(DEMO, done.statistics, target=2.0, provider="cpu")._repr_html_()
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (html, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "<svg" not in done._repr_html_()
    assert "<table" in done._repr_html_()


def test_names_are_escaped() -> None:
    """A model whose names are markup, control characters and changes of direction."""
    proto = model("a = Conv(x, w) r = Relu(a) y = Sigmoid(r) q = Conv(r, w2)", {"x": ("n", 3, 8, 8)}, {}, ("y", "q"))
    proto.graph.initializer.extend(numpy_helper.from_array(rand(4, n, 3, 3), name) for n, name in ((3, "w"), (4, "w2")))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{EVIL}{index}"
        for names in (node.input, node.output):
            names[:] = [name if name in {"x", "w", "w2"} else EVIL + name for name in names]
    for output in proto.graph.output:
        output.name = EVIL + output.name
    done = onnxnorm.normalize(proto, rand(4, 3, 8, 8), provider="cpu", verify=True)
    assert done.statistics is not None
    assert done.verification is not None
    for thing in (done.statistics, done.plan, done, done.verification):
        html = thing._repr_html_()
        assert "&lt;img" in html
        assert "img" not in Tags(html).seen
        assert not {"\u202e", "\x1b"} & set(html)
        assert not {"\u202e", "\x1b"} & set(repr(thing))


def test_skipped_images_are_named(tmp_path: Any) -> None:
    for index in range(7):
        (tmp_path / f"<b>{index}.jpg").write_bytes(b"no image")
    html = onnxnorm.calibrate(DEMO, [IMAGES, tmp_path], **WORDS)._repr_html_()
    assert html.count("&lt;b&gt;") == 5
    assert "... and 2 more" in html


def test_a_plan_without_layers_says_why() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, 2, 2]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    plan = onnxnorm.plan(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert "no convolutions to normalize" in plan._repr_html_()
    assert "<table" not in plan._repr_html_()


def test_statistics_of_one_image_have_no_errors() -> None:
    assert "–" in onnxnorm.calibrate(DEMO, SOME[:1], **WORDS)._repr_html_()


def test_html_is_built_from_text() -> None:
    table = html_table([">n", "name"], [(1, "<b>"), (2, Raw("<i>x</i>"))])
    assert "&lt;b&gt;" in table
    assert "<i>x</i>" in table
    assert html_block("a & b", table).startswith("<div><p>a &amp; b</p><div")


def test_a_data_frame(statistics: onnxnorm.Statistics) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed (extra notebook)")
    frame = statistics.to_dataframe()
    columns = ["value", "measure", "channel", "images", "mean", "rms", "max", "p99.9"]
    assert list(frame.columns) == [*columns, "standard_error", "relative_error", "live"]
    assert len(frame) == 240
    for value, moments in statistics.means.items():
        rows = frame[frame.value == value.name]
        np.testing.assert_array_equal(rows["mean"], moments.mean)
        np.testing.assert_array_equal(rows["max"], moments.largest)
        np.testing.assert_array_equal(rows["relative_error"], moments.relative_error)
        np.testing.assert_array_equal(rows["channel"], np.arange(moments.channels))
    assert (frame["rms"] >= frame["mean"].abs() * (1 - 1e-6)).all()
    assert (frame["p99.9"] <= frame["max"]).all()
    bare = onnxnorm.calibrate(DEMO, SOME[:2], **WORDS).to_dataframe()
    assert [name for name in frame.columns if name not in bare.columns] == ["rms", "max", "p99.9"]


def test_without_pandas(statistics: onnxnorm.Statistics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(onnxnorm.OptionError, match=r"to_dataframe needs pandas .*pip install 'onnxnorm\[notebook\]'"):
        statistics.to_dataframe()


def test_a_progress_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`progress=True` shows one where there is somebody to look at it; a function is called as before."""
    stream = io.StringIO()
    seen: list[int] = []
    for terminal, expected in ((True, True), (False, False)):
        console = Console(file=stream, force_terminal=terminal, width=120)
        monkeypatch.setattr(bars, "Console", lambda console=console, **_: console)
        stream.truncate(0)
        onnxnorm.calibrate(DEMO, SOME, progress=True, **WORDS)
        assert ("images/s" in stream.getvalue()) is expected
    stream.truncate(0)
    onnxnorm.normalize(DEMO, SOME, progress=False, **WORDS)
    onnxnorm.normalize(DEMO, SOME, progress=lambda now: seen.append(now.done), **WORDS)
    assert (seen[-1], stream.getvalue().strip("\0")) == (6, "")
    assert capsys.readouterr() == ("", "")


def test_a_value_by_its_name() -> None:
    statistics = onnxnorm.calibrate(net(), rand(4, 3, 9, 9), provider="cpu")
    assert statistics["r"] is next(moments for value, moments in statistics.values.items() if value.name == "r")
    with pytest.raises(KeyError, match="no value 'relu' was measured; there are r, z"):
        statistics["relu"]
