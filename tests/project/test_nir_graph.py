"""A chain of convolutions as a NIR file: its firing rates are the activations that it has without spikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import oracle
from tests.helpers.graphs import model, rand

pytest.importorskip("nir")
pytest.importorskip("torch")

BODY = (
    "a = Conv<pads=[1, 1, 1, 1]>(x, w, b) r = Relu(a) p = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(r) "
    "f = Flatten(p) g = Gemm<transB=1>(f, m, c)"
)


def test_rates_are_activations(tmp_path: Path) -> None:
    """Below the threshold a neuron that subtracts it fires as often as it is charged, to one spike in all steps."""
    from tools.measurements.nir_graph import simulate, write_nir

    constants = {"w": rand(3, 2, 3, 3) / 40, "b": rand(3) / 40, "m": rand(2, 12, seed=1), "c": rand(2, seed=2)}
    proto = model(
        BODY.replace("g =", "z ="), {"x": (1, 2, 4, 4)}, {k: v.astype(np.float32) for k, v in constants.items()}
    )
    x, steps, threshold = np.abs(rand(1, 2, 4, 4)), 400, 2.0
    write_nir(proto, {"a": threshold}, tmp_path / "n.nir")
    activations = oracle.activations(proto, {"x": x}, ["r", "z"])
    assert 0 < activations["r"].max() < 1
    got = simulate(tmp_path / "n.nir", x, steps, subtract=True) / steps
    # a spike stands for the threshold, and the last one of each neuron may not have come yet
    expected = constants["m"] @ (activations["r"].reshape(3, 2, 2, 2, 2).mean(axis=(2, 4)).reshape(-1) / threshold)
    slack = 1.01 * np.abs(constants["m"]).sum(axis=1) / steps + 1e-5
    assert (np.abs(got[0] - expected - constants["c"]) <= slack).all()
    other = simulate(tmp_path / "n.nir", x, steps, subtract=False) / steps
    assert not np.allclose(other, got)


def test_max_pooling_has_no_node(tmp_path: Path) -> None:
    from tools.measurements.nir_graph import write_nir

    proto = model("a = Conv(x, w, b) z = MaxPool<kernel_shape=[2, 2]>(a)", {"x": (1, 2, 4, 4)}, {
        "w": rand(3, 2, 1, 1), "b": rand(3)
    })  # fmt: skip
    with pytest.raises(ValueError, match="NIR has no node for MaxPool"):
        write_nir(proto, {}, tmp_path / "n.nir")
    assert not (tmp_path / "n.nir").exists()
