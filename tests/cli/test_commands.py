"""Every command from end to end: what it prints, where, and what it leaves."""

from __future__ import annotations

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxnorm
from tests.helpers.commands import DEMO, IMAGES, SOME, Ran, run, succeeded
from tests.helpers.graphs import model, rand

PLAN = ["filters", "free", "pinned", "tied", "dead", "barriers", "groups"]
VERIFY = [
    "same",
    "max_relative_error",
    "relative_rms_error",
    "bit_identical",
    "outputs",
    "samples",
    "graph_identical",
    "attributes_changed",
    "nodes_added",
    "time_ratio",
    "compared_in",
    "comparisons",
    "not_compared",
]


@pytest.fixture(scope="module")
def stats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of the demo on all its photographs."""
    path = tmp_path_factory.mktemp("stats") / "s.safetensors"
    succeeded("calibrate", DEMO, IMAGES, "--preset", "unit", "-o", path, "-q")
    return path


@pytest.fixture(scope="module")
def rewritten(stats: Path) -> Path:
    path = stats.parent / "rewritten.onnx"
    succeeded("rewrite", DEMO, "--stats", stats, "-o", path, "-q")
    return path


def relu_net(path: Path) -> Path:
    """One convolution without bias, and a Relu that is the output."""
    onnx.save(model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)}), path)
    return path


def arrays(path: Path, count: int = 12, seed: int = 0) -> Path:
    np.save(path, rand(count, 3, 8, 8, seed=seed))
    return path


def test_calibrate(tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    ran = succeeded("calibrate", DEMO, *SOME, "--preset", "unit", "-o", out)
    assert "statistics of 240 channels in 8 values over 6 images" in ran.out
    assert "images as unit: RGB/255" in ran.out
    assert "relative standard error of the means" in ran.out
    assert ran.err == f"next: onnxnorm rewrite {DEMO} --stats {out}\n"
    assert onnxnorm.Statistics.load(out).images == 6


def test_calibrate_json(tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    found = succeeded("calibrate", DEMO, *SOME, "--preset", "unit", "-o", out, "--json").json
    assert found["images"] == 6
    assert found["channels"] == 240
    assert found["output"] == str(out)
    assert found["skipped"] == []
    assert len(found["model"]) == 64
    assert set(found["relative_standard_error"]) == {"median", "p95", "max"}
    assert {value["measure"] for value in found["values"]} == {"mean"}


def test_percentiles_from_end_to_end(tmp_path: Path) -> None:
    stats, out = tmp_path / "s.safetensors", tmp_path / "out.onnx"
    words: list[str | Path] = ["calibrate", DEMO, *SOME, "--preset", "unit", "-o", stats, "--measure", "rms", "--json"]
    assert succeeded(*words).json["measures"] == ["mean", "rms"]
    refused = run("rewrite", DEMO, "--stats", stats, "--statistic", "p99.9", "-o", out).error
    assert "calibrate this model again, with --measure p99.9" in refused
    found = succeeded(*words, "--measure", "p99.9").json
    assert found["measures"] == ["mean", "rms", "max", "p99.9"]
    means = [value for value in found["values"] if value["measure"] == "mean"]
    assert all(value["p99.9"] > value["mean"] > 0 for value in means)
    assert all("p99.9" not in value for value in found["values"] if value not in means)
    largest = {value.name: moments.largest for value, moments in onnxnorm.Statistics.load(stats).means.items()}
    assert {value["name"]: value["max"] for value in means} == {
        name: np.asarray(x).max() for name, x in largest.items()
    }
    ran = succeeded("rewrite", DEMO, "--stats", stats, "--statistic", "p99.9", "--strength", "0.5", "-o", out, "--json")
    assert ran.json["statistic"] == "p99.9"
    assert ran.json["verification"]["same"]
    assert "p99.9 before" in succeeded("rewrite", DEMO, "--stats", stats, "--statistic", "p99.9", "-o", out).out
    unknown = run(*words, "--measure", "p100").error
    assert "--measure 'p100' is unknown; choose of rms, max, p99.9, range, pQ or pQ:nonzero" in unknown
    assert "Q above 0 and below 100" in unknown
    assert "--statistic 'p0' is unknown" in run("rewrite", DEMO, "--stats", stats, "--statistic", "p0", "-o", out).error
    for name in ("p90", "p99.99:nonzero"):  # all percentiles are in one histogram
        ran = succeeded("rewrite", DEMO, "--stats", stats, "--statistic", name, "-o", out, "--json")
        assert ran.json["statistic"] == name
    assert (
        "--weighting image counts each for 1/positions"
        in run(*words, "--measure", "p99.9", "--weighting", "image").error
    )


def test_calibrate_names_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(SOME[0].read_bytes())
    (tmp_path / "b.jpg").write_bytes(b"no image")
    out = tmp_path / "s"
    ran = succeeded("calibrate", DEMO, tmp_path, "--preset", "unit", "-o", out)
    assert f"skipped {tmp_path / 'b.jpg'}: " in ran.err
    assert "1 skipped" in ran.out
    found = succeeded("calibrate", DEMO, tmp_path, "--preset", "unit", "-o", out, "--json").json
    assert [Path(item["name"]).name for item in found["skipped"]] == ["b.jpg"]


def test_one_image_has_no_standard_error(tmp_path: Path) -> None:
    found = succeeded("calibrate", DEMO, SOME[0], "--preset", "unit", "-o", tmp_path / "s", "--json").json
    assert found["relative_standard_error"] == {"median": None, "p95": None, "max": None}


@pytest.mark.parametrize(
    "options",
    [
        ["--preset", "caffe", "--size", "64x64", "--resize", "squash"],
        ["--mean", "0.5", "--std", "0.2,0.3,0.4", "--channels", "bgr", "--layout", "nchw"],
        ["--batch-size", "5", "--limit", "3", "--threads", "1", "--provider", "cpu"],
        ["--tolerance", "0.5", "--tolerance-share", "0.5", "--filters", "all"],
    ],
)
def test_calibrate_takes_every_option_of_the_contract(options: list[str], tmp_path: Path) -> None:
    found = succeeded("calibrate", DEMO, *SOME, "-o", tmp_path / "s", "--json", *options).json
    assert found["images"] == (3 if "--limit" in options else 6)


def test_merge(tmp_path: Path) -> None:
    parts = [tmp_path / name for name in ("one", "two")]
    for part, images in zip(parts, (SOME[:2], SOME[2:]), strict=True):
        succeeded("calibrate", DEMO, *images, "--preset", "unit", "-o", part)
    out = tmp_path / "both"
    told = succeeded("merge", *parts, "-o", out).out
    assert "over 6 images" in told
    assert told.endswith(f"written to {out}\n")
    found = succeeded("merge", *parts, "-o", out, "--json").json
    assert (found["images"], found["output"]) == (6, str(out))
    whole = onnxnorm.calibrate(DEMO, SOME, preset="unit", provider="cpu")
    for value, moments in onnxnorm.Statistics.load(out).values.items():
        np.testing.assert_allclose(moments.mean, whole.values[value].mean, rtol=1e-6)


def test_plan(stats: Path) -> None:
    ran = succeeded("plan", DEMO)
    assert "conv4_2" in ran.out
    assert "240 filters in 8 layers: 240 free, 0 tied, 0 pinned" in ran.out
    assert ran.err.startswith("next: onnxnorm calibrate")
    assert "1 dead" in succeeded("plan", DEMO, "--stats", stats).out


def test_plan_json_is_the_contract(stats: Path, tmp_path: Path) -> None:
    found = succeeded("plan", DEMO, "--json").json
    assert list(found)[: len(PLAN)] == PLAN
    assert set(found) - set(PLAN) <= {"layers", "levels"}
    assert list(found["levels"]) == ["constants", "attributes", "nodes"]
    counts = ["free", "tied", "pinned", "exact", "attributes_changed", "nodes_added", "elements_touched"]
    assert list(found["levels"]["nodes"]) == counts
    assert [found[name] for name in PLAN[:6]] == [240, 240, 0, 0, 0, []]
    assert {"values": ["conv1_1", "relu1_1"], "channels": 16, "tied": False}.items() <= found["groups"][0].items()
    assert succeeded("plan", DEMO, "--stats", stats, "--json").json["dead"] == 1
    found = succeeded("plan", relu_net(tmp_path / "m.onnx"), "--json").json
    assert (found["filters"], found["free"], found["pinned"]) == (4, 0, 4)
    assert list(found["barriers"][0]) == ["node", "op", "value", "channels", "reason"]
    assert found["barriers"][0]["channels"] == 4
    assert succeeded("plan", tmp_path / "m.onnx", "--outputs", "scale", "--json").json["free"] == 4


def test_plan_says_what_ties_and_what_can_reach_the_target(tmp_path: Path) -> None:
    """Filters that an Add joins before their Relu share scale and mean, so that they are tied and reach the target."""
    body = "a = Conv(x, u) b = Conv(x, v) s = Add(a, b) r = Relu(s) c = Conv(r, w) d = Relu(c) y = Conv(d, w)"
    weights = {"u": rand(4, 3, 3, 3), "v": rand(4, 3, 3, 3, seed=1), "w": rand(4, 4, 1, 1)}
    onnx.save(model(body, {"x": ("n", 3, 8, 8)}, weights), tmp_path / "m.onnx")
    shown = succeeded("plan", tmp_path / "m.onnx", "--outputs", "scale").out
    assert shown.count("tied by Add s") == 2
    assert "why not free" in shown
    title, counts = (line.split() for line in shown[shown.index("What may change") :].splitlines()[1:3])
    assert " ".join(title).startswith("--allow can reach the target tied pinned")
    assert counts[:4] == ["constants", "16", "(100%)", "8"]
    found = succeeded("plan", tmp_path / "m.onnx", "--outputs", "scale", "--json").json
    assert found["levels"]["constants"]["exact"] == 16
    assert [layer["reasons"] for layer in found["layers"]] == [["tied by Add s"], ["tied by Add s"], [], []]


def test_a_negative_mean_is_told_with_what_it_comes_to(tmp_path: Path) -> None:
    weights = {"w": rand(2, 3, 1, 1), "b": np.asarray([-9, 9], np.float32), "v": rand(2, 2, 1, 1)}
    proto = model("a = Conv(x, w, b) y = LeakyRelu<alpha=0.5>(a) z = Conv(y, v)", {"x": ("n", 3, 8, 8)}, weights)
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", rand(6, 3, 8, 8))
    ran = succeeded("normalize", tmp_path / "m.onnx", tmp_path / "x.npy", "-o", tmp_path / "o.onnx", "--target", "2")
    assert "1 filters have a negative mean: scales are positive, so it comes to -2 instead of 2" in ran.out


def test_plan_counts_dense_layers_on_request() -> None:
    assert succeeded("plan", DEMO, "--filters", "all", "--json").json["filters"] == 240 + 48 + 12


def test_rewrite(stats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    ran = succeeded("rewrite", DEMO, "--stats", stats, "-o", out)
    assert "240 filters in 8 layers" in ran.out
    assert "verdict: the same function" in ran.out
    assert f"written to {out}" in ran.out
    assert "dead in conv4_2, their scale stays 1: " in ran.out
    assert "before INT8 quantization" in ran.err
    assert "\nnext: onnxnorm verify" in ran.err
    onnx.checker.check_model(onnx.load(out), full_check=True)


def test_rewrite_json(stats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    found = succeeded("rewrite", DEMO, "--stats", stats, "-o", out, "--json").json
    assert (found["filters"], found["free"], found["dead"], found["output"]) == (240, 240, 1, str(out))
    assert found["verification"]["same"] is True
    assert list(found["verification"]) == VERIFY
    assert len(found["layers"]) == 8
    (dead,) = (layer for layer in found["layers"] if layer["dead"])
    assert dead["node"] == "conv4_2"
    means = onnxnorm.Statistics.load(stats).values
    (moments,) = (moments for value, moments in means.items() if value.name == "relu4_2")
    assert dead["dead"] == np.flatnonzero(moments.mean == 0).tolist()
    assert all(layer["after"]["max"] == pytest.approx(1) for layer in found["layers"])


def test_rewrite_without_verification(stats: Path, tmp_path: Path) -> None:
    ran = succeeded("rewrite", DEMO, "--stats", stats, "-o", tmp_path / "out.onnx", "--no-verify")
    assert "verdict: not verified" in ran.out


def test_power_of_two_gives_the_same_bits(stats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    found = succeeded("rewrite", DEMO, "--stats", stats, "-o", out, "--power-of-two", "--json").json
    assert found["verification"]["bit_identical"] is True
    found = succeeded("verify", DEMO, out, *SOME, "--preset", "unit", "--json").json
    assert found["bit_identical"] is True
    assert (found["max_relative_error"], found["relative_rms_error"]) == (0.0, 0.0)
    for before, after in zip(onnx.load(DEMO).graph.initializer, onnx.load(out).graph.initializer, strict=True):
        old, new = numpy_helper.to_array(before), numpy_helper.to_array(after)
        if old.dtype == np.float32:
            assert np.all(np.frexp(new[old != 0] / old[old != 0])[0] == 0.5)


def test_scaled_outputs_are_recorded_and_verified(tmp_path: Path) -> None:
    network, data = relu_net(tmp_path / "m.onnx"), arrays(tmp_path / "d.npy")
    out = tmp_path / "out.onnx"
    succeeded("calibrate", network, data, "-o", tmp_path / "s")
    found = succeeded("rewrite", network, "--stats", tmp_path / "s", "-o", out, "--outputs", "scale", "--json").json
    assert found["free"] == 4
    scales = found["outputs"]["z"]
    recorded = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert np.ravel(json.loads(recorded["onnxnorm.outputs"])["z"]["scales"]).tolist() == scales
    assert succeeded("verify", network, out, data, "--json").json["same"] is True
    means = onnxnorm.calibrate(out, data).values
    np.testing.assert_allclose(next(iter(means.values())).mean, 1, rtol=1e-5)


def test_missing_biases_stay_missing(tmp_path: Path) -> None:
    network, data = relu_net(tmp_path / "m.onnx"), arrays(tmp_path / "d.npy")
    succeeded("normalize", network, data, "-o", tmp_path / "out.onnx", "--outputs", "scale")
    out = onnx.load(tmp_path / "out.onnx")
    assert [len(node.input) for node in out.graph.node] == [2, 1]
    assert len(out.graph.initializer) == 1


def test_verify(rewritten: Path) -> None:
    ran = succeeded("verify", DEMO, rewritten)
    assert "verdict: the same function" in ran.out
    assert "graph: the same but for constants' values" in ran.out
    assert ran.err == ""


def test_verify_json_is_the_contract(rewritten: Path) -> None:
    found = succeeded("verify", DEMO, rewritten, *SOME, "--preset", "unit", "--json").json
    assert list(found) == VERIFY
    assert (found["same"], found["graph_identical"], found["bit_identical"]) == (True, True, False)
    assert 0 < found["max_relative_error"] < 1e-5
    assert 0 < found["relative_rms_error"] < 1e-5
    assert found["samples"] == 6
    assert list(found["outputs"]) == ["logits"]
    assert succeeded("verify", DEMO, rewritten, "--json").json["samples"] == 8
    assert (
        succeeded("verify", DEMO, rewritten, IMAGES, "--preset", "unit", "--limit", "3", "--json").json["samples"] == 3
    )


def damaged(source: Path, target: Path, index: int = 0) -> Path:
    proto = onnx.load(source)
    tensor = proto.graph.initializer[index]
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, target)
    return target


def test_verify_tells_a_wrong_rewrite(rewritten: Path, tmp_path: Path) -> None:
    wrong = damaged(rewritten, tmp_path / "wrong.onnx")
    ran = run("verify", DEMO, wrong)
    assert ran.code == 3
    assert "verdict: not the same function: output 'logits' differs by" in ran.out
    ran = run("verify", DEMO, wrong, "--json")
    assert ran.code == 3
    assert (ran.json["same"], ran.json["graph_identical"]) == (False, True)
    assert run("verify", DEMO, wrong, "--tolerance-output", "1e9", "--json").json["same"] is True


def test_an_error_without_bounds_is_null_in_json(rewritten: Path, tmp_path: Path) -> None:
    proto = onnx.load(rewritten)
    tensor = proto.graph.initializer[0]
    array = np.full_like(numpy_helper.to_array(tensor), np.nan)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, tmp_path / "nan.onnx")
    ran = run("verify", DEMO, tmp_path / "nan.onnx", "--json")
    assert ran.code == 3
    assert ran.json["max_relative_error"] is None


def test_normalize(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    ran = succeeded("normalize", DEMO, IMAGES, "--preset", "unit", "-o", out, "--limit", "12")
    assert "over 12 images" in ran.out
    assert "verdict: the same function" in ran.out
    assert f"written to {out}" in ran.out
    assert succeeded("verify", DEMO, out, "--json").json["graph_identical"] is True


def test_a_failed_verification_writes_nothing(stats: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.write_bytes(b"mine")
    calls: list[Ran] = [
        run("rewrite", DEMO, "--stats", stats, "-o", out, "--tolerance-output", "0"),
        run("normalize", DEMO, *SOME, "--preset", "unit", "-o", out, "--tolerance-output", "0", "-q"),
    ]
    assert [ran.code for ran in calls] == [3, 3]
    assert "not the same function" in calls[0].error
    assert "nothing was written" in calls[0].error
    assert out.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_quiet_is_quiet_and_json_is_alone(stats: Path, tmp_path: Path) -> None:
    commands: list[list[str | Path]] = [
        ["calibrate", DEMO, *SOME, "--preset", "unit", "-o", tmp_path / "s"],
        ["plan", DEMO],
        ["rewrite", DEMO, "--stats", stats, "-o", tmp_path / "o"],
        ["verify", DEMO, DEMO],
        ["merge", stats, "-o", tmp_path / "m"],
    ]
    for words in commands:
        quiet = succeeded(*words, "--quiet")
        assert quiet.err == ""
        assert quiet.out
        alone = succeeded(*words, "--json", "-q")
        assert alone.err == ""
        assert alone.json


def test_names_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    proto = model("a = Conv(x, w) z = Relu(a)", {"x": ("n", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    proto.graph.node[0].name = "block[/red]0]"
    onnx.save(proto, tmp_path / "m[1].onnx")
    assert "block[/red]0]" in succeeded("plan", tmp_path / "m[1].onnx").out


def test_plan_says_why_there_is_nothing(tmp_path: Path) -> None:
    """A network of dense layers, one whose convolutions are in functions of ONNX's own domain, and one without any."""
    dense = helper.make_node("MatMul", ["x", "w"], ["y"])
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    function = helper.make_function("", "Block", ["x", "w"], ["y"], [conv], [helper.make_opsetid("", 18)])
    call = helper.make_node("Block", ["x", "w"], ["y"])
    relu = helper.make_node("Relu", ["x"], ["y"])
    for node, functions, expected in (
        (dense, [], "with --filters all, dense layers count too (it has 1)"),
        (call, [function], "outside of functions of its own, which hold 1; inline these"),
        (relu, [], "no convolutions to normalize"),
    ):
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in ("x", "w")]
        infos.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
        graph = helper.make_graph([node], "g", infos[:2], infos[2:])
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, functions=functions), tmp_path / "m.onnx")
        shown = succeeded("plan", tmp_path / "m.onnx").out
        assert expected in " ".join(shown.split())
        assert "next:" not in shown


