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
