"""Models of any size are cut and exported in the memory of one constant. Each run is a process that tells its peak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.vggs import VGG16, vgg

MB = 1 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")

SCRIPT = """
import json, sys
import onnxnorm.api, onnxruntime

model, folder = sys.argv[1:]

def peak():  # ru_maxrss would begin with the memory of the process that started this one
    status = dict(line.split(":") for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024

found = {"before": peak()}
onnxnorm.features(model, "fc8", f"{folder}/f.onnx", pool="average")
found["features"] = peak()
onnxnorm.export(model, f"{folder}/f.safetensors")
onnxnorm.export(model, f"{folder}/f.npz")
found["export"] = peak()
onnxnorm.export(model, f"{folder}/k.safetensors", layout="keras")
found["keras"] = peak()
print(json.dumps(found))
"""


def test_peak_memory(tmp_path: Path) -> None:
    """The dense layers have 3 x 64 MB; those of Keras are transposed in memory, one after the other."""
    model = vgg(VGG16, (4096, 4096, 4096), size=704)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    size = (tmp_path / "m.onnx").stat().st_size
    assert size > 180 * MB
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "m.onnx", tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["features"] - found["before"] < 40 * MB
    assert found["export"] - found["before"] < 100 * MB
    assert found["keras"] - found["before"] < 160 * MB
    for name in ("f.onnx", "f.safetensors", "f.npz", "k.safetensors"):
        assert abs((tmp_path / name).stat().st_size - size) < MB
