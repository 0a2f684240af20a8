"""tools/style_transfer: losses fall, and nothing depends on the unit of a network's activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.helpers.commands import IMAGES
from tests.helpers.vggs import vgg

torch = pytest.importorskip("torch", reason="torch is not installed (extra torch)")

from tools.style_transfer import pictures  # noqa: E402
from tools.style_transfer.network import CONTENT, STYLE, Features, activations, gram, load  # noqa: E402
from tools.style_transfer.transfer import Transferred, losses_of, transfer  # noqa: E402

SIZE, ITERATIONS = 32, 4
UNIT = 8.0  # a power of two, so that rounding is the same


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory) -> Features:
    path = tmp_path_factory.mktemp("vgg") / "vgg.onnx"
    onnx.save(vgg(), path)
    return load(path)


def image(name: str) -> Any:
    return pictures.read(IMAGES / f"{name}.jpg", SIZE)


def in_unit(constants: Features) -> Features:
    """The same network with activations that are UNIT times as large in every layer."""
    return {
        name: value * UNIT if name.endswith(".bias") or name == "conv1_1.weight" else value
        for name, value in constants.items()
    }


def transferred(constants: Features) -> Transferred:
    content = image("windmill_rhodes")
    return transfer(losses_of(constants, content, image("clownfish"), 0.03), content, ITERATIONS)


def test_activations_are_those_of_the_model(tmp_path: Path, constants: Features) -> None:
    import onnxruntime

    model = vgg()
    values = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = image("clownfish")
    expected = dict(zip(values, session.run(values, {"image": given.numpy()}), strict=True))
    found = activations(constants, given)
    assert set(found) == {*STYLE, CONTENT}
    places = {"relu1_1": 0, "relu2_1": 2, "relu3_1": 4, "relu4_1": 7, "relu4_2": 8, "relu5_1": 10}
    for name, place in places.items():
        right = expected[values[place]][0]
        np.testing.assert_allclose(found[name].numpy(), right.reshape(len(right), -1), rtol=1e-4, atol=1e-3)


def test_gram() -> None:
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert gram(features).tolist() == [[2.5, 5.5], [5.5, 12.5]]


def test_losses_fall(constants: Features) -> None:
    done = transferred(constants)
    assert {len(values) for values in done.losses.values()} == {ITERATIONS + 1}
    assert done.losses[CONTENT][0] == 0
    first, last = (sum(done.losses[name][at] for name in STYLE) for at in (0, -1))
    assert last < 0.9 * first
    pixels = done.image + pictures.MEAN
    assert float(pixels.min()) >= -1e-3
    assert float(pixels.max()) <= 255.001


def test_the_unit_of_activations_does_not_matter(constants: Features) -> None:
    done, other = transferred(constants), transferred(in_unit(constants))
    np.testing.assert_allclose(other.image.numpy(), done.image.numpy(), atol=1e-3)
    for name, power in [*((name, 4) for name in STYLE), (CONTENT, 2)]:
        np.testing.assert_allclose(other.losses[name], np.multiply(done.losses[name], UNIT**power), rtol=1e-4)


def test_pictures_there_and_back() -> None:
    given = image("clownfish")
    again = pictures.picture(given)
    assert again.size == (SIZE, SIZE)
    back = np.asarray(again, np.float32)[:, :, ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(back, (given + pictures.MEAN)[0].round().numpy())
