"""A rewrite that does little says so, and why; `--require-share` makes that an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxnorm
from tests.helpers.commands import run, succeeded
from tests.helpers.graphs import model, rand


@pytest.fixture
def outputs_only(tmp_path: Path) -> tuple[Path, Path]:
    """A convolution that is an output, and its input."""
    proto = model("z = Conv(x, w)", {"x": ("N", 3, 8, 8)}, {"w": rand(4, 3, 3, 3)})
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", rand(6, 3, 8, 8))
    return tmp_path / "m.onnx", tmp_path / "x.npy"


def test_nothing_normalized_is_said_with_the_reason(outputs_only: tuple[Path, Path], tmp_path: Path) -> None:
    ran = succeeded("normalize", *outputs_only, "-o", tmp_path / "o.onnx")
    assert "nothing is normalized: none of 4 live filters end at the target" in ran.err
    assert "held by output" in ran.err
    assert "--outputs scale normalizes outputs too" in ran.err
    assert succeeded("normalize", *outputs_only, "-o", tmp_path / "o.onnx", "--json").json["free"] == 0
    scaled = succeeded("normalize", *outputs_only, "-o", tmp_path / "p.onnx", "--outputs", "scale", "--json")
    assert scaled.json["at_target_share"] == 1.0
    assert "live filters" not in scaled.err


def test_a_few_that_are_held_are_said_too(tmp_path: Path) -> None:
    """Most filters end at the target, but the last layer, an output, cannot; nothing is said if all of them do."""
    weights = {"v": rand(12, 3, 3, 3), "w": rand(4, 12, 1, 1, seed=1)}
    proto = model("a = Conv(x, v)  b = Relu(a)  z = Conv(b, w)", {"x": ("N", 3, 8, 8)}, weights)
    onnx.save(proto, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", rand(6, 3, 8, 8))
    words = ("normalize", tmp_path / "m.onnx", tmp_path / "x.npy", "-o", tmp_path / "o.onnx")
    ran = succeeded(*words)
    assert "only 12 (75%) of 16 live filters end at the target: 4 are held by output 'z'" in ran.err
    assert "--outputs scale normalizes outputs too" in ran.err
    assert "live filters" not in succeeded(*words, "--outputs", "scale").err


@pytest.mark.parametrize("power", [(), ("--power-of-two",)])
def test_a_required_share_that_is_missed_writes_nothing(
    outputs_only: tuple[Path, Path], tmp_path: Path, power: tuple[str, ...]
) -> None:
    out = tmp_path / "o.onnx"
    ran = run("normalize", *outputs_only, "-o", out, "--require-share", "0.5", *power)
    assert ran.code == 3
    assert "--require-share asks for 50%; nothing was written" in ran.err
    assert not out.exists()
    succeeded("normalize", *outputs_only, "-o", out, "--require-share", "1", "--outputs", "scale", *power)
    assert out.exists()


@pytest.mark.parametrize("share", ["0", "1.5", "-1"])
def test_a_share_that_makes_no_sense(outputs_only: tuple[Path, Path], tmp_path: Path, share: str) -> None:
    ran = run("normalize", *outputs_only, "-o", tmp_path / "o.onnx", "--require-share", share)
    assert ran.code == 1
    assert "must lie in (0, 1]" in ran.error


def test_tied_filters_do_not_reach_the_target() -> None:
    """A residual block: what is added shares its scales, so two layers with different means do not both come to 1."""
    weights = {"u": rand(4, 3, 3, 3), "v": rand(4, 4, 1, 1, seed=1), "w": rand(2, 4, 1, 1, seed=2)}
    body = "a = Conv(x, u)  b = Relu(a)  c = Conv(b, v)  d = Add(b, c)  e = Relu(d)  z = Conv(e, w)"
    reach = onnxnorm.normalize(model(body, {"x": ("N", 3, 8, 8)}, weights), rand(4, 3, 8, 8), provider="cpu").reach
    assert reach.live == 10
    assert reach.normalized == 0
    assert "8 share a scale with others" in reach.obstacle


X = {"x": ("N", 3, 8, 8)}
RESIDUAL = "a = Conv(x, u)  b = Relu(a)  c = Conv(b, v)  d = Add(b, c)  e = Relu(d)  z = Sigmoid(e)"
RESIDUAL_WEIGHTS = {"u": rand(4, 3, 3, 3), "v": rand(4, 4, 1, 1, seed=1)}
BENT = "a = Conv(x, u)  b = Celu(a)  c = Conv(b, v)  z = Sigmoid(c)"
BENT_WEIGHTS = {"u": rand(1, 3, 3, 3), "v": rand(19, 1, 1, 1, seed=1)}


def said(folder: Path, body: str, weights: dict[str, np.ndarray], *words: str) -> tuple[str, bool]:
    """The line on filters that do not end at the target, or none; and whether it is a warning at the very end."""
    onnx.save(model(body, X, weights), folder / "m.onnx")
    np.save(folder / "x.npy", rand(4, 3, 8, 8))
    ran = succeeded("normalize", folder / "m.onnx", folder / "x.npy", "-o", folder / "o.onnx", *words)
    lines = ran.err.splitlines()
    found = [line for line in lines if "live filters end" in line]
    last = bool(found) and lines[-1] == found[0]
    assert last == any(line.startswith("warning: ") for line in lines)
    return "".join(found), last


def test_only_levels_that_gain_filters_are_named(tmp_path: Path) -> None:
    """A residual sum needs nodes; the alpha of a Celu can follow one filter's scale, but Sigmoid holds the others."""
    tied, _ = said(tmp_path, RESIDUAL, RESIDUAL_WEIGHTS)
    assert "; with --allow nodes 8 of 8 can reach it; onnxnorm plan MODEL says why, layer by layer" in tied
    assert "attributes" not in tied
    bent, _ = said(tmp_path, BENT, BENT_WEIGHTS)
    assert "; with --allow attributes 1, with --allow nodes 20 of 20 can reach it; onnxnorm plan MODEL" in bent
    higher, _ = said(tmp_path, BENT, BENT_WEIGHTS, "--allow", "attributes")
    assert "; with --allow nodes 20 of 20 can reach it; onnxnorm plan MODEL" in higher
    assert said(tmp_path, BENT, BENT_WEIGHTS, "--allow", "nodes") == ("", False)


