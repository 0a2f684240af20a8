"""Constants row by row, wherever their data is; and clones in files of every version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxnorm.model.constants import stored_constants
from onnxnorm.model.files import Model
from onnxnorm.rewriting.constants import rows_of
from tests.helpers.graphs import between, rand
from tests.helpers.law_checks import holds
from tests.helpers.model_files import WEIGHTS, external, network


@pytest.mark.parametrize("outside", [False, True])
def test_all_rows_come_once(outside: bool, tmp_path: Path) -> None:
    if outside:
        path = external(tmp_path, dict.fromkeys(WEIGHTS, "weights.bin"))
    else:
        path = tmp_path / "model.onnx"
        onnx.save(network(), path)
    model = Model.open(path)
    for name, constant in stored_constants(model).items():
        rows, at = [], 0
        for start, part in rows_of(model, constant):
            assert start == at
            at += len(part)
            rows.append(part)
        np.testing.assert_array_equal(np.concatenate(rows), WEIGHTS[name])


def test_a_number_is_a_row_and_nothing_is_none() -> None:
    proto = network()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3, np.float32), "number"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "nothing"))
    model = Model.open(proto)
    constants = stored_constants(model)
    ((start, row),) = rows_of(model, constants["number"])
    assert (start, row.tolist()) == (0, [3.0])
    assert list(rows_of(model, constants["nothing"])) == []


@pytest.mark.parametrize("version", [3, 4, 5, 8])
def test_a_clone_is_an_input_in_old_files_only(version: int) -> None:
    proto = between("q = Conv(a, w) \n r = Relu(q) \n b = Conv(r, w)", constants={"w": rand(4, 4, 1, 1)}, opset=8)
    proto.ir_version = version
    if version < 4:
        for tensor in proto.graph.initializer:
            proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    rewritten = holds(proto, {"a": 4, "q": 4, "b": 4}, rtol=1e-6).rewritten.proto
    clones = {tensor.name for tensor in rewritten.graph.initializer} - {t.name for t in proto.graph.initializer}
    assert len(clones) == 1
    assert clones & {value.name for value in rewritten.graph.input} == (clones if version < 4 else set())
