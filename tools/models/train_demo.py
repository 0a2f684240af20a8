"""Train the demo network that ships as models/demo_vgg.onnx.

The task: tell from which photograph a 64x64 crop was cut. The photographs come with the scikit-image package (version
0.26.0; its files are read with Pillow, the package is not imported), and only those that their documentation puts
under CC0 or in the public domain are used. Each photograph is divided into 4x4 cells; four cells, one in each row and
column, are held out: no training crop touches them, and all test crops lie inside them.

The network is a small VGG: 3x3 convolutions with ReLU and max pooling, then two dense layers. There is no batch
normalization, and nothing is rescaled after training. It is written with onnx.helper, without an exporter.

    pip install torch==2.13.0 scikit-image==0.26.0 onnx pillow numpy
    python -m tools.models.train_demo                     # about five minutes on two cores

Runs on other machines give slightly different weights, since sums are taken in another order there.
"""

import argparse
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch.nn import functional

Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = ((16, 16), (24, 24), (32, 32), (48, 48))
HIDDEN = 48
SIZE = 64
SHORTEST = 384
CELLS = 4
HELD_OUT = ((0, 2), (1, 0), (2, 3), (3, 1))
OPSET = 17
IR_VERSION = 8

# name of the class: file in skimage/data. Licences and authors are listed in models/README.md.
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cell": "cell.png",
    "chelsea": "chelsea.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}


@dataclass(frozen=True)
class Settings:
    """What a training run depends on."""

    steps: int
    batch: int
    rate: float
    decay: float
    seed: int


def photographs() -> list[Image.Image]:
    """Load the photographs as RGB, their shortest side scaled to SHORTEST pixels."""
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("error: the photographs come with scikit-image: pip install scikit-image==0.26.0")
    folder = Path(found.origin).parent / "data"
    return [scaled(Image.open(folder / name).convert("RGB")) for name in PHOTOGRAPHS.values()]


def scaled(photo: Image.Image) -> Image.Image:
    factor = SHORTEST / min(photo.size)
    width, height = (round(side * factor) for side in photo.size)
    return photo.resize((width, height), Image.Resampling.BILINEAR)


def held_out_boxes(photo: Image.Image) -> list[Box]:
    width, height = photo.width / CELLS, photo.height / CELLS
    return [(c * width, r * height, (c + 1) * width, (r + 1) * height) for r, c in HELD_OUT]


def touches(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def box_within(outer: Box, sides: tuple[float, float], rng: np.random.Generator) -> Box:
    """Draw a square inside `outer` whose side lies in the range `sides`."""
    side = rng.uniform(*sides)
    left = rng.uniform(outer[0], outer[2] - side)
    top = rng.uniform(outer[1], outer[3] - side)
    return left, top, left + side, top + side


def crop(photo: Image.Image, box: Box) -> Floats:
    pixels = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    return np.asarray(pixels, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)


def training_crop(photo: Image.Image, rng: np.random.Generator) -> Floats:
    """Cut a square that touches no held-out cell, then vary its direction, tint and brightness."""
    forbidden = held_out_boxes(photo)
    box = box_within((0, 0, *photo.size), (56, 112), rng)
    while any(touches(box, other) for other in forbidden):
        box = box_within((0, 0, *photo.size), (56, 112), rng)
    pixels = crop(photo, box)
    if rng.random() < 0.3:
        pixels = np.broadcast_to(pixels.mean(axis=0, keepdims=True), pixels.shape)
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    gain = rng.uniform(0.65, 1.35) * rng.uniform(0.85, 1.15, size=(3, 1, 1))
    return np.clip(pixels * gain, 0, 1).astype(np.float32)


def training_batch(photos: list[Image.Image], count: int, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[Any]]:
    labels = rng.integers(len(photos), size=count)
    return np.stack([training_crop(photos[label], rng) for label in labels]), labels


def test_set(photos: list[Image.Image], per_cell: int, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[Any]]:
    """Cut unvaried squares from the held-out cells, as many from each cell."""
    crops = [
        (crop(photo, box_within(cell, (56, SHORTEST / CELLS), rng)), label)
        for label, photo in enumerate(photos)
        for cell in held_out_boxes(photo)
        for _ in range(per_cell)
    ]
    return np.stack([pixels for pixels, _ in crops]), np.array([label for _, label in crops])


def initial_weights(seed: int) -> dict[str, Any]:
    """Draw He-normal weights and zero biases, by the names that the ONNX initializers will have."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Any] = {}

    def layer(name: str, *shape: int) -> None:
        fan_in = int(np.prod(shape[1:]))
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        weights[f"{name}.bias"] = torch.zeros(shape[0])

    channels = 3
    for block, filters in enumerate(BLOCKS, 1):
        for index, count in enumerate(filters, 1):
            layer(f"conv{block}_{index}", count, channels, 3, 3)
            channels = count
    layer("fc1", HIDDEN, channels * (SIZE >> len(BLOCKS)) ** 2)
    layer("fc2", len(PHOTOGRAPHS), HIDDEN)
    return {name: tensor.requires_grad_() for name, tensor in weights.items()}


def forward(weights: dict[str, Any], x: Any, seen: dict[str, Any] | None = None) -> Any:
    """Compute the logits; `seen` collects the output of each convolution's ReLU."""
    for block, filters in enumerate(BLOCKS, 1):
        for index in range(1, len(filters) + 1):
            name = f"conv{block}_{index}"
            x = functional.relu(functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1))
            if seen is not None:
                seen[f"relu{block}_{index}"] = x
        x = functional.max_pool2d(x, 2)
    x = functional.relu(functional.linear(x.flatten(1), weights["fc1.weight"], weights["fc1.bias"]))
    return functional.linear(x, weights["fc2.weight"], weights["fc2.bias"])


