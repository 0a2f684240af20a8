"""Make a VGG-16 of full size, about 553 MB, for benchmarks: build/models/vgg16_4096.onnx.

The convolutions are the real ones, from vgg16_features.onnx (see fetch_models.py). The dense layers behind them have
the sizes of the original, 4096, 4096 and 1000, but random weights from a fixed seed, scaled so that the activations
keep their magnitude: it computes at the cost of VGG-16, and recognizes nothing.

    python -m tools.models.fetch
    python -m tools.models.full_vgg
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "build" / "models"
SIZE = 224
DENSE = (4096, 4096, 1000)


def dense_layers(inputs: int, seed: int) -> list[onnx.TensorProto]:
    """Draw He-normal weights, shape (outputs, inputs), and zero biases for fc6, fc7 and fc8."""
    rng = np.random.default_rng(seed)
    tensors = []
    for number, outputs in enumerate(DENSE, 6):
        weight = rng.standard_normal((outputs, inputs), dtype=np.float32) * np.float32((2 / inputs) ** 0.5)
        tensors.append(numpy_helper.from_array(weight, f"fc{number}.weight"))
        tensors.append(numpy_helper.from_array(np.zeros(outputs, dtype=np.float32), f"fc{number}.bias"))
        inputs = outputs
    return tensors


def dense_nodes(value: str) -> list[onnx.NodeProto]:
    nodes = [helper.make_node("Flatten", [value], ["flatten"], "flatten", axis=1)]
    value = "flatten"
    for layer in ("fc6", "fc7"):
        parameters = [f"{layer}.weight", f"{layer}.bias"]
        nodes.append(helper.make_node("Gemm", [value, *parameters], [layer], layer, transB=1))
        nodes.append(helper.make_node("Relu", [layer], [f"relu_{layer}"], f"relu_{layer}"))
        value = f"relu_{layer}"
    nodes.append(helper.make_node("Gemm", [value, "fc8.weight", "fc8.bias"], ["logits"], "fc8", transB=1))
    return nodes


def with_dense_layers(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Put Flatten and three dense layers behind a convolutional stack, and fix its input to SIZE x SIZE."""
    graph = model.graph
    pools = sum(node.op_type == "MaxPool" for node in graph.node)
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    filters = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    result = helper.make_model(
        helper.make_graph(
            [*graph.node, *dense_nodes(graph.output[0].name)],
            "vgg16_4096",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", channels, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", DENSE[-1]])],
            [*graph.initializer, *dense_layers(filters * (SIZE >> pools) ** 2, seed)],
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name="onnxnorm tools/models/full_vgg.py",
    )
    properties = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(result, {**properties, "dense_layers": f"random, seed {seed}"})
    return result


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write under a temporary name, then rename: the file is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, default=MODELS / "vgg16_features.onnx", help="the convolutions")
    parser.add_argument("-o", "--output", type=Path, default=MODELS / "vgg16_4096.onnx", help="where to write")
    parser.add_argument("--seed", type=int, default=16, help="seed of the dense layers (default 16)")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if not given.features.is_file():
        print(f"error: {given.features} is missing: run tools/models/fetch.py first", file=sys.stderr)
        return 1
    save(with_dense_layers(onnx.load(given.features), given.seed), given.output)
    print(f"{given.output}: made, {given.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
