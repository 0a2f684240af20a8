"""Models of any size: rewritten and restored constant by constant, in the memory of a few rows.

Each run is a process of its own, which tells its peak memory. The 3 GB one is slow: `pytest --run-slow`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxnorm
from onnxnorm.model.files import Model
from onnxnorm.model.shapes import read_graph
from onnxnorm.scaling import find_layers, trace
from onnxnorm.statistics import Moments, Statistics, Value

MB = 1 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")

SCRIPT = """
import json, sys
import onnxnorm.api, onnxruntime
from onnxnorm.model import mapped_data

model, stats, out, back, leaky = sys.argv[1:]
if leaky == "leaky":
    mapped_data.MappedData._release = lambda self, start, stop: None

def peak():  # ru_maxrss would begin with the memory of the process that started this one
    status = dict(line.split(":") for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024

found = {"before": peak()}
done = onnxnorm.rewrite(model, stats, out, power_of_two=True, filters="all", verify=False)
found["rewritten"] = peak()
found["changed"] = len(done.rewriting.changed)
found["rounding"] = done.rewriting.rounding.worst[1]
restored = onnxnorm.restore(out, back)
found["restored"] = peak()
found["same"] = restored.same
print(json.dumps(found))
"""


def big_model(path: Path, width: int, layers: int) -> int:
    """Dense layers `width -> 2 * width -> width -> ...` in external data, mostly holes; returns its size."""
    nodes, tensors, offset = [], [], 0
    random = np.random.default_rng(0)
    value, columns = "x", width
    with (path.parent / "weights.bin").open("wb") as stream:
        for index in range(layers):
            rows, columns = columns, 3 * width - columns
            shapes = {f"w{index}": (rows, columns), f"b{index}": (columns,)}
            for name, shape in shapes.items():
                size = 4 * int(np.prod(shape))
                tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
                tensor.data_location = TensorProto.EXTERNAL
                place = {"location": "weights.bin", "offset": offset, "length": size}
                for key, number in place.items():
                    tensor.external_data.add(key=key, value=str(number))
                tensors.append(tensor)
                for part in {0, size // 2 // 4096 * 4096, size - 4096 if size > 8192 else 0}:
                    stream.seek(offset + part)
                    stream.write(random.standard_normal(min(1024, size // 4)).astype(np.float32).tobytes())
                offset += -(-size // 4096) * 4096
            nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [f"a{index}"], name=f"fc{index}"))
            nodes.append(helper.make_node("Relu", [f"a{index}"], [f"r{index}"]))
            value = f"r{index}"
        stream.truncate(offset)
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", columns])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return offset


def made_statistics(path: Path) -> Statistics:
    """Statistics that nobody measured: every filter's mean anywhere between 0.01 and 100."""
    model = Model.open(path)
    (width,) = (dim.dim_value for dim in model.proto.graph.input[0].type.tensor_type.shape.dim[1:])
    found = trace(read_graph(model, {"x": (1, width)}))
    random = np.random.default_rng(1)
    moments = {}
    for layer in find_layers(found, "all"):
        means = np.exp(random.uniform(-4.6, 4.6, (4, layer.channels)))
        moments[Value(layer.site.value, layer.site.measure)] = Moments.of(means, means, np.ones(4))
    return Statistics(model.digest(), onnxnorm.__version__, "all", {"x": (1, width)}, {}, (), moments)


def measured(
    tmp_path: Path, width: int, layers: int, *, leaky: bool = False, power_of_two: bool = True
) -> dict[str, int]:
    """Make, rewrite and restore a model; peak memory in bytes after each step, and the size of the data."""
    model, stats = tmp_path / "model.onnx", tmp_path / "stats.safetensors"
    size = big_model(model, width, layers)
    made_statistics(model).save(stats)
    folders = [tmp_path / name for name in ("out", "back")]
    for folder in folders:
        folder.mkdir()
    words = [model, stats, *(folder / "model.onnx" for folder in folders), "leaky" if leaky else ""]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words)], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    data = [folder / "weights.bin" for folder in (tmp_path, *folders)]
    assert {path.stat().st_size for path in data} == {size}
    return found | {"size": size}


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    found = measured(tmp_path, 1536, 6)
    assert found["size"] > 105 * MB
    assert found["rewritten"] - found["before"] < 80 * MB
    assert found["restored"] - found["before"] < 80 * MB
    assert found["changed"] == 11  # the bias of the last layer has no scale to follow
    assert found["same"]
    for name in ("model.onnx", "weights.bin"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert (tmp_path / "out" / "weights.bin").read_bytes() != (tmp_path / "weights.bin").read_bytes()


def test_pages_that_are_kept_are_noticed(tmp_path: Path) -> None:
    """The measurement can fail: without giving pages back, the whole model counts."""
    found = measured(tmp_path, 1536, 6, leaky=True)
    assert found["rewritten"] - found["before"] > 110 * MB


@pytest.mark.slow
def test_three_gigabytes_in_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(tmp_path, 8192, 6)
    with capsys.disabled():
        print({name: f"{number / 1e9:.2f} GB" if number > MB else number for name, number in found.items()})
    assert found["size"] > 3e9
    assert found["rewritten"] < 1e9
    assert found["restored"] < 1e9
    assert found["same"]
