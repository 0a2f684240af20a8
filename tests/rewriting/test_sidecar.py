"""The record in a file of its own: whatever happens to the rewrite, the model that is there finds the right one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.rewriting import record, sidecar_path
from tests.helpers.kills import states_after_kills

DEMO = Path(__file__).parents[2] / "models" / "demo_vgg.onnx"

PREPARE = f"""
from pathlib import Path
import onnxnorm
from onnxnorm.api import rewrite
from onnxnorm.rewriting import record
record.RECORDED = 100
def rewritten(target):
    onnxnorm.rewrite({str(DEMO)!r}, statistic="weights", power_of_two=True, target=target, verify=False,
                     output=Path(folder) / "out.onnx")
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RECORDED", 100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize("old", [False, True])
def test_a_kill_leaves_a_model_that_can_be_restored(tmp_path: Path, old: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    prepare = PREPARE + ("rewritten(1.0)" if old else "")
    states = states_after_kills(out, tmp_path / "states", prepare, "rewritten(4.0)")
    assert len(states) > 2
    targets = []
    for state in states:
        model = state / "out.onnx"
        assert model.exists() or not old
        if model.exists():
            restored = onnxnorm.restore(model)
            assert restored.same
            targets.append(restored.rewrites[0]["target"])
        onnxnorm.rewrite(
            DEMO, statistic="weights", power_of_two=True, target=2.0, verify=False, output=model
        )  # the next one cleans up
        assert onnxnorm.restore(model).same
        assert {path.name for path in state.iterdir()} == {"out.onnx", "out.onnx.scales.safetensors"}
    assert targets == sorted(targets)
    assert set(targets) == ({"1.0", "4.0"} if old else {"4.0"})


def test_rewrites_in_place_keep_each_their_record(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    onnxnorm.rewrite(DEMO, statistic="weights", power_of_two=True, target=3.0, verify=False, output=model)
    for target in (5.0, 9.0):
        onnxnorm.rewrite(
            model, statistic="weights", power_of_two=True, target=target, verify=False, output=model, in_place=True
        )
        assert onnxnorm.restore(model).same
    assert len(list(tmp_path.iterdir())) == 4
    onnxnorm.rewrite(DEMO, statistic="weights", power_of_two=True, verify=False, output=model)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", sidecar_path(model).name}


def test_a_sidecar_that_cannot_be_written(tmp_path: Path) -> None:
    """Nothing is written then, over an old model either."""
    model = tmp_path / "m.onnx"
    onnxnorm.rewrite(DEMO, statistic="weights", verify=False, output=model)
    before = model.read_bytes()
    sidecar_path(model).unlink()
    sidecar_path(model).mkdir()
    with pytest.raises(onnxnorm.ModelError, match=r"cannot write .*m\.onnx\.scales\.safetensors: it is a folder"):
        onnxnorm.rewrite(DEMO, statistic="weights", target=7.0, verify=False, output=model)
    assert model.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_permissions_of_a_sidecar_stay(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    for target in (1.0, 2.0):
        onnxnorm.rewrite(DEMO, statistic="weights", target=target, verify=False, output=model)
        assert target == 1 or stat.S_IMODE(sidecar_path(model).stat().st_mode) == 0o600
        sidecar_path(model).chmod(0o600)


def test_a_refused_layout_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`restore`, `rewrite` and `normalize` check where the data files go before they read anything else."""
    import onnx

    (tmp_path / "in").mkdir()
    model = tmp_path / "in" / "m.onnx"
    onnx.save(onnx.load(DEMO), model, save_as_external_data=True, location="w.bin", size_threshold=64)
    monkeypatch.setattr(Model, "digest", None)
    data = tmp_path / "none.npy"
    for call in (
        lambda out: onnxnorm.restore(model, out),
        lambda out: onnxnorm.rewrite(model, statistic="weights", output=out),
        lambda out: onnxnorm.normalize(model, [data], out),
    ):
        with pytest.raises(onnxnorm.ModelError, match=r"external data at 'w\.bin', the same place; give another name"):
            call(tmp_path / "w.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