def train(photos: list[Image.Image], settings: Settings) -> dict[str, Any]:
    rng = np.random.default_rng(settings.seed)
    weights = initial_weights(settings.seed)
    optimizer = torch.optim.AdamW(weights.values(), lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, total_steps=settings.steps)
    started = time.monotonic()
    for step in range(1, settings.steps + 1):
        pixels, labels = training_batch(photos, settings.batch, rng)
        loss = functional.cross_entropy(forward(weights, torch.from_numpy(pixels)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == settings.steps:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return weights


def confusion(weights: dict[str, Any], pixels: Floats, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Count how often the photograph of each row was taken for that of each column."""
    table = np.zeros((len(PHOTOGRAPHS), len(PHOTOGRAPHS)), dtype=np.int64)
    with torch.no_grad():
        guesses = forward(weights, torch.from_numpy(pixels)).argmax(1).numpy()
    np.add.at(table, (labels, guesses), 1)
    return table


def print_accuracy(table: npt.NDArray[np.int64]) -> None:
    print(f"test accuracy {np.trace(table) / table.sum():.3f} on {table.sum()} crops of the held-out cells")
    for name, row, right in zip(PHOTOGRAPHS, table, np.diag(table), strict=True):
        print(f"  {name:10s} {right / row.sum():.2f}")


def print_activations(weights: dict[str, Any], folder: Path) -> None:
    """Print each layer's mean activation over the calibration images, and how many filters never fire there."""
    files = sorted(folder.glob("*.jpg"))
    if not files:
        return
    photos = [Image.open(file).convert("RGB") for file in files]
    seen: dict[str, Any] = {}
    with torch.no_grad():
        forward(weights, torch.from_numpy(np.stack([crop(photo, (0, 0, *photo.size)) for photo in photos])), seen)
    print(f"mean activations over {len(files)} images of {folder.name}/: of the layer, lowest and highest filter, dead")
    for name, values in seen.items():
        means = values.mean((0, 2, 3)).numpy()
        print(f"  {name}  {means.mean():8.4f} {means.min():8.4f} {means.max():8.4f} {int((means == 0).sum()):4d}")


def nodes() -> list[onnx.NodeProto]:
    """List the nodes of the network in order; each is named after its output."""
    found: list[onnx.NodeProto] = []

    def add(op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        found.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    value = "input"
    for block, filters in enumerate(BLOCKS, 1):
        for index in range(1, len(filters) + 1):
            conv = f"conv{block}_{index}"
            parameters = [f"{conv}.weight", f"{conv}.bias"]
            value = add("Conv", conv, [value, *parameters], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            value = add("Relu", f"relu{block}_{index}", [value])
        value = add("MaxPool", f"pool{block}", [value], kernel_shape=[2, 2], strides=[2, 2])
    value = add("Flatten", "flatten", [value], axis=1)
    value = add("Gemm", "fc1", [value, "fc1.weight", "fc1.bias"], transB=1)
    value = add("Relu", "relu_fc1", [value])
    found.append(helper.make_node("Gemm", [value, "fc2.weight", "fc2.bias"], ["logits"], "fc2", transB=1))
    return found


def to_onnx(weights: dict[str, Any]) -> onnx.ModelProto:
    values = {name: tensor.detach().numpy() for name, tensor in weights.items()}
    graph = helper.make_graph(
        nodes(),
        "demo_vgg",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(PHOTOGRAPHS)])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
        doc_string="RGB in [0, 1], 64x64: from which of twelve photographs was it cut?",
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxnorm tools/models/train_demo.py",
    )
    helper.set_model_props(model, {"classes": " ".join(PHOTOGRAPHS), "preset": "unit"})
    onnx.checker.check_model(model, full_check=True)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write under a temporary name, then rename: the file is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(model.SerializeToString(deterministic=True))
    temporary.replace(path)
    print(f"wrote {path.name}, {path.stat().st_size} bytes")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the demo network that ships as models/demo_vgg.onnx.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "models" / "demo_vgg.onnx", help="where to write")
    parser.add_argument("--images", type=Path, default=ROOT / "models" / "images", help="images to measure it on")
    parser.add_argument("--steps", type=int, default=1200, help="batches to train on")
    parser.add_argument("--batch", type=int, default=64, help="crops in a batch")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--decay", type=float, default=1e-2, help="weight decay")
    parser.add_argument("--seed", type=int, default=2015, help="seed of weights and crops")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    settings = Settings(given.steps, given.batch, given.rate, given.decay, given.seed)
    photos = photographs()
    weights = train(photos, settings)
    print_accuracy(confusion(weights, *test_set(photos, per_cell=50, rng=np.random.default_rng(settings.seed + 1))))
    print_activations(weights, given.images)
    save(to_onnx(weights), given.output)


if __name__ == "__main__":
    main()
