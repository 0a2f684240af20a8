"""Files that nobody names: where they are written and found, and what they never overwrite."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxnorm
from tests.helpers.commands import DEMO, SOME, run, succeeded
from tests.helpers.graphs import model, rand

STATS, NORMALIZED = Path("model.stats.safetensors"), Path("model-normalized.onnx")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of the model on the photographs."""
    path = tmp_path_factory.mktemp("measured") / "s.safetensors"
    onnxnorm.calibrate(DEMO, SOME, preset="unit", provider="cpu").save(path)
    return path


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: model.onnx and photos/."""
    folder = tmp_path / "desk"
    (folder / "photos").mkdir(parents=True)
    shutil.copy(DEMO, folder / "model.onnx")
    for path in SOME:
        shutil.copy(path, folder / "photos")
    monkeypatch.chdir(folder)
    return folder


def other(path: Path) -> Path:
    onnx.save(model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)}), path)
    return path


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_the_two_commands(desk: Path) -> None:
    ran = succeeded("calibrate", "model.onnx", "photos/", "--preset", "unit")
    assert "written to model.stats.safetensors" in ran.out
    assert ran.err == "next: onnxnorm rewrite model.onnx\n"
    ran = succeeded("rewrite", "model.onnx")
    assert "written to model-normalized.onnx" in ran.out
    assert "statistics: model.stats.safetensors" in ran.err
    assert ran.err.endswith("\nnext: onnxnorm verify model.onnx model-normalized.onnx OTHER-PHOTOS --preset unit\n")
    assert names() == ["model-normalized.onnx", "model.onnx", "model.stats.safetensors", "photos"]
    assert succeeded("verify", "model.onnx", "model-normalized.onnx", "--json").json["same"] is True


def test_again_replaces_what_is_ours(desk: Path) -> None:
    written = []
    for _ in range(2):
        succeeded("calibrate", "model.onnx", "photos", "--preset", "unit", "-q")
        succeeded("rewrite", "model.onnx", "-q")
        written.append(Path("model-normalized.onnx").stat().st_ino)
        succeeded("normalize", "model.onnx", "photos", "--preset", "unit", "-q")
        written.append(Path("model-normalized.onnx").stat().st_ino)
    assert all(one != other for one, other in pairwise(written))
    assert names() == ["model-normalized.onnx", "model.onnx", "model.stats.safetensors", "photos"]


def test_normalize(desk: Path) -> None:
    ran = succeeded("normalize", "model.onnx", "photos", "--preset", "unit")
    assert "written to model-normalized.onnx" in ran.out
    assert "next: onnxnorm verify model.onnx model-normalized.onnx OTHER-PHOTOS --preset unit" in ran.err
    assert names() == ["model-normalized.onnx", "model.onnx", "photos"]


def test_what_is_named_wins(desk: Path, measured: Path) -> None:
    STATS.write_bytes(b"not read")
    succeeded("rewrite", "model.onnx", "--stats", measured, "-o", "out.onnx", "-q")
    succeeded("calibrate", "model.onnx", "photos", "--preset", "unit", "-o", "s", "-q")
    succeeded("normalize", "model.onnx", "photos", "--preset", "unit", "-o", "n.onnx", "-q")
    assert names() == ["model.onnx", "model.stats.safetensors", "n.onnx", "out.onnx", "photos", "s"]
    assert STATS.read_bytes() == b"not read"


def test_statistics_beside_the_model(desk: Path, measured: Path) -> None:
    """The current folder first, then the model's; what is written goes to the current folder."""
    Path("deep").mkdir()
    shutil.move("model.onnx", "deep/model.onnx")
    shutil.copy(measured, "deep/model.stats.safetensors")
    assert f"statistics: {Path('deep', STATS)}" in succeeded("rewrite", "deep/model.onnx").err
    assert NORMALIZED.exists()
    ran = succeeded("calibrate", "deep/model.onnx", "photos", "--preset", "unit", "--limit", "2")
    assert ran.err == "next: onnxnorm rewrite deep/model.onnx\n"
    assert onnxnorm.Statistics.load(STATS).images == 2
    assert onnxnorm.Statistics.load("deep" / STATS).images == len(SOME)
    assert f"statistics: {STATS}" in succeeded("rewrite", "deep/model.onnx").err


def test_plan_and_report_take_them_too(desk: Path, measured: Path) -> None:
    assert succeeded("plan", "model.onnx").err == "next: onnxnorm calibrate model.onnx PHOTOS\n"
    shutil.copy(measured, STATS)
    ran = succeeded("plan", "model.onnx")
    assert ("dead" in ran.out, ran.err) == (True, "")
    pytest.importorskip("jinja2")
    ran = succeeded("report", "model.onnx", "-o", "page.html")
    assert ran.err.endswith("next: onnxnorm rewrite model.onnx\n")
    assert Path("page.html").exists()