def test_a_list_on_standard_input_an_archive_and_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same photographs in every form give the same statistics, and what is left out is said."""
    expected = succeeded("calibrate", DEMO, *SOME, "--preset", "unit", "-o", tmp_path / "s", "--json", "-q").json
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in SOME:
            archive.write(path, path.name)
        archive.writestr("notes.txt", "none")
    for path in SOME:
        shutil.copy(path, tmp_path)
    content = "".join(f"{path}\n" for path in SOME).encode()
    for given in ("@-", f"{tmp_path}/*.jpg", f"file://{tmp_path}/a.zip", tmp_path / "a.zip"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        ran = succeeded("calibrate", DEMO, given, "--preset", "unit", "-o", tmp_path / "t", "--json")
        for name in ("images", "values", "relative_standard_error"):
            assert ran.json[name] == expected[name], given
        assert ("of DATA: 1 other member(s) ignored (1 .txt)" in ran.err) == str(given).endswith(".zip")


def test_what_is_read_by_another_name_is_not_replaced(tmp_path: Path) -> None:
    shutil.copy(SOME[0], tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.jpg\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(SOME[0], "a.jpg")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for given, out in (
        (f"@{tmp_path}/list.txt", "list.txt"),
        (f"@{tmp_path}/list.txt", "a.jpg"),
        (f"{tmp_path}/*.jpg", "a.jpg"),
        (tmp_path / "a.zip", "a.zip"),
        (tmp_path, "a.zip"),
    ):
        for verb in ("calibrate", "normalize"):
            assert "would be lost" in run(verb, DEMO, given, "-o", tmp_path / out).error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