def test_less_than_a_tenth_at_the_target_is_a_warning_and_said_last(tmp_path: Path) -> None:
    body = "a = Conv(x, u)  b = Relu(a)  c = Conv(b, v)  z = Sigmoid(c)"
    line, last = said(tmp_path, body, BENT_WEIGHTS)
    assert line.startswith("warning: only 1 (5%) of 20 live filters end at the target: 19 are held by Sigmoid")
    assert last
    line, last = said(tmp_path, body, {"u": rand(4, 3, 3, 3), "v": rand(16, 4, 1, 1, seed=1)})
    assert line.startswith("only 4 (20%) of 20 live filters")
    assert not last


def test_levels_are_named_for_what_was_written_in_place(tmp_path: Path) -> None:
    """What is planned then is what was rewritten, for MODEL is gone; its weights lie in a file beside it."""
    proto = model(RESIDUAL, X, {"u": rand(64, 3, 3, 3), "v": rand(64, 64, 1, 1, seed=1)})
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    np.save(tmp_path / "x.npy", rand(4, 3, 8, 8))
    words = ("normalize", tmp_path / "m.onnx", tmp_path / "x.npy", "-o", tmp_path / "m.onnx", "--in-place")
    assert "with --allow nodes 128 of 128 can reach it" in succeeded(*words).err


def test_a_required_share_that_is_missed_names_levels_too(tmp_path: Path) -> None:
    onnx.save(model(RESIDUAL, X, RESIDUAL_WEIGHTS), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", rand(4, 3, 8, 8))
    words = ("normalize", tmp_path / "m.onnx", tmp_path / "x.npy", "-o", tmp_path / "o.onnx", "--require-share", "1")
    assert "with --allow nodes 8 of 8 can reach it" in run(*words).error
    assert succeeded(*words, "--allow", "nodes").code == 0


def test_levels_are_named_for_one_scale_per_layer_and_for_scaled_outputs(tmp_path: Path) -> None:
    """The options of the rewrite hold for what is named: one scale per layer, and outputs that may be scaled."""
    line, _ = said(tmp_path, RESIDUAL, RESIDUAL_WEIGHTS, "--per", "layer")
    assert "with --allow nodes 8 of 8 can reach it" in line
    ends = "a = Conv(x, u)  b = Relu(a)  c = Conv(b, v)  z = Add(b, c)"
    line, _ = said(tmp_path, ends, RESIDUAL_WEIGHTS, "--outputs", "scale")
    assert "with --allow nodes 8 of 8 can reach it" in line