@pytest.mark.parametrize(
    ("words", "target"),
    [
        ("calibrate model.onnx photos --preset unit", STATS),
        ("normalize model.onnx photos --preset unit", NORMALIZED),
        ("rewrite model.onnx --statistic weights", NORMALIZED),
    ],
)
@pytest.mark.parametrize("content", ["text", "another model", "statistics of others", "dangling link", "fifo"])
def test_what_is_not_ours_stays(words: str, target: Path, content: str, desk: Path) -> None:
    if content == "dangling link":
        target.symlink_to("nowhere")
    elif content == "fifo":
        if not hasattr(os, "mkfifo"):
            pytest.skip("there are no FIFOs here")
        os.mkfifo(target)
    elif content == "another model":
        other(target)
    else:
        target.write_bytes(b"mine" if content == "text" else (8).to_bytes(8, "little") + b'{"a":1} ')
    before = names()
    ran = run(*words.split())
    assert ran.code == 1
    assert ran.error.startswith(f"error: cannot write {target}: it ")
    assert "name a file with -o, or move this one away" in ran.error
    assert names() == before
    assert not Path("nowhere").exists()


def test_a_folder_of_that_name(desk: Path) -> None:
    NORMALIZED.mkdir()
    assert "it is a folder" in run("rewrite", "model.onnx", "--statistic", "weights").error


def test_the_model_itself_is_never_a_default(desk: Path, measured: Path) -> None:
    """Not by another name either; --in-place alone does not say which file is to be replaced."""
    succeeded("rewrite", "model.onnx", "--stats", measured, "-o", "first.onnx", "-q")
    os.link("first.onnx", "first-normalized.onnx")
    before = Path("first.onnx").read_bytes()
    assert "it is an input" in run("rewrite", "first.onnx", "--statistic", "weights").error
    for words in (["rewrite", "first.onnx", "--statistic", "weights"], ["normalize", "first.onnx", "photos"]):
        ran = run(*words, "--in-place")
        assert (ran.code, "add -o first.onnx, or leave --in-place out" in ran.error) == (2, True)
    assert Path("first.onnx").read_bytes() == before


def test_statistics_of_another_model(desk: Path, measured: Path) -> None:
    other(Path("model.onnx"))
    shutil.copy(measured, STATS)
    ran = run("rewrite", "model.onnx")
    assert ran.code == 1
    assert "measured on another model" in ran.err
    assert "(taken by default: model.stats.safetensors; choose others with --stats)" in ran.err
    assert "taken by default" not in run("rewrite", "model.onnx", "--stats", STATS).error
    ran = succeeded("plan", "model.onnx", "--json")
    assert ran.json["dead"] == 0
    assert "model.stats.safetensors is left aside, so dead filters are not known" in ran.err
    assert "choose others with --stats" in ran.err
    assert "measured on another model" in run("plan", "model.onnx", "--stats", STATS).error
    pytest.importorskip("jinja2")
    assert "taken by default" in run("report", "model.onnx", "-o", "page.html").err


def test_no_statistics(desk: Path) -> None:
    for words in (["rewrite", "model.onnx"], ["report", "model.onnx", "-o", "page.html"]):
        ran = run(*words)
        assert ran.code == 2
        assert "there is no model.stats.safetensors here or beside MODEL" in ran.error
        assert "make it with onnxnorm calibrate model.onnx PHOTOS, or give --stats" in ran.error
        ran = run(words[0], "no.onnx", *words[2:])
        assert (ran.code, ran.error) == (1, "error: model no.onnx does not exist\n")
    STATS.write_bytes(b"broken")
    assert "taken by default: model.stats.safetensors" in run("rewrite", "model.onnx").err


def test_a_statistic_without_images_reads_none(desk: Path) -> None:
    STATS.write_bytes(b"broken")
    assert "statistics:" not in succeeded("rewrite", "model.onnx", "--statistic", "weights").err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--preset", "caffe"],
        ["--preset", "unit", "--resize", "squash"],
        ["--preset", "tf", "--channels", "bgr", "--mean", "0.1,0.2,0.3"],
        ["--std", "0.25"],
    ],
)
def test_suggestions_keep_the_preprocessing(words: list[str], desk: Path) -> None:
    """The suggested command, pasted, prepares images as they were measured; names are quoted."""
    shutil.move("model.onnx", "my model.onnx")
    ran = succeeded("normalize", "my model.onnx", "photos", "--json", *words)
    (line,) = (line for line in ran.err.splitlines() if line.startswith("next: "))
    command = shlex.split(line.removeprefix("next: onnxnorm "))
    assert command[:4] == ["verify", "my model.onnx", "my model-normalized.onnx", "OTHER-PHOTOS"]
    assert len(command) <= 4 + max(len(words), 2) + 4
    again: Any = [word.replace("OTHER-PHOTOS", "photos") for word in command]
    assert succeeded(*again, "--json").json["same"] is True
    options = dict(zip(command[4::2], command[5::2], strict=True))
    keywords: dict[str, Any] = {name.removeprefix("--"): value for name, value in options.items()}
    first = onnxnorm.calibrate("my model.onnx", "photos", provider="cpu", **keywords)
    given: dict[str, Any] = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    second = onnxnorm.calibrate("my model.onnx", "photos", provider="cpu", **given)
    difference = {
        name
        for name, value in first.inputs["preprocessing"].items()
        if json.dumps(value) != json.dumps(second.inputs["preprocessing"][name])
    }
    assert difference <= {"preset"}


def test_a_name_that_looks_like_an_option(desk: Path) -> None:
    shutil.move("model.onnx", "-model.onnx")
    ran = succeeded("plan", "--", "-model.onnx")
    assert ran.err == "next: onnxnorm calibrate ./-model.onnx PHOTOS\n"
